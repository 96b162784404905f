//! `tidegate test`: tests in AIO's form, through the command, against operators of
//! this repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;
use tidegate_benches::rig::guest_path;

use crate::process::{Output, output, tidegate};

/// A folder with one graph and its tests.
struct Tests(TempDir);

/// Fahrenheit to Celsius, in AIO's contract.
const CONVERT: &str = r#"metadata: { $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: g, version: "1" }
moduleRequirements: { apiVersion: "1.1.0", runtimeVersion: "1.1.0" }
moduleConfigurations:
  - name: convert
    parameters:
      field: { name: field, default: t }
      from: { name: from, default: F }
      to: { name: to, default: C }
operations:
  - { operationType: source, name: in }
  - { operationType: map, name: convert, module: "registry/aio-unit-convert:1.0.0" }
  - { operationType: sink, name: out }
connections:
  - { from: { name: in }, to: { name: convert } }
  - { from: { name: convert }, to: { name: out } }
"#;

/// What a field was over windows of ten minutes.
const WINDOWS: &str = r#"metadata: { $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: g, version: "1" }
moduleRequirements: { apiVersion: "1.1.0", runtimeVersion: "1.1.0" }
moduleConfigurations:
  - { name: align, parameters: { seconds: { name: seconds, default: "600" } } }
  - { name: sum, parameters: { field: { name: field, default: t } } }
operations:
  - { operationType: source, name: in }
  - { operationType: delay, name: align, module: align }
  - { operationType: accumulate, name: sum, module: aggregate }
  - { operationType: sink, name: out }
connections:
  - { from: { name: in }, to: { name: align } }
  - { from: { name: align }, to: { name: sum } }
  - { from: { name: sum }, to: { name: out } }
"#;

impl Tests {
    fn new(graph: &str, inputs: &[&str]) -> Self {
        let tests = Tests(tempfile::tempdir().expect("a folder"));
        tests.write("graph.yaml", graph);
        for (index, input) in inputs.iter().enumerate() {
            tests.write(&format!("input/{index}.json"), input);
        }
        tests
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// Adds a test with further keys.
    fn test(&self, name: &str, expected: &str, keys: &str) {
        let text =
            format!("name: {name}\ngraph: ../graph.yaml\ninput: ../input\nexpected: {name}.json\n{keys}");
        self.write(&format!("tests/{name}.test.yaml"), &text);
        self.write(&format!("tests/{name}.json"), expected);
    }

    fn run(&self, more: &[&str]) -> Output {
        run(&self.path().join("tests"), more)
    }
}

/// Where `cargo xtask guests` leaves components.
fn guests() -> PathBuf {
    guest_path("any").parent().expect("a folder").to_owned()
}

fn run(path: &Path, more: &[&str]) -> Output {
    output(tidegate().arg("test").arg(path).arg("--artifacts").arg(guests()).args(more))
}

/// The document of `--json`.
fn document(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn a_test_passes_when_the_last_message_or_all_of_them_are_as_expected() {
    let tests = Tests::new(CONVERT, &[r#"{"t":212,"unit":"?"}"#, r#"{"t":32,"unit":"?"}"#]);
    tests.test("last", r#"{"topic":"sensors","payload":"{\"unit\":\"?\",\"t\":0}"}"#, "");
    tests.test("all", r#"[{"payload":{"t":100}},{"payload":{"t":0.0}}]"#, "ignores: [payload.unit]\n");
    tests.test("part", r#"{"payload":{"t":0,"other":1},"topic":"x"}"#, "select: [payload.t]\n");
    tests.test("elsewhere", r#"{"topic":"a/b"}"#, "topic: a/b\n");
    tests.test("kelvin", r#"{"payload":{"t":273.15,"unit":"?"}}"#, "configuration: { to: K }\n");
    let passed = tests.run(&["--json"]);
    passed.expect_success();
    let document = document(&passed);
    assert_eq!((&document["passed"], &document["failed"]), (&5.into(), &0.into()), "{document:#}");
    let names: Vec<_> = document["tests"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["all", "elsewhere", "kelvin", "last", "part"]);
    assert!(document["tests"].as_array().expect("a list").iter().all(|it| it["outputs"] == 2));
}

#[test]
fn a_broken_expectation_is_shown_by_path_with_what_was_expected_and_what_came() {
    let tests = Tests::new(CONVERT, &[r#"{"t":212,"list":[1,2]}"#]);
    let expected = r#"[{"topic":"other","payload":{"t":101,"list":[1,3],"more":true}},{"payload":"x"}]"#;
    tests.test("wrong", expected, "");
    let failed = tests.run(&[]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for line in [
        "failed  wrong",
        "outputs: expected \"2 messages\", got \"1 messages\"",
        "output 1, payload.list[1]: expected 3, got 2",
        "output 1, payload.more: expected true, got nothing",
        "output 1, payload.t: expected 101, got 100.0",
        "output 1, topic: expected \"other\", got \"sensors\"",
        "output 2: expected {\"payload\":\"x\"}, got nothing",
        "0 passed, 1 failed, 0 broken",
    ] {
        assert!(
            failed.stdout.lines().any(|it| it.trim_start().starts_with(line)),
            "{line}: {}",
            failed.stdout
        );
    }
    let document = document(&tests.run(&["--json"]));
    let differences = document["tests"][0]["differences"].as_array().expect("a list");
    let place = differences.iter().find(|it| it["path"] == "payload.list[1]").expect("it is there");
    assert_eq!((&place["output"], &place["expected"], &place["got"]), (&1.into(), &3.into(), &2.into()));
}

#[test]
fn a_message_that_an_operator_refuses_is_dropped_and_named_in_a_note() {
    let tests = Tests::new(CONVERT, &[r#"{"no":"t"}"#]);
    tests.test("refused", "[]", "");
    let passed = tests.run(&["--json"]);
    passed.expect_success();
    let notes = document(&passed)["tests"][0]["notes"].to_string();
    assert!(notes.contains("`convert` dropped a message"), "{notes}");
}

#[test]
fn a_schema_before_a_window_keeps_out_what_does_not_fit_and_holds_up_nothing() {
    let schema = "schemas:\n  - { name: reading, format: json, schema: '{ \"required\": [ \"t\" ] }' }\n";
    let graph = WINDOWS.replace("name: align }, to", "name: align, schemaName: reading }, to") + schema;
    assert!(graph.contains("schemaName"));
    let tests = Tests::new(&graph, &[r#"{"t":1}"#, r#"{"u":2}"#, r#"{"t":6}"#]);
    let expected = r#"[{"payload":{"count":2,"sum":7}}]"#;
    tests.test("window", expected, "timeout: 3600000\nselect: [payload.count, payload.sum]\n");
    let run = tests.run(&["--json"]);
    let document = document(&run);
    let test = &document["tests"][0];
    assert_eq!((&test["outputs"], &test["differences"]), (&1.into(), &serde_json::json!([])), "{test:#}");
    let fault = "`sum` lost a message: schema `reading`: \"t\" is a required property";
    assert_eq!(test["faults"], serde_json::json!([fault]));
}

#[test]
fn a_window_of_ten_minutes_passes_in_virtual_time_and_a_short_timeout_comes_before_it() {
    let tests = Tests::new(WINDOWS, &[r#"{"t":1}"#, r#"{"t":2}"#, r#"{"t":6}"#]);
    let expected = r#"[{"payload":{"count":3,"sum":9,"min":1,"max":6,"mean":3}}]"#;
    tests.test("long", expected, "timeout: 3600000\n");
    tests.test("short", expected, "timeout: 500000\n");
    let run = tests.run(&["--json"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let document = document(&run);
    let [long, short] = [0, 1].map(|index| &document["tests"][index]);
    assert_eq!(long["status"], "passed", "{long:#}");
    let at = long["lastOutputMs"].as_u64().expect("a number");
    assert!((598_500..610_000).contains(&at), "the window ends after {at} ms");
    assert_eq!(short["status"], "failed", "{short:#}");
    assert_eq!(short["differences"][0]["got"], "0 messages", "{short:#}");
    // An hour and more of a graph's time: a runner on a real clock would still wait.
    assert!(document["tookMs"].as_f64().expect("a number") < 60_000.0, "{document:#}");
}

#[test]
fn junit_holds_every_test_with_its_kind_of_failure() {
    use quick_xml::{Reader, XmlVersion, events::Event};

    let tests = Tests::new(CONVERT, &[r#"{"t":212}"#]);
    tests.test("right", r#"{"payload":{"t":100}}"#, "");
    tests.test("wrong <&\"", r#"{"payload":{"t":1}}"#, "");
    tests.test("broken", r#"{"payload":{"t":1}}"#, "timeout: soon\n");
    let file = tests.path().join("junit.xml");
    let run = tests.run(&["--junit", file.to_str().expect("UTF-8")]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let xml = fs::read_to_string(&file).expect("it was written");
    let mut reader = Reader::from_str(&xml);
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{error}: {xml}")) {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => {
                let name = tag.name().as_ref().to_owned();
                let attributes = tag.attributes().map(|it| {
                    let it = it.expect("an attribute");
                    let value =
                        it.normalized_value(XmlVersion::Implicit1_0).expect("it is escaped").into_owned();
                    (it.key.as_ref().to_owned(), value)
                });
                found.push((name, attributes.collect::<Vec<_>>()));
            }
            _ => {}
        }
    }
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["testsuites", "testsuite", "testcase", "error", "testcase", "testcase", "failure"];
    assert_eq!(names, expected, "{xml}");
    let value = |index: usize, key: &str| {
        let (_, attributes) = &found[index];
        attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    assert_eq!([value(1, "tests"), value(1, "failures"), value(1, "errors")], ["3", "1", "1"]);
    assert_eq!(value(5, "name"), "wrong <&\"");
    assert_eq!(value(6, "message"), "output 1, payload.t: expected 1, got 100.0");
    assert_eq!(value(3, "message"), "`soon` is no timeout");
}

/// Further keys of a test, and what is said about it where.
const BROKEN: &[(&str, &str, &str)] = &[
    ("timeout: 0\n", "`0` is no timeout", "bad.test.yaml:5:10"),
    ("select: payload\n", "`select` must be a list", "bad.test.yaml:5:9"),
    ("ignores: [a, payload.]\n", "`payload.` is no path into a message", "bad.test.yaml:5:14"),
    ("topic: 'a/#'\n", "`a/#` is no topic for messages", "bad.test.yaml:5:8"),
    ("configuration: x\n", "`configuration` must be a mapping", "bad.test.yaml:5:16"),
];

#[test]
fn what_is_wrong_in_a_test_file_is_said_with_its_place() {
    let tests = Tests::new(CONVERT, &[r#"{"t":212}"#]);
    let mut wrong = Vec::new();
    let mut check = |what: &str, words: &str, place: &str| {
        let run = tests.run(&[]);
        let is_said = run.stdout.contains(&format!("error: {words}")) && run.stdout.contains(place);
        if run.code != Some(1) || !is_said {
            wrong.push(format!("{what}: {run:?}"));
        }
    };
    for (keys, words, place) in BROKEN {
        tests.test("bad", "[]", keys);
        check(keys, words, place);
    }
    tests.test("bad", "[{]", "");
    check("an expectation", "not JSON", "bad.json:1:3");
    tests.test("bad", r#"{"paylod":1}"#, "");
    check("an expectation", "a message has no `paylod`", "bad.json:1:1");
    for (key, words) in [("graph", "graph"), ("input", "input"), ("expected", "expectation")] {
        tests.test("bad", "[]", "");
        let path = tests.path().join("tests/bad.test.yaml");
        let text = fs::read_to_string(&path).expect("it was written");
        let line = text.lines().position(|line| line.starts_with(key)).expect("it is there") + 1;
        let column = key.len() + 3;
        let old = text.lines().nth(line - 1).expect("it is there").to_owned();
        fs::write(&path, text.replace(&old, &format!("{key}: nowhere"))).expect("a file");
        check(
            key,
            &format!("the test's {words} `nowhere` is not there"),
            &format!("bad.test.yaml:{line}:{column}"),
        );
        fs::write(&path, text.replace(&format!("{old}\n"), "")).expect("a file");
        check(key, &format!("the key `{key}` is missing"), "bad.test.yaml:1:1");
    }
    tests.test("bad", "[]", "");
    tests.write("graph.yaml", &CONVERT.replace("to: { name: out }", "to: { name: aut }"));
    check("a graph", "unknown operation `aut` in connection", "graph.yaml:15:44");
    tests.write("graph.yaml", &CONVERT.replace("default: F", "default: Q"));
    check("a configuration", "", "`init`");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_usage_exits_with_2() {
    let empty = tempfile::tempdir().expect("a folder");
    let nowhere = empty.path().join("nowhere");
    for arguments in [&[empty.path().as_os_str()][..], &[nowhere.as_os_str()], &[]] {
        let run = output(tidegate().arg("test").args(arguments));
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(!run.stderr.is_empty());
    }
}

/// AIO's own tests, and the least virtual time until their output, in ms: the second
/// has windows of ten seconds.
const SAVED: &[(&str, u64)] = &[
    ("t01-simple-temp-conversion", 0),
    ("t02-complex-temp-pipeline", 8_500),
    ("t04-opc-ua-basic-flatten", 0),
    ("t08-schema-valid", 0),
];

#[test]
fn aios_own_tests_pass_unchanged_with_our_operators() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Where `cargo xtask guests` lays out the artifacts of AIO's graphs.
    let artifacts = manifest.join("../tenants/target/aio");
    let explore = manifest.join("tests/aio/explore");
    let run = output(tidegate().arg("test").arg(explore).arg("--artifacts").arg(artifacts).arg("--json"));
    run.expect_success();
    let document = document(&run);
    let reports = document["tests"].as_array().expect("a list");
    assert_eq!(reports.len(), SAVED.len());
    for ((name, least_ms), report) in SAVED.iter().zip(reports) {
        assert!(report["file"].as_str().is_some_and(|file| file.contains(name)), "{report:#}");
        assert_eq!((&report["status"], &report["outputs"]), (&"passed".into(), &1.into()), "{report:#}");
        let at = report["lastOutputMs"].as_u64().expect("a number");
        assert!((*least_ms..least_ms + 12_000).contains(&at), "{name} after {at} ms");
    }
}
