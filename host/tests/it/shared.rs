//! Hosts that share the messages of one subscription.

use std::{collections::BTreeSet, thread};

use crate::{
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    site::{Flow, Site},
};

/// A host whose clients are told from those of others by their prefix alone.
fn site(port: u16, prefix: &str) -> Site {
    let spec = format!(
        "{{ endpointType: Mqtt, mqttSettings: {{ host: \"127.0.0.1:{port}\", clientIdPrefix: \"{prefix}\" }} }}"
    );
    let site = Site::new("{ shards: 1 }", &[("local", &spec)]);
    site.flow(&Flow::passing(("local", "$shared/both/a/in/#"), ("local", "a/out")));
    site
}

fn taken(site: &Site) -> u64 {
    let status = site.status();
    let source = &status["tenants"][0]["dataflows"][0]["sources"][0];
    source["counters"]["messages_in"].as_u64().expect("a count")
}

#[test]
fn mqtt_two_hosts_share_a_subscription_and_lose_nothing_when_one_is_killed() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let (one, other) = (site(broker.port, "one:"), site(broker.port, "other:"));
    let (up, up_other) = (one.up(), other.up());
    publish_all(broker.port, numbers("a/in/x", 0..1000));
    eventually("each comes once", || subscriber.len() == 1000);
    assert!(taken(&one) > 100 && taken(&other) > 100, "{} and {}", taken(&one), taken(&other));
    assert_eq!(taken(&one) + taken(&other), 1000);

    let port = broker.port;
    let publisher = thread::spawn(move || publish_all(port, numbers("a/in/x", 1000..6000)));
    eventually("it goes on", || subscriber.len() > 1500);
    up.kill();
    publisher.join().expect("it publishes all");
    // What the broker had given to the one that is gone waits for it.
    let again = one.up();
    let all: BTreeSet<u64> = (0..6000).collect();
    eventually("all arrive", || subscriber.numbers().into_iter().collect::<BTreeSet<_>>() == all);
    again.stop();
    up_other.stop();
}
