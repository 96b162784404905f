//! Components and graphs as teams made them for AIO's preview, beside those of today.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tidegate_benches::rig::guest_path;

use crate::process::{Output, output, tidegate};

/// All five kinds of operators in the preview's contract.
const COMPONENT: &str = "preview_temperature";

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A graph in a folder with components: what is named, and of which guest it is.
struct Graph(tempfile::TempDir);

impl Graph {
    fn new(graph: &str, components: &[(&str, &str)]) -> Self {
        let folder = Graph(tempfile::tempdir().expect("a folder"));
        fs::write(folder.path("graph.yaml"), graph).expect("a file");
        for (name, guest) in components {
            fs::copy(guest_path(guest), folder.path(&format!("{name}.wasm"))).expect("the guests are built");
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// How a run over these lines ended, and what came out.
    fn run(&self, lines: &[&str], more: &[&str]) -> (Output, Vec<Value>) {
        let [readings, results] = ["readings", "results"].map(|name| self.path(name));
        fs::write(&readings, lines.join("\n")).expect("a file");
        let mut run = tidegate();
        run.arg("run").arg(self.path("graph.yaml")).arg("--artifacts").arg(self.0.path());
        run.arg("--input").arg(&readings).arg("--output").arg(&results).args(more);
        let run = output(&mut run);
        let results = fs::read_to_string(&results).unwrap_or_default();
        let payload = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["payload"].clone();
        (run, results.lines().map(payload).collect())
    }
}

/// One operator of each contract in a row: packed, AIO's, the preview's.
const MIXED: &str = r#"metadata: { $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: g, version: "1" }
moduleRequirements: { apiVersion: "1.1.0", runtimeVersion: "1.1.0" }
moduleConfigurations:
  - name: believed
    parameters: { temperature_lower_bound: { name: temperature_lower_bound } }
operations:
  - { operationType: source, name: in }
  - { operationType: map, name: same, module: "pass-through:1" }
  - { operationType: map, name: celsius, module: "preview:1" }
  - { operationType: filter, name: believed, module: "preview:1" }
  - { operationType: map, name: counted, module: "aio-metrics:1" }
  - { operationType: sink, name: out }
connections:
  - { from: { name: in }, to: { name: same } }
  - { from: { name: same }, to: { name: celsius } }
  - { from: { name: celsius }, to: { name: believed } }
  - { from: { name: believed }, to: { name: counted } }
  - { from: { name: counted }, to: { name: out } }
"#;

const COMPONENTS: &[(&str, &str)] =
    &[("pass_through", "pass_through"), ("preview", COMPONENT), ("aio_metrics", "aio_metrics")];

fn reading(value: f64, unit: &str) -> String {
    json!({ "temperature": { "value": value, "unit": unit } }).to_string()
}

#[test]
fn operators_of_every_contract_stand_in_one_graph_and_a_trap_takes_its_message_alone() {
    let graph = Graph::new(MIXED, COMPONENTS);
    // The contract knows no error: what is no reading ends the call.
    let lines = [reading(212.0, "F"), "{\"no\":\"reading\"}".into(), reading(-30.0, "F"), reading(7.0, "C")];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (run, results) = graph.run(&lines, &["--set", "temperature_lower_bound=-20"]);
    assert!(run.stderr.contains("in 4, out 2, filtered 1, errors 0, dead 1"), "{}", run.stderr);
    let values: Vec<_> = results.iter().map(|it| &it["temperature"]["value"]).collect();
    assert_eq!(values, [&json!(100.0), &json!(7.0)]);
}

/// As teams wrote it for the preview: without metadata, with a version of `hostlib`.
const GRAPH: &str = r#"moduleRequirements:
  apiVersion: "0.2.0"
  hostlibVersion: "0.2.0"
moduleConfigurations:
  - name: module-temperature/filter
    parameters:
      temperature_lower_bound: { name: temperature_lower_bound, description: least, required: true }
operations:
  - { operationType: source, name: temperature }
  - { operationType: branch, name: module-temperature/branch, module: "preview:1" }
  - { operationType: map, name: module-temperature/map, module: "preview:1" }
  - { operationType: filter, name: module-temperature/filter, module: "preview:1" }
  - { operationType: concatenate, name: concatenate }
  - { operationType: sink, name: sink }
connections:
  - { from: { name: temperature }, to: { name: module-temperature/branch } }
  - { from: { name: module-temperature/branch, arm: "True" }, to: { name: module-temperature/map } }
  - { from: { name: module-temperature/branch, arm: "False" }, to: { name: concatenate } }
  - { from: { name: module-temperature/map }, to: { name: module-temperature/filter } }
  - { from: { name: module-temperature/filter }, to: { name: concatenate } }
  - { from: { name: concatenate }, to: { name: sink } }
"#;

#[test]
fn a_graph_of_the_preview_runs_as_it_is() {
    let graph = Graph::new(GRAPH, COMPONENTS);
    let lines = [reading(212.0, "F"), r#"{"humidity":{"value":50}}"#.into(), reading(-30.0, "F")];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (run, results) = graph.run(&lines, &["--set", "temperature_lower_bound=-20"]);
    assert!(run.stderr.contains("in 3, out 2, filtered 1, errors 0, dead 0"), "{}", run.stderr);
    assert_eq!(results[0]["temperature"]["value"], json!(100.0));
    assert_eq!(results[1], json!({ "humidity": { "value": 50 } }));
    let (refused, _) = graph.run(&lines, &[]);
    assert_eq!(refused.code, Some(1));
    let words = format!(
        "`module-temperature/filter` of `{}` needs the parameter `temperature_lower_bound`",
        graph.path("graph.yaml").display()
    );
    assert!(refused.stderr.contains(&words), "{}", refused.stderr);
}

#[test]
fn what_init_refuses_is_a_failed_deploy() {
    let graph = Graph::new(MIXED, COMPONENTS);
    let (run, results) = graph.run(&["1"], &["--set", "temperature_lower_bound=cold"]);
    assert_eq!((run.code, results), (Some(1), vec![]), "{run:?}");
    assert!(run.stderr.contains("believed") && run.stderr.contains("it returned false"), "{}", run.stderr);
}

#[test]
fn aios_saved_tests_pass_with_a_component_of_the_preview_in_the_places_of_todays() {
    // The complex graph has all five kinds, and windows that branches meet in again.
    let explore = manifest().join("tests/aio/explore");
    let artifacts = tempfile::tempdir().expect("a folder");
    for name in ["humidity", "collection", "enrichment", "format", "snapshot", "temperature", "window"] {
        let component = match name {
            "temperature" | "window" => guest_path(COMPONENT),
            name => guest_path(name),
        };
        fs::copy(component, artifacts.path().join(format!("{name}.wasm"))).expect("the guests are built");
    }
    for (test, outputs) in [("t01-simple-temp-conversion", 1), ("t02-complex-temp-pipeline", 1)] {
        let mut command = tidegate();
        command.arg("test").arg(explore.join("tests").join(test)).arg("--artifacts").arg(artifacts.path());
        let run = output(command.arg("--json"));
        run.expect_success();
        let document: Value = serde_json::from_str(&run.stdout).expect("one document");
        assert_eq!((&document["passed"], &document["failed"]), (&1.into(), &0.into()), "{document:#}");
        assert_eq!(document["tests"][0]["outputs"], outputs, "{document:#}");
    }
}

#[test]
fn inspect_names_the_contract_of_each_operator() {
    let shown = output(tidegate().arg("inspect").arg(guest_path(COMPONENT)));
    shown.expect_success();
    for kind in ["map", "filter", "branch", "accumulate", "delay"] {
        let line = format!("{kind:<10} tinykube-graph:processor@1.0.0, a message a call");
        assert!(shown.stdout.contains(&line), "{line}: {}", shown.stdout);
    }
    assert!(shown.stdout.contains("tinykube-graph:processor/logger@1.0.0"), "{}", shown.stdout);
    assert!(shown.stdout.contains("fits       tidegate:policy/standard@0.1.0"), "{}", shown.stdout);
}
