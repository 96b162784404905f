//! A message's path through one shard: guests in a row, settlement by
//! frontier. What attackers do to it is in `hostile`.

use std::{sync::Arc, time::Duration};

use tidegate::{
    dataflow::shard::Command,
    guest::OperatorKind::{Filter, Map},
};
use tidegate_benches::rig::{Link, Rig, tenant};
use tokio::sync::oneshot;

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

/// A tenant comes with each apply that changes it, and each that is tried.
#[test]
fn a_shard_lets_go_of_tenants_that_are_gone() {
    let mut rig = Rig::new(8, 4);
    let gone: Vec<_> = (0..50)
        .map(|_| {
            let tenant = tenant("team");
            let flow = rig.install(&tenant, "flow", &[HOT]);
            let operator = rig.operator(&tenant, "flow", HOT);
            let (reply, mut removed) = oneshot::channel();
            rig.door.send(Command::Remove { dataflow: flow.id, drain: Duration::ZERO, reply });
            rig.settle();
            removed.try_recv().expect("it is removed");
            let (reply, mut tried) = oneshot::channel();
            rig.door.send(Command::Try { operators: vec![operator], reply });
            while let Err(oneshot::error::TryRecvError::Empty) = tried.try_recv() {
                rig.shard.turn();
            }
            Arc::downgrade(&tenant)
        })
        .collect();
    rig.settle();
    let held = gone.iter().filter(|tenant| tenant.strong_count() > 0).count();
    assert_eq!(held, 0);
}
