//! `tidegate run` on a graph that people use, against a program that knows nothing of it.

use std::{fs, path::Path, process::Command};

use tidegate_benches::rig::guest_path;

use crate::process::{output, tidegate};

/// A line without its last field, the time at which the host saw the message.
fn without_time(line: &str) -> String {
    let (rest, time) = line.rsplit_once(r#","timestamp":""#).expect("every message has a time");
    assert!(time.ends_with("Z\"}"), "{line}");
    format!("{rest}}}")
}

#[test]
fn the_weather_graph_gives_line_by_line_what_python_computes_from_the_same_file() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no python3");
        return;
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let demo = manifest.join("../tenants/demo");
    let dir = tempfile::tempdir().expect("a folder");
    let artifacts = dir.path().join("artifacts");
    for (name, guest) in
        [("unit-convert", "unit_convert"), ("threshold", "threshold"), ("json-enrich", "json_enrich")]
    {
        fs::create_dir_all(artifacts.join(name)).expect("a folder");
        fs::copy(guest_path(guest), artifacts.join(name).join("1.0.0.wasm")).expect("the guests are built");
    }
    let [readings, results, given] = ["readings", "results", "given"].map(|name| dir.path().join(name));
    let mut python = Command::new("python3");
    python.arg(manifest.join("tests/it/weather.py"));
    python.arg(demo.join("data/seattle-weather-hourly-normals.csv")).args([&readings, &results]);
    output(&mut python).expect_success();
    let mut run = tidegate();
    run.arg("run").arg(demo.join("tenants/weather/artifacts/frost/1.0.0.yaml"));
    run.arg("--artifacts").arg(&artifacts).arg("--input").arg(&readings).arg("--output").arg(&given);
    for set in ["threshold=5", "mild_topic=weather/out/mild", "cold_topic=weather/out/cold"] {
        run.args(["--set", set]);
    }
    let run = output(&mut run);
    run.expect_success();

    let read = |path| fs::read_to_string(path).expect("it was written");
    let (expected, given) = (read(&results), read(&given));
    let mut lines = 0;
    for (expected, given) in expected.lines().zip(given.lines()) {
        lines += 1;
        assert_eq!(without_time(given), expected, "line {lines}");
    }
    assert_eq!((lines, given.lines().count(), expected.lines().count()), (8_759, 8_759, 8_759));
    assert!(run.stderr.contains("in 8759, out 8759, filtered 0, errors 0, dead 0"), "{}", run.stderr);
}
