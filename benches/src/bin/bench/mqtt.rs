//! `mqtt`: readings from one topic through two sealed operators to another, all QoS 1
//! through mosquitto, in both versions of MQTT, against a native program that does the same
//! and an engine that one would use otherwise. The outside client that publishes also counts
//! what comes back, by id.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use serde_json::Value;
use tidegate_benches::{
    mosquitto::Broker,
    report::{Case, Hold, Report, rounds},
    site::{Link, Process, SiteFolder, eventually, mqtt_with, tidegate},
};

use crate::peers::{folder as peers, python};

/// As it is in `benches/peers/pathway.txt`.
const PATHWAY: &str = "Pathway 0.33.0";

/// What the native program cost on the machine of the first measurements, in CPU
/// seconds per million messages, with a fifth on top: beyond it a run is not valid.
const NATIVE_SATURATED_MAX: f64 = 24.8 * 1.2;
const NATIVE_PACED_MAX: f64 = 44.8 * 1.2;
/// Messages a second where latency is measured.
const PACE: u64 = 8_000;

/// Who does the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// By hand, in a version of MQTT.
    Native(&'static str),
    Host(&'static str),
    Pathway,
}

const V5: &str = "5";
const V311: &str = "3.1.1";
const PROGRAMS: [Program; 5] =
    [Program::Native(V5), Program::Host(V5), Program::Native(V311), Program::Host(V311), Program::Pathway];

impl Program {
    fn name(self) -> String {
        match self {
            Program::Native(version) => format!("native, {version}"),
            Program::Host(version) => format!("host, {version}"),
            Program::Pathway => PATHWAY.into(),
        }
    }

    /// Topics of readings and of results. Each has its own: sessions outlast programs, and take
    /// what is sent to others.
    fn topics(self) -> (&'static str, &'static str) {
        match self {
            Program::Host(_) => ("a/in", "a/out/t"),
            Program::Native(V5) => ("v5/in", "v5/out"),
            Program::Native(_) => ("v311/in", "v311/out"),
            Program::Pathway => ("pathway/in", "pathway/out"),
        }
    }

    fn start(self, broker: &Broker, folder: &Path) -> anyhow::Result<Process> {
        match self {
            Program::Native(version) => start_native(broker, version, self.topics()),
            Program::Host(version) => start_host(broker, version, folder),
            Program::Pathway => start_pathway(broker, self.topics(), folder),
        }
    }
}

/// One run of the load against one program.
struct Run {
    per_second: f64,
    /// CPU seconds of the program per million messages.
    cpu: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// What a program did in one round.
struct Round {
    saturated: Run,
    paced: Run,
    resident_mib: f64,
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let broker = Broker::start()?;
    let (saturated, paced) = if quick { (60_000, 40_000) } else { (250_000, 80_000) };
    let mut done: [Vec<Round>; PROGRAMS.len()] = Default::default();
    for round in 0..rounds(quick) {
        for (program, done) in PROGRAMS.iter().zip(&mut done) {
            eprintln!("round {}: {}", round + 1, program.name());
            let folder = tempfile::tempdir()?;
            let process = program.start(&broker, folder.path())?;
            let (input, output) = program.topics();
            let (saturated, paced) = (
                load(&broker, &process, input, output, saturated, 0)?,
                load(&broker, &process, input, output, paced, PACE)?,
            );
            done.push(Round { saturated, paced, resident_mib: process.resident_kib()? / 1024.0 });
            process.stop()?;
        }
    }
    let rounds_of = |program| {
        let at = PROGRAMS.iter().position(|it| *it == program).expect("it is one of them");
        &done[at]
    };
    let ratio = |what: &str, to: Program, version: &'static str, of: fn(&Round) -> f64| {
        let (host, other) = (rounds_of(Program::Host(version)), rounds_of(to));
        let ratios: Vec<f64> = host.iter().zip(other).map(|(host, other)| of(host) / of(other)).collect();
        let (load, what) = what.split_once(": ").unwrap_or(("", what));
        let other = match to {
            Program::Native(_) => "native".to_owned(),
            to => to.name(),
        };
        Case::median(format!("{version}, {load}: {what}, host ÷ {other}"), "x", &ratios)
    };
    let mut cases = Vec::new();
    for version in [V5, V311] {
        let native = Program::Native(version);
        cases.extend([
            ratio("saturated: CPU", native, version, |round| round.saturated.cpu).hold(Hold::AtMost(0.75)),
            ratio("saturated: messages/s", native, version, |round| round.saturated.per_second)
                .hold(Hold::AtLeast(1.0)),
            ratio("8,000/s: CPU", native, version, |round| round.paced.cpu).hold(Hold::AtMost(1.0)),
            ratio("8,000/s: p99", native, version, |round| round.paced.p99_ms).hold(Hold::AtMost(2.0)),
        ]);
    }
    cases.extend([
        ratio("saturated: CPU", Program::Pathway, V5, |round| round.saturated.cpu).hold(Hold::AtMost(1.0)),
        ratio("8,000/s: p99", Program::Pathway, V5, |round| round.paced.p99_ms).hold(Hold::AtMost(1.0)),
        ratio("8,000/s: CPU", Program::Pathway, V5, |round| round.paced.cpu),
    ]);
    let value_of = cases[0].name.clone();
    for program in PROGRAMS {
        let case = |what: &str, unit, of: fn(&Round) -> f64| {
            let figures: Vec<f64> = rounds_of(program).iter().map(of).collect();
            Case::median(format!("{}, {what}", program.name()), unit, &figures)
        };
        // A native program that is slow would flatter the host.
        let cpu = |case: Case, most| match program {
            Program::Native(_) => case.hold(Hold::AtMost(most)),
            Program::Host(_) | Program::Pathway => case,
        };
        cases.extend([
            case("saturated: messages/s", "1/s", |round| round.saturated.per_second),
            cpu(case("saturated: CPU s per million", "s", |round| round.saturated.cpu), NATIVE_SATURATED_MAX),
            case("saturated: p50", "ms", |round| round.saturated.p50_ms),
            case("saturated: p99", "ms", |round| round.saturated.p99_ms),
            cpu(case("8,000/s: CPU s per million", "s", |round| round.paced.cpu), NATIVE_PACED_MAX),
            case("8,000/s: p50", "ms", |round| round.paced.p50_ms),
            case("8,000/s: p99", "ms", |round| round.paced.p99_ms),
            case("resident", "MiB", |round| round.resident_mib),
        ]);
    }
    Ok(Report { bench: "mqtt", unit: "x CPU of the native program", value_of, cases })
}

fn start_native(broker: &Broker, version: &str, (input, output): (&str, &str)) -> anyhow::Result<Process> {
    let mut command = Command::new(tidegate()?.with_file_name("native_mqtt"));
    command.args(["--port", &broker.port.to_string(), "--version", version]);
    Process::start(command.args(["--input", input, "--output", output]), None)
}

fn start_pathway(broker: &Broker, (input, output): (&str, &str), folder: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(python("pathway")?);
    command.arg(peers().join("mqtt_job.py")).args([&broker.address(), input, output]);
    // One worker, as the host has one shard.
    command.env("PATHWAY_THREADS", "1").current_dir(folder);
    Process::start(&mut command, None)
}

/// Job J1 as two sealed operators: drop what is 50 °C or less, add Fahrenheit.
fn start_host(broker: &Broker, version: &str, dir: &Path) -> anyhow::Result<Process> {
    let endpoint = mqtt_with(&broker.address(), &format!(", version: \"{version}\""));
    let site = SiteFolder::new(dir, "shards: 1", &endpoint)?;
    let filter = [("field", "temperature"), ("op", "gt"), ("value", "50")];
    let convert = [("field", "temperature"), ("from", "C"), ("to", "F"), ("output", "fahrenheit")];
    site.component("a", "filter", "json_filter", None)?;
    site.component("a", "convert", "unit_convert", None)?;
    site.tenant(
        "a",
        &[
            Link { kind: "filter", module: "filter", configuration: &filter },
            Link { kind: "map", module: "convert", configuration: &convert },
        ],
    )?;
    site.tenants(["a"])?;
    Process::host(dir)
}

fn load(
    broker: &Broker,
    process: &Process,
    input: &str,
    output: &str,
    count: u64,
    rate: u64,
) -> anyhow::Result<Run> {
    let program = tidegate()?.with_file_name("mqtt_load");
    let run = |count: u64, rate: u64, patience: &str| -> anyhow::Result<Value> {
        let mut command = Command::new(&program);
        command.args(["--broker", &broker.address(), "--input", input, "--output", output]);
        command.args(["--count", &count.to_string(), "--rate", &rate.to_string()]);
        command.args(["--patience-seconds", patience]);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "the load failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_str(&text)?)
    };
    // Until it is subscribed, nothing comes back; and its code is warm afterwards.
    eventually("a first reading comes back", || run(5_000, 0, "3").is_ok())?;
    let before = process.cpu_seconds()?;
    let figures = run(count, rate, "30")?;
    let cpu = (process.cpu_seconds()? - before) / count as f64 * 1e6;
    let figure = |name: &str| figures[name].as_f64().with_context(|| format!("no {name} in {figures}"));
    ensure!(figure("lost")? == 0.0, "readings were lost: {figures}");
    Ok(Run { per_second: figure("per_second")?, cpu, p50_ms: figure("p50_ms")?, p99_ms: figure("p99_ms")? })
}
