//! Guests in other languages than Rust, as `cargo xtask languages` builds them: each
//! operator by itself, and all of them in one graph on real data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tidegate_benches::rig::guest_path;

use crate::process::{Output, output, tidegate};

/// A component that was built from `tenants/LANGUAGE/NAME.*`. `None` only where `cargo
/// xtask test` has said that the language cannot be had.
pub fn guest(language: &str, name: &str) -> Option<PathBuf> {
    let missing = std::env::var("TIDEGATE_WITHOUT_LANGUAGES").unwrap_or_default();
    if missing.split(',').any(|it| it == language) {
        eprintln!("SKIPPED: guests in {language}");
        return None;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenants/target");
    let path = target.join(language).join(name).with_extension("wasm");
    assert!(path.is_file(), "{} is not built: run `cargo xtask languages`", path.display());
    Some(path)
}

/// A folder of artifacts, and `policies/python.yaml` with room for all operators at once.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new(artifacts: &[(&str, PathBuf)]) -> Self {
        let bench = Bench(tempfile::tempdir().expect("a folder"));
        for (name, component) in artifacts {
            let place = bench.path(&format!("artifacts/{name}/1.0.0.wasm"));
            fs::create_dir_all(place.parent().expect("below the folder")).expect("a folder");
            fs::copy(component, place).expect("it is built");
        }
        let policy = include_str!("../../../policies/python.yaml");
        let roomy = policy.replace("instances: 4", "instances: 12");
        assert_ne!(roomy, policy);
        fs::write(bench.path("policy.yaml"), roomy).expect("a file");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a graph over lines, under `large` or with more room.
    fn run(&self, graph: &Path, policy: &Path, set: &[&str]) -> (Output, Vec<Value>) {
        // A run appends to what is there.
        let _ = fs::remove_file(self.path("results"));
        let mut run = tidegate();
        run.arg("run").arg(graph).arg("--policy").arg(policy);
        run.arg("--artifacts").arg(self.path("artifacts"));
        run.arg("--input").arg(self.path("given")).arg("--output").arg(self.path("results"));
        for setting in set {
            run.args(["--set", setting]);
        }
        let run = output(&mut run);
        let results = fs::read_to_string(self.path("results")).unwrap_or_default();
        let payload = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["payload"].clone();
        let results = results.lines().map(payload).collect();
        (run, results)
    }

    /// What one operator of a module makes of payloads; what it says is on standard error.
    fn operator(
        &self,
        (kind, module): (&str, &str),
        parameters: &[(&str, &str)],
        given: &[Value],
    ) -> (Output, Vec<Value>) {
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(key, value)| format!("{key}: {{ name: {key}, default: '{value}' }}"))
            .collect();
        let to = match kind {
            "branch" => {
                "  - { from: { name: it, arm: \"True\" }, to: { name: out } }\n  \
                 - { from: { name: it, arm: \"False\" }, to: { name: no } }\n"
            }
            _ => "  - { from: { name: it }, to: { name: out } }\n",
        };
        let no = if kind == "branch" { "  - { operationType: sink, name: no }\n" } else { "" };
        let text = format!(
            "metadata: {{ $schema: \"https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json\", name: g, version: \"1\" }}\n\
             moduleRequirements: {{ apiVersion: \"1.1.0\", runtimeVersion: \"1.1.0\" }}\n\
             moduleConfigurations:\n  - {{ name: it, parameters: {{ {} }} }}\n\
             operations:\n  - {{ operationType: source, name: in }}\n  \
             - {{ operationType: {kind}, name: it, module: \"{module}:1.0.0\" }}\n  \
             - {{ operationType: sink, name: out }}\n{no}\
             connections:\n  - {{ from: {{ name: in }}, to: {{ name: it }} }}\n{to}",
            parameters.join(", "),
        );
        fs::write(self.path("graph.yaml"), text).expect("a file");
        let lines: String =
            given.iter().map(|payload| json!({ "payload": payload }).to_string() + "\n").collect();
        fs::write(self.path("given"), lines).expect("a file");
        self.run(&self.path("graph.yaml"), Path::new("python"), &[])
    }
}

/// The same, with every number as what it is worth: 2 and 2.0 are one.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        value => value.clone(),
    }
}

#[test]
fn operators_in_five_languages_make_one_graph_on_real_data() {
    let guests = ["python", "javascript"].map(|language| guest(language, "operators"));
    let [Some(python), Some(javascript)] = guests else { return };
    let (Some(c), Some(go)) = (guest("c", "near"), guest("go", "geohash")) else { return };
    let bench = Bench::new(&[
        ("python", python),
        ("javascript", javascript),
        ("c", c),
        ("go", go),
        ("rust-filter", guest_path("json_filter")),
        ("rust-map", guest_path("json_enrich")),
    ]);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut independent = Command::new("python3");
    independent.arg(tests.join("it/quakes.py")).arg(tests.join("../../tenants/demo/data/earthquakes.jsonl"));
    independent.args([bench.path("given"), bench.path("expected")]);
    output(&mut independent).expect_success();
    let expected = fs::read_to_string(bench.path("expected")).expect("it was written");
    let (mut events, mut days) = (Vec::new(), Vec::new());
    for line in expected.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        match line.get("event") {
            Some(event) => events.push(plain(event)),
            None => days.push(plain(&line["day"])),
        }
    }
    let (run, results) = bench.run(
        &tests.join("fixtures/five-languages.yaml"),
        &bench.path("policy.yaml"),
        &["magnitude=2.5", "kinds=ml, mb, mww", "latitude=21.31", "longitude=-157.86", "kilometres=7000"],
    );
    run.expect_success();
    assert!(run.stderr.contains("errors 0, dead 0"), "{}", run.stderr);
    let results: Vec<Value> = results.iter().map(plain).collect();
    let (of_days, of_events): (Vec<_>, Vec<_>) =
        results.into_iter().partition(|it| it.get("count").is_some());
    assert!(events.len() > 100 && days.len() > 6, "{} events in {} days", events.len(), days.len());
    for (index, (event, expected)) in of_events.iter().zip(&events).enumerate() {
        assert_eq!(event, expected, "event {index}");
    }
    assert_eq!((of_events.len(), of_days), (events.len(), days));
}

#[test]
fn a_python_operator_of_every_kind_says_what_it_will_not_take() {
    let Some(python) = guest("python", "operators") else { return };
    let bench = Bench::new(&[("python", python)]);
    let (run, results) = bench.operator(
        ("map", "python"),
        &[],
        &[
            json!({ "time": 0, "tz": 90 }),
            json!({ "time": "noon", "tz": 0 }),
            json!([1]),
            json!({ "time": 1e30, "tz": 0 }),
        ],
    );
    assert_eq!(
        results,
        [json!({ "time": 0, "tz": 90, "local": "1970-01-01T01:30:00+01:30", "weekday": "Thursday" })]
    );
    assert!(run.stderr.contains("in 4, out 1, filtered 0, errors 3, dead 0"), "{}", run.stderr);
    assert!(run.stderr.contains("`time` is not what it should be"), "{}", run.stderr);

    let (run, _) = bench.operator(("filter", "python"), &[("field", "f"), ("pattern", "(")], &[]);
    assert_ne!(run.code, Some(0));
    assert!(run.stderr.contains("init"), "{}", run.stderr);
    let given = ["abc", "bcd"].map(|text| json!({ "f": text }));
    let (_, results) = bench.operator(("filter", "python"), &[("field", "f"), ("pattern", "^b.d$")], &given);
    assert_eq!(results, [json!({ "f": "bcd" })]);

    let given = [json!({ "local": "2018-02-01T23:00:00+01:00" }), json!({ "local": "never" })];
    let (run, results) = bench.operator(("branch", "python"), &[("dusk", "20")], &given);
    assert_eq!(results, given[..1]);
    assert!(run.stderr.contains("errors 1, dead 0"), "{}", run.stderr);

    // Two in one day: their window is the rest of it, at whose end it is given.
    let given = [json!({ "mag": 3 }), json!({ "mag": 2.5 }), json!({ "mag": "much" })];
    let (run, results) = bench.operator(("accumulate", "python"), &[("field", "mag")], &given);
    assert_eq!(results.iter().filter(|it| it["count"] == 1).count(), 2, "{results:?}");
    assert!(run.stderr.contains("errors 1"), "{}", run.stderr);
    let (_, results) = bench.operator(("delay", "python"), &[("offset", "60")], &given);
    assert_eq!(results, given);
}

#[test]
fn operators_in_javascript_c_and_go_say_what_they_will_not_take() {
    let Some(javascript) = guest("javascript", "operators") else { return };
    let (Some(c), Some(go)) = (guest("c", "near"), guest("go", "geohash")) else { return };
    let bench = Bench::new(&[("javascript", javascript), ("c", c), ("go", go)]);
    let oslo = json!({ "latitude": 59.91, "longitude": 10.75 });
    let quito = json!({ "at": { "latitude": 1 }, "name": "\"}", "longitude": -78.5, "latitude": -0.22 });
    // The example by which geohashes are explained.
    let textbook = json!({ "latitude": 57.64911, "longitude": 10.40744 });
    let bad = json!({ "latitude": "north", "longitude": 1 });

    let near = [("latitude", "52.5"), ("longitude", "13.4"), ("kilometres", "900")];
    let (run, results) = bench.operator(("filter", "c"), &near, &[oslo.clone(), quito, bad.clone()]);
    assert_eq!(results, [oslo]);
    assert!(run.stderr.contains("filtered 1, errors 1, dead 0"), "{}", run.stderr);
    let (run, _) = bench.operator(("filter", "c"), &near[..2], &[]);
    assert_ne!(run.code, Some(0), "a parameter is missing");

    let (run, results) = bench.operator(("map", "go"), &[("length", "11")], &[textbook, bad]);
    assert_eq!(results[0]["geohash"], "u4pruydqqvj", "{results:?}");
    assert!(run.stderr.contains("out 1, filtered 0, errors 1, dead 0"), "{}", run.stderr);
    let (run, _) = bench.operator(("map", "go"), &[("length", "13")], &[]);
    assert_ne!(run.code, Some(0), "no geohash is as long");
    assert!(run.stderr.contains("`length` is from 1 to 12"), "{}", run.stderr);

    let (run, results) = bench.operator(
        ("filter", "javascript"),
        &[("field", "k"), ("values", "a, 2")],
        &[json!({ "k": "a" }), json!({ "k": 2 }), json!({ "k": "b" }), json!({})],
    );
    assert_eq!(results, [json!({ "k": "a" }), json!({ "k": 2 })]);
    assert!(run.stderr.contains("filtered 1, errors 1, dead 0"), "{}", run.stderr);
    let (run, _) = bench.operator(("map", "javascript"), &[], &[json!({ "properties": {} })]);
    assert!(run.stderr.contains("no coordinates"), "{}", run.stderr);
}
