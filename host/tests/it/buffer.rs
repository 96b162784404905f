//! A dataflow with disk persistence, whose broker is away for longer than memory allows.

use std::{collections::BTreeSet, fs};

use tidegate_benches::site::chain;

use crate::{
    mosquitto::{Mosquitto, eventually},
    outside::Subscriber,
    site::{Flow, Site},
};

/// More deliveries than may be unsettled at once, and more bytes than may be in flight: without
/// a buffer no source gets them off.
const MESSAGES: u64 = 6_000;

/// From a file to a broker, which need not be there; with these lines in the policy.
fn site(broker: &Mosquitto, policy: &str) -> Site {
    let mqtt = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let file = "{ endpointType: File, fileSettings: { path: in.jsonl } }";
    let site = Site::new("{ shards: 1 }", &[("in", file), ("local", &mqtt)]);
    let flow = Flow::passing(("in", "in"), ("local", "a/out"));
    site.flow(&flow);
    let resource = chain::dataflow(flow.name, flow.name, flow.from, flow.to);
    let resource = resource.replace("spec:\n", "spec:\n  requestDiskPersistence: Enabled\n");
    site.write("tenants/a/dataflows/flow.yaml", &resource);
    site.limit(policy);
    let pad = "x".repeat(500);
    let lines: String =
        (0..MESSAGES).map(|number| format!("{{\"n\":{number},\"pad\":\"{pad}\"}}\n")).collect();
    fs::write(site.dir().join("in.jsonl"), lines).expect("a file");
    site
}

fn numbers(subscriber: &Subscriber) -> Vec<u64> {
    let number = |payload: &[u8]| {
        let payload: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        payload["n"].as_u64().expect("a number")
    };
    subscriber.received().iter().map(|publish| number(&publish.payload)).collect()
}

fn buffered(site: &Site, key: &str) -> serde_json::Value {
    site.status()["tenants"][0]["dataflows"][0]["buffers"][0][key].clone()
}

#[test]
fn mqtt_a_buffer_keeps_what_a_broker_cannot_take_over_a_kill_and_in_order() {
    let Some(mut broker) = Mosquitto::start(&[]) else { return };
    broker.stop();
    let site = site(&broker, "buffer: 32Mi");
    let host = site.up();
    eventually("its source is through", || site.counter("a", "received") >= MESSAGES);
    eventually("all is settled", || site.counter("a", "settled") == site.counter("a", "deliveries"));
    assert!(buffered(&site, "bytes").as_u64() > Some(MESSAGES * 500));
    assert_eq!(buffered(&site, "full"), false);
    host.kill();
    broker.restart();
    let subscriber = Subscriber::new(broker.port, "a/out");
    let host = site.up();
    eventually("all came", || subscriber.len() as u64 >= MESSAGES);
    eventually("nothing is left on disk", || buffered(&site, "writes") == 0);
    host.stop();
    let came = numbers(&subscriber);
    let mut due = 0;
    for number in came {
        assert!(number <= due, "{number} came where {due} was due");
        due = due.max(number + 1);
    }
    assert_eq!(due, MESSAGES);
    assert!(!site.data().join("buffers/a/flow/local").exists(), "what is empty goes");
}

#[test]
fn mqtt_a_buffer_holds_what_policy_allows_and_then_its_source_waits() {
    // The host may be back before the subscriber is: its session stays meanwhile.
    let Some(mut broker) = Mosquitto::start(&["persistence true"]) else { return };
    let subscriber = Subscriber::new(broker.port, "a/out");
    broker.stop();
    let site = site(&broker, "buffer: 256Ki");
    let host = site.up();
    eventually("it is full", || buffered(&site, "full") == true);
    let bytes = buffered(&site, "bytes").as_u64().expect("a number");
    assert!((100 << 10..=256 << 10).contains(&bytes), "{bytes}");
    assert!(site.counter("a", "received") < MESSAGES);
    broker.restart();
    eventually("all came", || {
        numbers(&subscriber).into_iter().collect::<BTreeSet<_>>().len() as u64 == MESSAGES
    });
    host.stop();
}
