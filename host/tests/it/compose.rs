//! A map and its provider, fused by command and by the host: the provider is another
//! line of a resource, and a hostile one is blamed like any operator.

use std::{fs, io::Write as _, path::PathBuf};

use serde_json::{Value, json};
use tidegate_benches::{rig::guest_path, site::chain};

use crate::{
    languages::guest,
    mosquitto::eventually,
    site::{Ran, Site, payloads, tidegate},
};

/// As AIO's sample has it.
const GRAPH: &str = include_str!("../fixtures/aio/edge-ai-graph-simple-map-custom.yaml");
const OPERATION: &str = "module-temperature/map-custom";

/// One tenant with AIO's graph, the map and every provider, between two files.
fn site() -> Site {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
    ];
    let site = Site::new("{ shards: 1 }", &endpoints);
    let tenant = "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: { name: a }\nspec: { policy: team }\n";
    site.write("platform/a.yaml", tenant);
    site.write("tenants/a/artifacts/edge/1.yaml", GRAPH);
    for (artifact, guest) in [
        ("map-custom", "map_custom"),
        ("dew-point", "dew_point"),
        ("calibrate", "calibrate"),
        ("hostile", "hostile_provider"),
    ] {
        let place = site.dir().join(format!("tenants/a/artifacts/{artifact}/1.0.0.wasm"));
        fs::create_dir_all(place.parent().expect("below the site")).expect("a folder");
        fs::copy(guest_path(guest), place).expect("the component is built");
    }
    site
}

/// The dataflow with this provider.
fn provide(site: &Site, provider: &str) {
    let key = format!("tidegate.dev/provider.{}", OPERATION.replace('/', "."));
    let metadata = format!("metadata: {{ name: flow, annotations: {{ {key}: \"{provider}\" }} }}");
    let dataflow = chain::dataflow("flow", "edge", ("in", "in"), ("out", "out"));
    let dataflow = dataflow.replace("metadata: { name: flow }", &metadata);
    assert!(dataflow.contains(&metadata));
    site.write("tenants/a/dataflows/flow.yaml", &dataflow);
}

fn give(site: &Site, payloads: &[Value]) {
    let path = site.dir().join("in.jsonl");
    let mut file = fs::File::options().create(true).append(true).open(path).expect("a file");
    let lines: String = payloads.iter().map(|payload| format!("{{\"payload\":{payload}}}\n")).collect();
    file.write_all(lines.as_bytes()).expect("it is written");
}

/// Payloads that have come out, once there are so many.
fn heard(site: &Site, count: usize) -> Vec<Value> {
    let heard = || payloads(&site.dir().join("out.jsonl"));
    eventually("all came out", || heard().len() >= count);
    heard().iter().map(|payload| serde_json::from_str(payload).expect("it is JSON")).collect()
}

/// What the status says of the operator's parts.
fn parts(site: &Site) -> (String, String) {
    let fused = site.status()["tenants"][0]["dataflows"][0]["operators"][0]["fused"].clone();
    let text = |part: &str| fused[part].as_str().expect("a digest").to_owned();
    (text("map"), text("provider"))
}

#[test]
fn another_provider_is_another_line_of_the_dataflow() {
    let site = site();
    provide(&site, "dew-point:1.0.0");
    let host = site.up();
    let air = json!({ "temperature": 20.0, "humidity": 50.0 });
    give(&site, std::slice::from_ref(&air));
    // After Magnus: what tables say of such air.
    assert_eq!(heard(&site, 1), [json!({ "temperature": 20.0, "humidity": 50.0, "dewPoint": 9.3 })]);
    let (map, dew_point) = parts(&site);
    provide(&site, "calibrate:1.0.0");
    let applied = site.apply();
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    give(&site, &[air]);
    assert_eq!(heard(&site, 2)[1], json!({ "temperature": 20.0, "humidity": 50.0, "corrected": 20.0 }));
    let (same_map, calibrate) = parts(&site);
    assert_eq!(map, same_map);
    assert_ne!(dew_point, calibrate);
    host.stop();
    // The host has both parts by itself.
    let host = site.up_from_data();
    give(&site, &[json!({ "temperature": 1.5 })]);
    assert_eq!(heard(&site, 3)[2], json!({ "temperature": 1.5, "corrected": 1.5 }));
    host.stop();
}

#[test]
fn the_other_provider_may_be_written_in_another_language() {
    let Some(humidity) = guest("c", "humidity") else { return };
    let site = site();
    let place = site.dir().join("tenants/a/artifacts/humidity/1.0.0.wasm");
    fs::create_dir_all(place.parent().expect("below the site")).expect("a folder");
    fs::copy(&humidity, place).expect("it is built");
    provide(&site, "calibrate:1.0.0");
    let host = site.up();
    let air = json!({ "temperature": 20.0, "humidity": 50.0 });
    give(&site, std::slice::from_ref(&air));
    assert_eq!(heard(&site, 1), [json!({ "temperature": 20.0, "humidity": 50.0, "corrected": 20.0 })]);
    let (map, _) = parts(&site);
    provide(&site, "humidity:1.0.0");
    let applied = site.apply();
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    // What it will not take is not passed on.
    give(&site, &[json!({ "temperature": 20.0, "humidity": 101 }), json!([]), air]);
    // As tables have it, which say 17.3 g/m³ of saturated air.
    let expected = json!({ "temperature": 20.0, "humidity": 50.0, "absoluteHumidity": 8.6 });
    assert_eq!(heard(&site, 2)[1], expected);
    assert_eq!(parts(&site).0, map);
    assert_eq!(site.counter("a", "errors"), 2);
    host.stop();
    // And by command: what comes out is one component, of these two.
    let output = site.dir().join("../fused.wasm");
    let mut command = tidegate();
    command.arg("compose").arg(guest_path("map_custom")).arg(humidity).arg("-o").arg(&output);
    let ran = Ran::of(command.output().expect("it runs"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = Ran::of(tidegate().args(["inspect", "--json"]).arg(&output).output().expect("it runs"));
    let shown: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(shown["fused"].as_array().expect("a list").len(), 2, "{shown}");
}

#[test]
fn a_provider_that_does_not_fit_is_refused_where_it_is_named() {
    let site = site();
    for (provider, said) in [
        ("map-custom:1.0.0", "the map imports `map:custom/custom`, and the provider exports"),
        ("nobody:1.0.0", "nobody"),
    ] {
        provide(&site, provider);
        let ran = Ran::of(tidegate().arg("check").arg(site.dir()).output().expect("it runs"));
        assert_eq!(ran.code, 1, "{provider}");
        assert!(ran.stderr.contains(said), "{provider}: {}", ran.stderr);
        assert!(ran.stderr.contains("tenants/a/dataflows/flow.yaml:3:"), "{provider}: {}", ran.stderr);
    }
    // Nobody would give what the map imports.
    site.write(
        "tenants/a/dataflows/flow.yaml",
        &chain::dataflow("flow", "edge", ("in", "in"), ("out", "out")),
    );
    let ran = Ran::of(tidegate().arg("check").arg(site.dir()).output().expect("it runs"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("map:custom/custom"), "{}", ran.stderr);
}

#[test]
fn a_hostile_provider_loses_its_own_messages_only() {
    let site = site();
    provide(&site, "hostile:1.0.0");
    let host = site.up();
    let messages = [json!("one"), json!("trap"), json!("two"), json!("spin"), json!("three")];
    give(&site, &messages);
    assert_eq!(heard(&site, 3), [json!("one"), json!("two"), json!("three")]);
    eventually("two are given up", || site.counter("a", "dead") == 2);
    let listed = site.run(&["dead-letters", "list", "--json"]);
    let records: Vec<Value> =
        listed.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(records.iter().all(|record| record["operation"] == OPERATION), "{records:?}");
    host.stop();
}

/// Where `tidegate compose` is to write.
pub fn compose(map: &str, provider: &str, output: &PathBuf) -> Ran {
    let mut command = tidegate();
    command.arg("compose").args([guest_path(map), guest_path(provider)]).arg("-o").arg(output);
    Ran::of(command.output().expect("it runs"))
}

#[test]
fn two_files_become_one_that_inspect_takes_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("fused.wasm");
    // Nothing is written where they do not fit.
    for (map, provider) in [("map_custom", "map_custom"), ("temperature", "dew_point")] {
        let ran = compose(map, provider, &output);
        assert_eq!(ran.code, 1, "{map} {provider}");
        assert!(ran.stderr.contains(map), "{}", ran.stderr);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
    let ran = compose("map_custom", "dew_point", &output);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut inspect = tidegate();
    inspect.args(["inspect", "--json"]).arg(&output);
    let ran = Ran::of(inspect.output().expect("it runs"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown: Value = serde_json::from_str(&ran.stdout).expect("one document");
    let names: Vec<_> = shown["fused"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["dew_point", "map_custom"]);
    // Deployed like any other.
    let site = site();
    fs::copy(&output, site.dir().join("tenants/a/artifacts/map-custom/1.0.0.wasm")).expect("copied");
    site.write(
        "tenants/a/dataflows/flow.yaml",
        &chain::dataflow("flow", "edge", ("in", "in"), ("out", "out")),
    );
    let host = site.up();
    give(&site, &[json!({ "temperature": 20.0, "humidity": 100.0 })]);
    let expected = json!({ "temperature": 20.0, "humidity": 100.0, "dewPoint": 20.0, "condensing": true });
    assert_eq!(heard(&site, 1), [expected]);
    host.stop();
}
