//! Running cargo, and the tests.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail};

use crate::{guests, languages, root, tools};

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

/// Features with which everything is tested. What a build without models says is among
/// the unit tests.
const TESTED: &str = "tidegate/planted-bugs,tidegate/wasi-nn";

/// Every test: guests natively and as components, then the host's, against real brokers.
pub fn test(args: &[String]) -> anyhow::Result<()> {
    guests::build()?;
    let without = languages_missing()?;
    cargo(&root().join("tenants"), ["test", "--quiet", "--workspace"], &[])?;
    let mut test: Vec<String> = ["test", "--workspace", "--features", TESTED].map(str::to_owned).into();
    test.extend_from_slice(args);
    let servers = [
        ("a real MQTT broker", "TIDEGATE_MOSQUITTO", "TIDEGATE_WITHOUT_MOSQUITTO", tools::mosquitto()),
        ("a real Kafka", "TIDEGATE_KAFKA", "TIDEGATE_WITHOUT_KAFKA", tools::kafka()),
        ("a real OpenTelemetry Collector", "TIDEGATE_OTEL", "TIDEGATE_WITHOUT_OTEL", tools::otel()),
    ];
    let mut variables: Vec<(&str, &OsStr)> = Vec::new();
    for (server, place, missing, found) in &servers {
        match found {
            Ok(path) => variables.push((place, path.as_os_str())),
            // CI installs it and skips nothing.
            Err(_) if std::env::var_os("CI").is_some() => {}
            Err(error) => {
                eprintln!("NOT TESTED: everything against {server}. {error:#}");
                variables.push((missing, OsStr::new("1")));
            }
        }
    }
    variables.push(("TIDEGATE_WITHOUT_LANGUAGES", OsStr::new(&without)));
    cargo(&root(), test, &variables)
}

/// Builds the guests in other languages; names those that cannot be built here.
fn languages_missing() -> anyhow::Result<String> {
    let mut names = Vec::new();
    for (language, error) in languages::build()? {
        // CI has what they need and skips nothing.
        if std::env::var_os("CI").is_some() {
            return Err(error);
        }
        eprintln!("NOT TESTED: guests in {}. {error:#}", language.name());
        names.push(language.name());
    }
    Ok(names.join(","))
}

/// Every bench, in the order in which `all` runs them.
pub const BENCHES: [&str; 22] = [
    "path",
    "contracts",
    "metering",
    "deploy",
    "quiet",
    "density",
    "dense",
    "mqtt",
    "kafka",
    "otlp",
    "http",
    "windows",
    "state",
    "restart",
    "fair",
    "cap",
    "scorecard",
    "accounting",
    "leak",
    "spread",
    "crowd",
    "peers",
];

/// Benches that `all` leaves out: they take an hour and more, and what they say is yes or no.
const LONG_BENCHES: [&str; 2] = ["chaos", "soak"];

/// Builds host and benches in release and runs one bench, or all of them for
/// `benches/RESULTS.md`.
pub fn bench(name: &str, quick: bool, only: Option<&str>) -> anyhow::Result<()> {
    if name != "all" && !BENCHES.contains(&name) && !LONG_BENCHES.contains(&name) {
        bail!("there is no bench `{name}`: {}, {} or all", BENCHES.join(", "), LONG_BENCHES.join(", "));
    }
    guests::build()?;
    let mut build: Vec<&str> = ["build", "--release", "-p", "tidegate", "-p", "tidegate-benches"].into();
    for binary in ["tidegate", "bench", "native_mqtt", "native_kafka", "native_http", "mqtt_load"] {
        build.extend(["--bin", binary]);
    }
    cargo(&root(), build, &[])?;
    if name != "all" {
        if name == "chaos"
            && let Err(error) = tools::faketime()
        {
            eprintln!("NOT TESTED: clocks that jump. {error:#}");
        }
        return match run_bench(name, quick, only)?.status {
            status if status.success() => Ok(()),
            status => bail!("`{name}` does not hold, or failed: {status}"),
        };
    }
    let mut results = String::from(RESULTS_HEAD);
    let mut missed = Vec::new();
    for name in BENCHES {
        eprintln!("bench {name}");
        let output = run_bench(name, quick, None)?;
        if !output.status.success() {
            missed.push(name);
        }
        results += &section(name, &String::from_utf8_lossy(&output.stdout));
    }
    let path = root().join("benches/RESULTS.md");
    std::fs::write(&path, results).with_context(|| path.display().to_string())?;
    if !missed.is_empty() {
        bail!("not held, or failed: {}", missed.join(", "));
    }
    Ok(())
}

const RESULTS_HEAD: &str = "# Results

Written by `cargo xtask bench all`; one bench alone: `cargo xtask bench NAME`. Medians over
the rounds of a run, smallest and largest in brackets. The last line of each has every
figure, the machine and the commit.
";

/// Runs the bench; what it prints is shown and kept.
fn run_bench(name: &str, quick: bool, only: Option<&str>) -> anyhow::Result<Output> {
    let mut command = Command::new(root().join("target/release/bench"));
    command.arg(name).args(quick.then_some("--quick"));
    command.args(only.map(|only| format!("--only={only}"))).current_dir(root()).stderr(Stdio::inherit());
    if let Ok(path) = tools::mosquitto() {
        command.env("TIDEGATE_MOSQUITTO", path);
    }
    if let Ok(path) = tools::kafka() {
        command.env("TIDEGATE_KAFKA", path);
    }
    if let Ok(path) = tools::otel() {
        command.env("TIDEGATE_OTEL", path);
    }
    let output = command.output().context("cannot run the bench")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(output)
}

fn section(name: &str, output: &str) -> String {
    let (table, json) = output.trim_end().rsplit_once('\n').unwrap_or((output, ""));
    format!("\n## {name}\n\n```\n{table}\n```\n\n```json\n{json}\n```\n")
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
