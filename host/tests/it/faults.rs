//! Attackers among fifty tenants on a running host: only their guilty messages are
//! given up, with the right reason, and everybody else gets all, in order.

use std::collections::BTreeMap;

use tidegate::dead_letter::Reason;

use crate::{
    crowd::{self, Happened},
    folder::PATIENT,
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, publish_all},
    process::Host,
};

/// One for each tenant that has guilty messages.
const ATTACKS: [(&str, Reason); 10] = [
    ("spin", Reason::OutOfFuel),
    ("trap", Reason::Trap),
    ("panic", Reason::Trap),
    ("stray", Reason::Trap),
    ("recurse", Reason::Trap),
    ("allocate", Reason::MemoryRefused),
    ("fill", Reason::OutOfFuel),
    ("bytes", Reason::MemoryRefused),
    ("log", Reason::Trap),
    ("exit", Reason::Trap),
];

const COUNT: u64 = 12_000;

#[test]
fn mqtt_attackers_among_fifty_tenants_lose_their_guilty_messages_and_nobody_else_any() {
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let site = crowd::site(&broker.address());
    // Time enough that fuel runs out first, also where a core is shared.
    site.policy("slow", &["message: { fuel: 20M, time: 1s }", PATIENT]);
    let guilty = (0..crowd::TENANTS).filter(|tenant| tenant % 5 == 3);
    let attackers: BTreeMap<_, _> = guilty.map(crowd::name).zip(ATTACKS).collect();
    assert_eq!(attackers.len(), ATTACKS.len());
    for (tenant, (attack, _)) in &attackers {
        site.tenant(tenant, "slow");
        let configuration = [("attack", *attack), ("marker", "99")];
        let attacker = ("map", "hostile_attacks", &configuration[..]);
        site.dataflow(tenant, "flow", &[attacker, ("map", "pass_through", &[])]);
    }
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish_all(port, crowd::messages(0..COUNT)));
    eventually("it is under way", || subscriber.len() as u64 >= COUNT / 4);
    crowd::change_component(&site, 0, 1);
    assert_eq!(host.apply_well(site.path()), ["replaced t00/flow"]);
    publisher.join().expect("publishing does not fail");
    crowd::wait_until_answered(&subscriber, &host, COUNT);
    crowd::check_delivered(&subscriber, COUNT);

    let status = host.status();
    for tenant in 0..crowd::TENANTS {
        let tenant = crowd::name(tenant);
        let flow = format!("{tenant}/flow");
        assert_eq!(status.dataflow(&flow)["state"], "Running", "{flow}");
        assert_eq!(status.count(&flow, "dead") > 0, attackers.contains_key(&tenant), "{flow}");
    }
    for letter in host.dead_letters() {
        let (attack, reason) = attackers[&letter.tenant];
        assert_eq!(letter.reason, reason, "{attack}: {letter:?}");
    }
    let mut happened = Happened::default();
    happened.add(&status);
    happened.check();
    host.stop();
}
