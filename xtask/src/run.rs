//! Running cargo, and the tests.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context, bail};

use crate::{guests, root, tools};

/// Runs cargo in `dir` with some variables set; an error if it fails.
pub fn cargo(
    dir: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    variables: &[(&str, &OsStr)],
) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(dir);
    // This run is itself under cargo, whose own settings must not reach another workspace.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_TARGET_DIR");
    command.envs(variables.iter().copied());
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo ended with {status}");
    }
    Ok(())
}

/// Every test: guests natively and as components, then the host's, against a real
/// mosquitto.
pub fn test(args: &[String]) -> anyhow::Result<()> {
    guests::build()?;
    cargo(&root().join("tenants"), ["test", "--quiet", "--workspace"], &[])?;
    let mut test: Vec<String> =
        ["test", "--workspace", "--features", "tidegate/planted-bugs"].map(str::to_owned).into();
    test.extend_from_slice(args);
    let mosquitto = tools::mosquitto();
    let mut variables: Vec<(&str, &OsStr)> = Vec::new();
    match &mosquitto {
        Ok(path) => variables.push(("TIDEGATE_MOSQUITTO", path.as_os_str())),
        // CI installs it and skips nothing.
        Err(_) if std::env::var_os("CI").is_some() => {}
        Err(error) => {
            eprintln!("NOT TESTED: everything against a real MQTT broker. {error:#}");
            variables.push(("TIDEGATE_WITHOUT_MOSQUITTO", OsStr::new("1")));
        }
    }
    cargo(&root(), test, &variables)
}

/// One bench, in release.
pub fn bench(name: &str, quick: bool) -> anyhow::Result<()> {
    guests::build()?;
    let mut args = vec!["run", "--quiet", "--release", "--package", "tidegate-benches", "--bin", name, "--"];
    args.extend(quick.then_some("--quick"));
    cargo(&root(), args, &[])
}

/// Simulation, in release.
pub fn sim(seeds: u64, seed: u64) -> anyhow::Result<()> {
    guests::build()?;
    let (seeds, seed) = (seeds.to_string(), seed.to_string());
    let args = [
        "run",
        "--quiet",
        "--release",
        "--package",
        "tidegate-benches",
        "--bin",
        "sim",
        "--",
        "--seeds",
        &seeds,
        "--seed",
        &seed,
    ];
    cargo(&root(), args, &[])
}
