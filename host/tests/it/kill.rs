//! kill -9 of the host while messages run through a real mosquitto: none is lost by
//! id, as an outside client counts; and the same count reports loss when settlement
//! is broken on purpose.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidegate_benches::rig::guest_path;

use crate::{
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    process::Host,
};

/// A site of one tenant whose messages pass two operators.
fn lay_out(dir: &Path, address: &str) {
    let write = |path: &str, text: String| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("below the site")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write(
        "platform/all.yaml",
        format!(
            r#"apiVersion: tidegate.dev/v1
kind: Host
metadata: {{ name: kill }}
spec: {{ shards: 2, slots: {{ fuel: 16 }}, components: 4 }}
---
apiVersion: tidegate.dev/v1
kind: Tenant
metadata: {{ name: a }}
spec: {{ policy: standard }}
---
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata: {{ name: local }}
spec: {{ endpointType: Mqtt, mqttSettings: {{ host: "{address}" }} }}
"#
        ),
    );
    write(
        "tenants/a/artifacts/twice/1.yaml",
        r#"metadata: { $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: twice, version: "1" }
moduleRequirements: { apiVersion: "1.1.0", runtimeVersion: "1.1.0" }
operations:
  - { operationType: source, name: in }
  - { operationType: map, name: one, module: "pass:1" }
  - { operationType: map, name: two, module: "pass:1" }
  - { operationType: sink, name: out }
connections:
  - { from: { name: in }, to: { name: one } }
  - { from: { name: one }, to: { name: two } }
  - { from: { name: two }, to: { name: out } }
"#
        .into(),
    );
    write(
        "tenants/a/dataflows/flow.yaml",
        r#"apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata: { name: flow }
spec:
  nodes:
    - { nodeType: Source, name: in, sourceSettings: { endpointRef: local, dataSources: [ "a/in" ] } }
    - { nodeType: Graph, name: g, graphSettings: { registryEndpointRef: r, artifact: "twice:1" } }
    - { nodeType: Destination, name: out, destinationSettings: { endpointRef: local, dataDestination: "a/out/x" } }
  nodeConnections:
    - { from: { name: in }, to: { name: g } }
    - { from: { name: g }, to: { name: out } }
"#
        .into(),
    );
    let component = dir.join("tenants/a/artifacts/pass/1.wasm");
    fs::create_dir_all(component.parent().expect("below the site")).expect("a folder");
    fs::copy(guest_path("pass_through"), component).expect("the component is built");
}

/// Publishes `count` messages and kills the host `kills` times meanwhile; gives how
/// many ids came out and how many messages.
fn run(count: u64, kills: usize, plant: &str, seed: u64) -> Option<(usize, usize)> {
    let broker = Mosquitto::start(&["max_inflight_messages 0"])?;
    let site = tempfile::tempdir().expect("a folder");
    lay_out(site.path(), &broker.address());
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let mut host = Host::up_with(site.path(), plant);
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish_all(port, numbers("a/in", 0..count)));
    let mut rng = StdRng::seed_from_u64(seed);
    for kill in 0..kills {
        // At some moment of this part of the run, wherever that finds the host.
        let part = count as usize / (kills + 1);
        let at = kill * part + rng.random_range(1..part);
        eventually("results come", || subscriber.len() >= at || publisher.is_finished());
        host.kill();
        host = Host::up_with(site.path(), plant);
    }
    publisher.join().expect("publishing does not fail");
    let ids = || subscriber.numbers().into_iter().collect::<BTreeSet<_>>().len();
    if plant.is_empty() {
        eventually("every id comes out", || ids() as u64 == count);
    } else {
        // What is lost never comes: wait until nothing has come for a while.
        let mut last = (0, std::time::Instant::now());
        eventually("nothing more comes", || {
            if subscriber.len() != last.0 {
                last = (subscriber.len(), std::time::Instant::now());
            }
            last.1.elapsed() > Duration::from_secs(3)
        });
    }
    host.stop();
    Some((ids(), subscriber.len()))
}

#[test]
fn mqtt_nothing_is_lost_when_the_host_is_killed_ten_times() {
    let Some((ids, messages)) = run(100_000, 10, "", 5) else { return };
    assert_eq!(ids, 100_000);
    eprintln!("{} duplicates after ten kills", messages - ids);
}

#[test]
fn mqtt_the_same_count_reports_loss_when_settlement_is_broken() {
    let Some((ids, _)) = run(40_000, 4, "early-ack", 6) else { return };
    assert!(ids < 40_000, "an early ack lost nothing: the count cannot fail");
}
