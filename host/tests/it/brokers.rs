//! Fifty tenants' connections over a network and a broker that fail meanwhile: what
//! was not confirmed is sent again, and nothing is lost.

use tidegate_loadtest::proxy::Proxy;

use crate::{
    crowd::{self, Happened},
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, publish_all},
    process::{Host, Status},
};

const PART: u64 = 6_000;

/// Whether every connection of every tenant is there.
fn is_connected(status: &Status) -> bool {
    status.connections().all(|end| end["connection"] == "connected")
}

#[test]
fn mqtt_lost_connections_of_fifty_tenants_cost_duplicates_and_nothing_else() {
    let persistence = ["persistence true", "max_inflight_messages 20"];
    let Some(mut broker) = Mosquitto::start(&persistence) else { return };
    let network = Proxy::before(broker.port);
    let site = crowd::site(&network.address());
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    assert!(is_connected(&host.status()), "it was ready before its sources had subscribed");
    let mut count = 0;
    for round in 0..4 {
        let (port, numbers) = (broker.port, count..count + PART);
        let publisher = std::thread::spawn(move || publish_all(port, crowd::messages(numbers)));
        for cut in 1..=2 {
            let at = count + cut * PART / 4;
            eventually("it goes on", || subscriber.len() as u64 >= at || publisher.is_finished());
            network.cut();
        }
        publisher.join().expect("publishing does not fail");
        count += PART;
        if round % 2 == 1 {
            // With whatever it has not delivered yet.
            let subscriptions = subscriber.subscriptions();
            broker.stop();
            broker.restart();
            subscriber.wait_for_subscription(subscriptions + 1);
        }
        crowd::change_component(&site, 5 * round, 1);
        assert_eq!(host.apply_well(site.path()), [format!("replaced {}/flow", crowd::name(5 * round))]);
    }
    crowd::wait_until_answered(&subscriber, &host, count);
    let status = host.wait_for("all are connected", is_connected);
    let mut happened = Happened::default();
    happened.add(&status);
    happened.check();
    // Of what has not been replaced since.
    let sum = |counter| status.connections().filter_map(|end| end["counters"][counter].as_u64()).sum::<u64>();
    assert!(sum("failures") > 0 && sum("redelivered") > 0, "{}", status.0);
    let delivered = (0..count).filter(|number| !crowd::is_given_up(*number)).count();
    assert!(subscriber.len() > delivered, "no cut cost a duplicate: none hit anything");
    host.stop();
}
