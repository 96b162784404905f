use super::*;
use crate::{dataflow::plan::Failure, dead_letter::Reason};

const S: u64 = 1_000_000_000;

fn description() -> Description {
    Description {
        now: Instant(100 * S),
        last_in: None,
        last_written: None,
        waiting: 0,
        unsettled: 0,
        holding: None,
        circuit: State::Closed,
        windows: Vec::new(),
        windows_open: 0,
        last_letter: None,
        levels: vec![level(LevelOf::Cpu { cap: false }, 1_000_000, None)],
        is_throttled: false,
    }
}

fn level(of: LevelOf, level: i64, opens_in: Option<Duration>) -> Level {
    Level { of, name: "".into(), level, burst: 200_000_000, rate: 100_000_000, opens_in }
}

fn end(name: &str, state: Option<ConnectionState>) -> End {
    End { name: name.to_owned(), state, waiting: 0, lag: None }
}

fn away() -> Option<ConnectionState> {
    Some(ConnectionState::Degraded { since: Instant(0), error: "refused".to_owned() })
}

fn facts() -> Facts {
    Facts {
        tenant: "t".to_owned(),
        dataflow: "f".to_owned(),
        health: Health::Running,
        on_shard: Some(description()),
        sources: vec![end("in", Some(ConnectionState::Connected))],
        sinks: vec![end("out", Some(ConnectionState::Connected))],
        counts: Counts::default(),
        credit: Credit { in_flight: 1 << 20, max: 1 << 20, is_waited_for: false },
    }
}

fn held(at: At, since: u64) -> Option<Holding> {
    Some(Holding { sequence: 7, since: Some(Instant(since * S)), at })
}

fn check(what: &str, change: impl Fn(&mut Facts, &mut Description), expected: &str) {
    let (mut facts, mut description) = (facts(), description());
    change(&mut facts, &mut description);
    facts.on_shard = Some(description);
    assert_eq!(reason(&facts), expected, "{what}");
    // Whatever it is, it is the last line, and the document says it too.
    assert_eq!(facts.to_text().lines().last(), Some(expected), "{what}");
    assert_eq!(facts.to_json()["reason"], expected, "{what}");
}

#[test]
fn what_holds_a_dataflow_for_certain_is_said_first() {
    let cause = || "it traps".to_owned();
    let all = |facts: &mut Facts, description: &mut Description| {
        facts.sinks[0].state = away();
        facts.credit.is_waited_for = true;
        description.holding = held(At::Confirmation, 90);
        description.unsettled = 3;
    };
    check(
        "failed",
        |facts, description| {
            all(facts, description);
            facts.health = Health::Failed { failure: Failure::Panic, cause: cause() };
        },
        "`t/f` has failed and takes nothing: it traps.",
    );
    check(
        "quarantine",
        |facts, description| {
            all(facts, description);
            facts.health = Health::Quarantined { cause: cause() };
        },
        "`t/f` is in quarantine: it traps; mend its operator, then `tidegate resume t/f`.",
    );
    check(
        "open circuit",
        |facts, description| {
            all(facts, description);
            facts.health = Health::Paused { cause: cause() };
        },
        "The circuit of `t/f` is open: it traps.",
    );
    check("sink", all, "The sink `out` cannot be reached (refused): 3 deliveries wait for it.");
    check(
        "a sink that nothing waits for",
        |facts, _| facts.sinks[0].state = away(),
        "Nothing has come from its source yet: `in`.",
    );
    check(
        "source",
        |facts, _| facts.sources[0].state = away(),
        "The source `in` cannot be reached (refused): nothing can come in.",
    );
}

#[test]
fn what_is_used_up_and_what_holds_the_frontier_are_named() {
    let second = Some(Duration::from_secs(3));
    check(
        "fuel",
        |_, description| {
            description.levels.push(level(LevelOf::Fuel, -300_000_000, second));
            description.is_throttled = true;
            description.holding = held(At::Operator("t/f/step".to_owned()), 90);
        },
        "The tenant `t` has used up its fuel: 100M comes back a second, 300M are owed, and it goes on in 3.0 s.",
    );
    check(
        "CPU time",
        |_, description| {
            description.levels = vec![level(LevelOf::Cpu { cap: true }, -5_000_000, second)];
            description.is_throttled = true;
        },
        "The tenant `t` has used up its CPU time: 100m comes back a second, 5ms are owed, and it goes on in 3.0 s.",
    );
    check(
        "CPU time without a cap is no reason",
        |_, description| description.levels = vec![level(LevelOf::Cpu { cap: false }, -5_000_000, second)],
        "Nothing has come from its source yet: `in`.",
    );
    check(
        "operator",
        |_, description| description.holding = held(At::Operator("t/f/step".to_owned()), 90),
        "The operator `t/f/step` holds delivery 7, which came 10.0 s ago.",
    );
    check(
        "room",
        |_, description| description.holding = held(At::Room, 30),
        "A sink is full (`out`): delivery 7, which came 1m 10s ago, waits for room.",
    );
    check(
        "confirmation",
        |_, description| description.holding = held(At::Confirmation, 98),
        "Delivery 7, which came 2.0 s ago, waits until `out` has confirmed it.",
    );
    check(
        "credit",
        |facts, description| {
            facts.credit.is_waited_for = true;
            description.holding = held(At::Confirmation, 100);
        },
        "The tenant `t` has no credit left: 1Mi of 1Mi (`inflight`) are in flight over its dataflows, and its sources wait until some of it is settled.",
    );
}

#[test]
fn where_messages_went_instead_is_said() {
    let counted = |counts: Counts| move |facts: &mut Facts, _: &mut Description| facts.counts = counts;
    check(
        "filtered",
        counted(Counts { received: 5, filtered: 5, ..Counts::default() }),
        "5 of 5 messages were filtered, and none is left.",
    );
    check(
        "errors",
        counted(Counts { received: 5, errors: 5, ..Counts::default() }),
        "5 of 5 messages were dropped because an operator of `t/f` returned an error; `onError: deadLetter` in the policy keeps them.",
    );
    check(
        "late",
        counted(Counts { received: 5, late: 4, filtered: 1, ..Counts::default() }),
        "4 of 5 messages came after their time was complete.",
    );
    check(
        "dead",
        |facts, description| {
            facts.counts = Counts { received: 5, dead: 5, ..Counts::default() };
            let (reason, detail) = (Reason::Trap, "unreachable".to_owned());
            description.last_letter =
                Some(LastLetter { at: Duration::ZERO, operation: None, reason, detail });
        },
        "5 of 5 messages were given up, the last one because of `trap` (unreachable); `tidegate dead-letters list t` shows them.",
    );
    check(
        "windows",
        |facts, description| {
            facts.counts = Counts { received: 5, absorbed: 5, ..Counts::default() };
            description.windows = vec!["t/f/sum".to_owned()];
            description.windows_open = 2;
        },
        "2 times are open in windows (t/f/sum): what is in them comes out once they are complete.",
    );
    check(
        "connecting",
        |facts, _| facts.sources[0].state = Some(ConnectionState::Connecting),
        "Its sources are just being connected: `in`.",
    );
    check(
        "at rest",
        |facts, description| {
            facts.counts = Counts { received: 5, written: 5, ..Counts::default() };
            description.last_in = Some(Instant(95 * S));
            description.last_written = Some(Instant(96 * S));
        },
        "Nothing holds it: its last delivery came 5.0 s ago, and it last wrote 4.0 s ago.",
    );
}
