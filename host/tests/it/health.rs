//! How dataflows do, in AIO's words: what `status` says of them when connections go
//! away and come back, when an operator will not start, and when one traps.

use std::{fs, io::Write as _};

use serde_json::Value;

use crate::{
    mosquitto::{Mosquitto, eventually},
    site::{Flow, Site},
};

const MEMORY: (&str, &str) = ("memory", "{ endpointType: Memory }");

/// The health state of `tenant/dataflow`.
fn health(site: &Site, name: &str) -> Value {
    let (tenant, dataflow) = name.split_once('/').expect("tenant/dataflow");
    let status = site.status();
    let named = |list: &Value, name: &str| {
        list.as_array().expect("a list").iter().find(|it| it["name"] == name).expect("it runs").clone()
    };
    named(&named(&status["tenants"], tenant)["dataflows"], dataflow)["healthState"].clone()
}

/// Waits for a status and its reason, and gives when it became so.
fn wait_for(site: &Site, name: &str, status: &str, reason: Option<&str>) -> String {
    let mut state = Value::Null;
    let reason = reason.map(|reason| format!("DataflowGraph{reason}"));
    eventually(&format!("{name} is {status}, {reason:?}"), || {
        state = health(site, name);
        state["status"] == status && state["reasonCode"].as_str() == reason.as_deref()
    });
    assert_eq!(state["message"].is_null(), reason.is_none(), "{state}");
    let time = |key: &str| state[key].as_str().unwrap_or_else(|| panic!("{state}")).to_owned();
    assert!(time("lastTransitionTime") <= time("lastUpdateTime"), "{state}");
    time("lastTransitionTime")
}

fn append(site: &Site, file: &str, lines: &str) {
    let file = fs::File::options().create(true).append(true).open(site.dir().join(file));
    file.expect("a file").write_all(lines.as_bytes()).expect("it is written");
}

#[test]
fn mqtt_a_broker_that_goes_away_and_comes_back_is_seen_in_the_health_of_what_it_serves() {
    let Some(mut broker) = Mosquitto::start(&[]) else { return };
    let spec = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let file = ("file", "{ endpointType: File, fileSettings: { path: in.jsonl } }");
    let site = Site::new("{ shards: 1 }", &[("local", &spec), MEMORY, file]);
    let flow = |name, from, to| {
        site.flow(&Flow { tenant: "a", name, from, to, operators: &[("map", "pass_through")] });
    };
    flow("reads", ("local", "a/in"), ("memory", "out"));
    flow("writes", ("file", "in"), ("local", "a/out"));
    flow("apart", ("memory", "in"), ("memory", "out"));
    append(&site, "in.jsonl", "");
    let host = site.up();
    let up = ["a/reads", "a/writes", "a/apart"].map(|name| wait_for(&site, name, "Available", None));
    broker.kill();
    let away = [
        wait_for(&site, "a/reads", "Unavailable", Some("SourceChannelClosed")),
        wait_for(&site, "a/writes", "Degraded", Some("SinkChannelClosed")),
    ];
    assert!(up[0] < away[0] && up[1] < away[1], "{up:?} {away:?}");
    assert_eq!(wait_for(&site, "a/apart", "Available", None), up[2], "nothing became of it");
    let shown = site.run(&["status"]).stdout;
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).expect("a line each");
    assert!(line("a/reads").ends_with("  Unavailable: SourceChannelClosed"), "{shown}");
    assert!(line("a/writes").ends_with("  Degraded: SinkChannelClosed"), "{shown}");
    assert!(!line("a/apart").contains("Available"), "{shown}");
    broker.restart();
    let back = ["a/reads", "a/writes"].map(|name| wait_for(&site, name, "Available", None));
    assert!(away[0] < back[0] && away[1] < back[1], "{away:?} {back:?}");
    host.stop();
}

#[test]
fn an_instance_that_refuses_its_configuration_makes_its_dataflow_unavailable() {
    let endpoint = |path: &str| format!("{{ endpointType: File, fileSettings: {{ path: {path} }} }}");
    let (keys, work) = (endpoint("keys.jsonl"), endpoint("work.jsonl"));
    let site = Site::new("{ shards: 1 }", &[("keys", &keys), ("work", &work), MEMORY]);
    let flow = |name, from, operator| {
        site.flow(&Flow {
            tenant: "a",
            name,
            from: (from, "in"),
            to: ("memory", "out"),
            operators: &[("map", operator)],
        });
    };
    flow("begins", "keys", "aio_state");
    flow("fickle", "work", "hostile_fickle");
    ["keys.jsonl", "work.jsonl"].iter().for_each(|file| append(&site, file, ""));
    let host = site.up();
    let before = wait_for(&site, "a/fickle", "Available", None);
    append(&site, "keys.jsonl", "\"set refuse 1\"\n");
    eventually("the key is there", || site.counter("a", "delivered") == 1);
    append(&site, "work.jsonl", "\"one\"\n");
    let after = wait_for(&site, "a/fickle", "Unavailable", Some("ConfigurationFailed"));
    assert!(before < after, "{before} {after}");
    let state = health(&site, "a/fickle");
    assert!(state["message"].as_str().is_some_and(|it| it.contains("a/fickle/step-0")), "{state}");
    wait_for(&site, "a/begins", "Available", None);
    host.stop();
}

#[test]
fn an_operator_that_traps_degrades_its_dataflow_alone() {
    let file = ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }");
    let site = Site::new("{ shards: 1 }", &[file, MEMORY]);
    for (tenant, operator) in [("a", "aio_pass_through"), ("b", "preview_temperature")] {
        let (from, to) = (("in", "in"), ("memory", "out"));
        site.flow(&Flow { tenant, name: "flow", from, to, operators: &[("map", operator)] });
    }
    append(&site, "in.jsonl", "{\"temperature\":{\"value\":212,\"unit\":\"F\"}}\n");
    let host = site.up();
    eventually("it is through", || site.counter("b", "delivered") == 1);
    let before = wait_for(&site, "b/flow", "Available", None);
    append(&site, "in.jsonl", "\"no reading\"\n");
    let after = wait_for(&site, "b/flow", "Degraded", Some("ModuleRuntimeFault"));
    assert!(before < after, "{before} {after}");
    eventually("it was given up", || site.counter("b", "dead") == 1);
    eventually("the neighbour has both", || site.counter("a", "delivered") == 2);
    wait_for(&site, "a/flow", "Available", None);
    host.stop();
}
