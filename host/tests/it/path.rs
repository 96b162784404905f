//! A message's path through one shard: guests in a row, settlement by frontier,
//! faults that cost nobody else.

use tidegate::{
    dead_letter::Reason,
    guest::OperatorKind::{Filter, Map},
};

use tidegate_benches::rig::{Link, Rig, tenant};

const PASS: Link<'_> = ("pass_through", Map, &[]);
const HOT: Link<'_> = ("json_filter", Filter, &[("field", "t"), ("op", "gt"), ("value", "50")]);

#[test]
fn a_filtered_and_a_delivered_message_are_both_settled() {
    let mut rig = Rig::new(8, 4);
    let tenant = tenant("weather");
    let mut flow = rig.install(&tenant, "hot", &[HOT, PASS]);
    flow.send(&[r#"{"t":70}"#, r#"{"t":20}"#, r#"{"t":51}"#]);
    flow.send(&[r#"{"t":1}"#]);
    rig.settle();
    assert_eq!(flow.source.settled_upto(), 0, "nothing is settled before the sink confirms");
    assert_eq!(flow.receive(), [r#"{"t":70}"#, r#"{"t":51}"#]);
    rig.settle();
    assert_eq!(flow.source.settled_upto(), 2);
    assert_eq!(tenant.ledger.bytes_in_flight(), 0);
    let stats = &flow.plan.stats;
    assert_eq!((stats.received.get(), stats.filtered.get(), stats.delivered.get()), (4, 2, 2));
}

#[test]
fn an_unconfirmed_delivery_holds_the_settlement_of_all_behind_it() {
    let mut rig = Rig::new(8, 4);
    let mut flow = rig.install(&tenant("weather"), "pass", &[PASS]);
    flow.send(&["1"]);
    flow.send(&["2"]);
    rig.settle();
    let mut writes = flow.take();
    writes.pop().expect("two writes").confirm(Vec::new());
    rig.settle();
    assert_eq!(flow.source.settled_upto(), 0);
    writes.pop().expect("one write").confirm(Vec::new());
    rig.settle();
    assert_eq!(flow.source.settled_upto(), 2);
}

/// Every way a guest can misbehave on one message, how hard, and what becomes of it.
const ATTACKS: &[(&str, &str, Option<Reason>)] = &[
    ("spin", "", Some(Reason::OutOfFuel)),
    ("trap", "", Some(Reason::Trap)),
    ("panic", "", Some(Reason::Trap)),
    ("stray", "", Some(Reason::Trap)),
    ("recurse", "", Some(Reason::Trap)),
    ("allocate", "", Some(Reason::MemoryRefused)),
    ("fill", "", Some(Reason::OutOfFuel)),
    ("messages", "", Some(Reason::MemoryRefused)),
    ("messages", "200", Some(Reason::BadOutput)),
    ("messages", "64", None),
    ("bytes", "", Some(Reason::MemoryRefused)),
    ("bytes", "500000", None),
    ("fault", "", Some(Reason::MemoryRefused)),
    // Refused memory, it goes on and passes the message.
    ("grow", "", None),
];

#[test]
fn only_the_guilty_message_of_a_batch_is_lost_and_neighbours_keep_their_bytes() {
    for (attack, amount, reason) in ATTACKS {
        let mut rig = Rig::new(8, 4);
        let neighbour = tenant("neighbour");
        let mut quiet = rig.install(&neighbour, "pass", &[PASS]);
        let both = [("attack", *attack), ("amount", *amount)];
        let configuration = if amount.is_empty() { &both[..1] } else { &both[..] };
        let mut flow = rig.install(&tenant("careless"), "flow", &[("hostile_attacks", Map, configuration)]);
        flow.send(&["one", "attack", "three"]);
        let mut heard = Vec::new();
        for beat in 0..20 {
            quiet.send(&[&beat.to_string()]);
            (0..4).for_each(|_| _ = rig.shard.turn());
            heard.extend(quiet.receive());
        }
        assert_eq!(heard, (0..20).map(|beat| beat.to_string()).collect::<Vec<_>>(), "beside {attack}");
        rig.settle();
        let delivered = flow.receive();
        rig.settle();
        assert_eq!(flow.source.settled_upto(), 1, "{attack}");
        let dead = rig.dead.lock().expect("no panic");
        let found: Vec<_> = dead.iter().map(|letter| (letter.reason, letter.payload.as_deref())).collect();
        match reason {
            None => {
                assert_eq!(found, [], "{attack} {amount}: {dead:?}");
                assert_eq!(
                    (delivered.first(), delivered.last()),
                    (Some(&"one".into()), Some(&"three".into()))
                );
            }
            Some(reason) => {
                assert_eq!(delivered, ["one", "three"], "{attack}");
                assert_eq!(found, [(*reason, Some("attack"))], "{attack}: {dead:?}");
                let retries = if matches!(reason, Reason::Trap | Reason::MemoryRefused) { 2 } else { 0 };
                assert_eq!(flow.plan.steps[0].operator.stats.retries.get(), retries, "{attack}");
            }
        }
    }
}
