//! One graph on four transports, each with its real server: `tenants/samples/anywhere`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidegate_benches::rig::guest_path;

use crate::{
    http::{Client, Receiver},
    kafka::Server,
    mosquitto::{Mosquitto, eventually, free_port},
    otlp::{Running, log_request},
    outside::{Subscriber, numbers, publish_all},
    site::Site,
};

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenants/samples/anywhere")
}

/// The sample's graph on one of its transports, whose addresses are others.
fn site(transport: &str, addresses: &[(&str, &str)]) -> Site {
    let read = |path: &str| fs::read_to_string(sample().join(path)).expect("it is there");
    let site = Site::new("{ shards: 1 }", &[]);
    let mut endpoints = read(&format!("{transport}/endpoints.yaml"));
    for (sample, here) in addresses {
        assert!(endpoints.contains(sample), "{transport}: {sample}");
        endpoints = endpoints.replace(sample, here);
    }
    let grants = "endpoints: [ { name: from, read: [ \"#\" ] }, { name: to, write: [ \"#\" ] } ]";
    site.write(
        "platform/all.yaml",
        &format!(
            "{endpoints}---\napiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{ name: team }}\n\
             spec: {{ world: \"tidegate:policy/standard@0.1.0\", {grants} }}\n---\n\
             apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: a }}\nspec: {{ policy: team }}\n"
        ),
    );
    site.write("tenants/a/dataflows/relay.yaml", &read(&format!("{transport}/dataflow.yaml")));
    site.write("tenants/a/artifacts/relay/1.yaml", &read("artifacts/relay/1.yaml"));
    for (name, guest) in [("pass-filter", "pass_filter"), ("aio-pass-through", "aio_pass_through")] {
        let place = site.dir().join(format!("tenants/a/artifacts/{name}/1.wasm"));
        fs::create_dir_all(place.parent().expect("below the site")).expect("a folder");
        fs::copy(guest_path(guest), place).expect("it is built");
    }
    site
}

#[test]
fn mqtt_one_graph_runs_on_mqtt() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = site("mqtt", &[("127.0.0.1:1883", &broker.address())]);
    let host = site.up();
    let subscriber = Subscriber::new(broker.port, "relayed");
    publish_all(broker.port, numbers("readings", 0..20));
    eventually("all came", || subscriber.numbers() == (0..20).collect::<Vec<_>>());
    host.stop();
}

#[test]
fn kafka_one_graph_runs_on_kafka() {
    let Some(server) = Server::shared() else { return };
    server.topic("readings", 2);
    server.topic("relayed", 2);
    let site = site("kafka", &[("127.0.0.1:9092", &server.address())]);
    let host = site.up();
    server.send("readings", 0..20);
    eventually("all came", || {
        let mut came = server.numbers("relayed");
        came.sort_unstable();
        came == (0..20).collect::<Vec<_>>()
    });
    host.stop();
}

#[test]
fn http_one_graph_runs_on_http() {
    let (port, receiver) = (free_port(), Receiver::all());
    let here = format!("127.0.0.1:{port}");
    let site = site("http", &[("127.0.0.1:8080", &here), ("http://127.0.0.1:8081/", &receiver.url())]);
    let host = site.up();
    let mut client = Client::connect(port);
    for number in 0..20 {
        assert_eq!(client.post("/a/readings", &number.to_string()).expect("an answer").status, 202);
    }
    assert_eq!(receiver.bodies(), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    host.stop();
}

#[test]
fn otlp_one_graph_runs_on_otlp() {
    let Some(collector) = Running::start(&Default::default()) else { return };
    let port = free_port();
    let here = format!("127.0.0.1:{port}");
    let site = site("otlp", &[("127.0.0.1:5317", &here), ("127.0.0.1:4317", &collector.address())]);
    let host = site.up();
    let mut client = Client::connect(port);
    for number in 0..20 {
        client.send(log_request(&number.to_string())).expect("it is sent");
        assert_eq!(client.answer().expect("an answer").status, 200);
    }
    eventually("the Collector wrote all", || collector.logs().len() == 20);
    let body = |record: &serde_json::Value| record["body"]["stringValue"].as_str().map(str::to_owned);
    let came: Vec<_> = collector.logs().iter().filter_map(body).collect();
    assert_eq!(came, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    host.stop();
}
