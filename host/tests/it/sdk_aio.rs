//! Operators as they are written for Azure IoT Operations, built with the SDK that
//! stands in for AIO's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::process::{output, tidegate};

/// What a component imports.
fn imports(component: &Path) -> Vec<String> {
    let shown = output(tidegate().args(["inspect", "--json"]).arg(component));
    shown.expect_success();
    let shown: Value = serde_json::from_str(&shown.stdout).expect("one JSON document");
    let imports = shown["imports"].as_array().expect("a list");
    imports.iter().map(|it| it["name"].as_str().expect("a name").to_owned()).collect()
}

/// Builds the sample, whose manifest names AIO's registry, from what it and the
/// repository hold: nothing may be fetched.
fn boiler() -> PathBuf {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenants/samples/boiler");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--locked", "--release", "--target", "wasm32-wasip2"]);
    // It is a team's own workspace: nothing of this one's build holds for it.
    for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    output(cargo.current_dir(&sample)).expect_success();
    sample.join("target/wasm32-wasip2/release/boiler.wasm")
}

#[test]
fn a_crate_that_names_aios_registry_builds_as_it_is_and_runs() {
    let component = boiler();
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(dir.path().join("boiler")).expect("a folder");
    fs::copy(component, dir.path().join("boiler/1.0.0.wasm")).expect("it was built");
    let [readings, results] = ["readings", "results"].map(|name| dir.path().join(name));
    fs::write(
        &readings,
        concat!(
            "{\"boiler\":\"b1\",\"pressure\":6.0}\n",
            "{\"boiler\":\"b2\",\"pressure\":6.0}\n",
            "{\"boiler\":\"b1\"}\n",
            "{\"pressure\":6.0}\n",
            "{\"boiler\":\"b3\",\"pressure\":9}\n",
        ),
    )
    .expect("it can be written");
    let mut run = tidegate();
    run.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenants/samples/boiler/graph.yaml"));
    run.arg("--artifacts").arg(dir.path()).arg("--input").arg(&readings).arg("--output").arg(&results);
    let run = output(run.args(["--set", "boilers=b1, b3", "--set", "limit=12"]));
    assert!(run.stderr.contains("in 5, out 2, filtered 1, errors 2, dead 0"), "{}", run.stderr);
    let results = fs::read_to_string(&results).expect("it was written");
    let payloads: Vec<Value> = results
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["payload"].clone())
        .collect();
    let expected = [
        json!({"boiler": "b1", "pressure": 6.0, "nearness": 0.5}),
        json!({"boiler": "b3", "pressure": 9, "nearness": 0.75}),
    ];
    assert_eq!(payloads, expected);
}

#[test]
fn it_imports_what_aios_host_has_and_what_rusts_standard_library_brings() {
    let world =
        ["hybrid-logical-clock", "state-store", "logger", "metrics", "command-invoker", "schema-registry"];
    // What these interfaces are about.
    let types = ["types", "state-store-types", "rpc-types", "schema-types"];
    let base = ["wasi:io/error@", "wasi:io/poll@", "wasi:io/streams@", "wasi:cli/"];
    let imports = imports(&boiler());
    for import in &imports {
        let ours = import.strip_prefix("wasm-graph:processor/").and_then(|it| it.strip_suffix("@1.1.0"));
        match ours {
            Some(name) => assert!(world.contains(&name) || types.contains(&name), "{import}"),
            None => assert!(base.iter().any(|it| import.starts_with(it)), "{import}"),
        }
    }
    assert!(imports.iter().any(|it| it == "wasm-graph:processor/metrics@1.1.0"), "{imports:?}");
    assert!(
        !imports.iter().any(|it| it.contains("state-store")),
        "what it does not use is gone: {imports:?}"
    );
}

/// What a graph makes of payloads, with the operators that stand for AIO's samples.
fn run(graph: &str, settings: &[&str], input: &[&str]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("a folder");
    let [readings, results] = ["readings", "results"].map(|name| dir.path().join(name));
    fs::write(&readings, input.join("\n")).expect("it can be written");
    let mut run = tidegate();
    run.arg("run").arg(root.join("tests/fixtures/aio").join(graph));
    run.arg("--artifacts").arg(root.join("../tenants/target/aio"));
    run.arg("--input").arg(&readings).arg("--output").arg(&results);
    for setting in settings {
        run.args(["--set", setting]);
    }
    output(&mut run).expect_success();
    let results = fs::read_to_string(&results).expect("it was written");
    results
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["payload"].clone())
        .collect()
}

#[test]
fn aios_sample_graphs_without_windows_run() {
    let celsius = json!({"temperature": {
        "value": 200.0, "count": 0, "max": 0.0, "min": 0.0, "average": 0.0, "last": 0.0,
        "unit": "C", "overtemp": false,
    }});
    let fahrenheit = r#"{"temperature":{"value":392,"unit":"F"}}"#;
    assert_eq!(run("explore-graph-simple.yaml", &[], &[fahrenheit, "7"]), [celsius]);
    assert_eq!(
        run("explore-graph-opc-ua.yaml", &["copy_all=true"], &[r#"{"b":{"Value":2},"a":{"Value":1},"c":3}"#]),
        [json!([{"tag": "a", "value": 1, "c": 3}, {"tag": "b", "value": 2, "c": 3}])],
    );
    let settings = ["metricName=m", "metricValuePath=v.0", "metricType=i64_gauge"];
    let metric = |attributes: Value| {
        let mut metric = json!({"name": "m", "type": "i64_gauge", "value": -1});
        if !attributes.is_null() {
            metric["attributes"] = attributes;
        }
        json!({"metrics": [metric], "logs": []})
    };
    let payload = r#"{"v":[-1]}"#;
    assert_eq!(run("explore-graph-otel-transform.yaml", &settings, &[payload]), [metric(Value::Null)]);
    // The state store of a run is empty: no attribute is found.
    let settings = [&settings[..], &["enrichKeys=a,b"]].concat();
    assert_eq!(run("explore-graph-otel.yaml", &settings, &[payload]), [metric(json!([]))]);
    let settings = ["temperature_lower_bound=0", "temperature_upper_bound=10"];
    let inside = r#"{"temperature":{"value":10,"unit":"C"}}"#;
    let outside = r#"{"temperature":{"value":10.5,"unit":"C"}}"#;
    assert_eq!(
        run("edge-extensions-graph-simple.yaml", &settings, &[inside, outside]),
        [serde_json::from_str::<Value>(inside).expect("JSON")],
    );
}

#[test]
fn enrichment_writes_its_threshold_once_and_marks_by_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let graph = dir.path().join("graph.yaml");
    // What the first operator wrote, the second one reads.
    let definition = r#"
metadata: { $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.0.0.json", name: enrich, version: "1" }
moduleRequirements: { apiVersion: "1.1.0", runtimeVersion: "1.1.0" }
moduleConfigurations:
  - name: read
    parameters: { enrichKeys: { name: enrichKeys, default: "overtemp-threshold,overtemp-threshold-lock" } }
operations:
  - { operationType: source, name: source }
  - { operationType: map, name: mark, module: "enrichment:1.0.0" }
  - { operationType: map, name: read, module: "otel-enrich:1.0.0" }
  - { operationType: sink, name: sink }
connections:
  - { from: { name: source }, to: { name: mark } }
  - { from: { name: mark }, to: { name: read } }
  - { from: { name: read }, to: { name: sink } }
"#;
    fs::write(&graph, definition).expect("it can be written");
    let temperature = |max: f64, overtemp: bool| {
        json!({"temperature": [{
            "count": 1, "max": max, "min": max, "average": max, "last": max, "unit": "C", "overtemp": overtemp,
        }]})
    };
    let input = [temperature(500.5, false).to_string(), temperature(500.0, false).to_string()];
    let input: Vec<&str> = input.iter().map(String::as_str).collect();
    let with_threshold = |mut collection: Value| {
        // The lock is given back.
        collection["attributes"] = json!({"overtemp-threshold": 500});
        collection
    };
    let results = run(graph.to_str().expect("UTF-8"), &[], &input);
    assert_eq!(
        results,
        [with_threshold(temperature(500.5, true)), with_threshold(temperature(500.0, false))]
    );
}
