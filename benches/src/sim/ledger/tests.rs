use super::*;

const MESSAGES: usize = 200;

fn ledger(character: Character) -> (Ledger, Stage) {
    let mut stage = Stage::new(1);
    let ledger = Ledger::new("t".into(), character, MESSAGES, true, &mut stage);
    (ledger, stage)
}

/// The first message of this fate.
fn first(ledger: &Ledger, fate: Fate) -> usize {
    ledger.messages.iter().position(|it| it.fate == fate).expect("there is one among so many")
}

/// Brings every message to its end, as a host does that keeps its promises.
fn end_all(ledger: &mut Ledger, stage: &mut Stage) {
    for id in 0..MESSAGES {
        ledger.send(id, stage);
        let (payload, fate) = (ledger.messages[id].payload.clone(), ledger.messages[id].fate);
        match fate {
            Fate::Delivered => {
                ledger.receive(&payload, false).expect("it may come out");
                ledger.answer(id, false);
            }
            Fate::Filtered => {}
            Fate::Dead(reason) => ledger.bury(&payload, reason).expect("it has to die"),
        }
        ledger.check_done(id).expect("it has ended");
    }
}

#[test]
fn a_host_that_keeps_its_promises_is_not_blamed() {
    for character in Character::ALL {
        let (mut ledger, mut stage) = ledger(character);
        end_all(&mut ledger, &mut stage);
        ledger.check_end(&mut stage).expect("all is well");
        assert_eq!(stage.outcome.messages, MESSAGES as u64);
    }
}

/// `act` breaks a promise over a message of this fate; the ledger must say what.
fn check(fate: Fate, act: impl Fn(&mut Ledger, &mut Stage, usize) -> anyhow::Result<()>, said: &str) {
    let character = match fate {
        Fate::Filtered => Character::Filters,
        _ => Character::Traps,
    };
    let (mut ledger, mut stage) = ledger(character);
    let id = first(&ledger, fate);
    ledger.send(id, &mut stage);
    let error = act(&mut ledger, &mut stage, id).expect_err(said).to_string();
    assert!(error.contains(said), "{error:?} does not say {said:?}");
}

#[test]
fn every_broken_promise_is_seen() {
    let payload = |ledger: &Ledger, id: usize| ledger.messages[id].payload.clone();
    check(Fate::Delivered, |ledger, _, id| ledger.check_done(id), "is settled and was not");
    check(Fate::Dead(Reason::Trap), |ledger, _, id| ledger.check_done(id), "is settled and was not");
    let receive = |ledger: &mut Ledger, _: &mut Stage, id| {
        let payload = payload(ledger, id);
        ledger.receive(&payload, false).map(|_| ())
    };
    check(Fate::Filtered, receive, "which no one let pass");
    check(Fate::Dead(Reason::Trap), receive, "which no one let pass");
    let twice = |ledger: &mut Ledger, stage: &mut Stage, id| {
        receive(ledger, stage, id)?;
        receive(ledger, stage, id)
    };
    check(Fate::Delivered, twice, "more often than it went in");
    let changed = |ledger: &mut Ledger, _: &mut Stage, id: usize| {
        let payload = [&payload(ledger, id)[..], b" "].concat();
        ledger.receive(&payload, false).map(|_| ())
    };
    check(Fate::Delivered, changed, "was changed on its way");
    let bury = |reason| {
        move |ledger: &mut Ledger, _: &mut Stage, id| {
            let payload = payload(ledger, id);
            ledger.bury(&payload, reason)
        }
    };
    check(Fate::Delivered, bury(Reason::Trap), "is a dead letter for Trap");
    check(Fate::Delivered, bury(Reason::Rejected), "refused less often than buried");
}

#[test]
fn what_overtakes_is_seen() {
    let (mut ledger, mut stage) = ledger(Character::Passes);
    let delivered = (0..MESSAGES).filter(|id| ledger.messages[*id].fate == Fate::Delivered);
    let [first, second] = delivered.take(2).collect::<Vec<_>>()[..] else { panic!("there are more") };
    for id in [second, first] {
        ledger.send(id, &mut stage);
    }
    let (early, late) = (ledger.messages[second].payload.clone(), ledger.messages[first].payload.clone());
    ledger.receive(&early, false).expect("it comes alone");
    assert!(ledger.receive(&late, false).is_err());
}

#[test]
fn once_means_once_unless_it_was_sent_again() {
    let (mut ledger, mut stage) = ledger(Character::Passes);
    end_all(&mut ledger, &mut stage);
    let id = first(&ledger, Fate::Delivered);
    ledger.answer(id, false);
    assert!(ledger.check_end(&mut stage).is_err());
    let payload = ledger.messages[id].payload.clone();
    ledger.receive(&payload, true).expect("the sink had lost its connection");
    ledger.check_end(&mut stage).expect("at least once");
}
