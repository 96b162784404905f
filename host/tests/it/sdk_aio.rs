//! Operators as they are written for Azure IoT Operations, built with the SDK that
//! stands in for AIO's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::process::{output, tidegate};

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
        serde_json::json!({"boiler": "b1", "pressure": 6.0, "nearness": 0.5}),
        serde_json::json!({"boiler": "b3", "pressure": 9, "nearness": 0.75}),
    ];
    assert_eq!(payloads, expected);
}
