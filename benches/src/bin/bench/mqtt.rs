//! `mqtt`: readings from one topic through two sealed operators to another, all QoS 1
//! through mosquitto, against a native program that does the same. The outside client
//! that publishes also counts what comes back, by id.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use serde_json::Value;
use tidegate_benches::{
    mosquitto::Broker,
    report::{Case, Hold, Report, rounds},
    site::{Link, Process, SiteFolder, eventually, mqtt, tidegate},
};

/// What the native program cost on the machine of the first measurements, in CPU
/// seconds per million messages, with a fifth on top: beyond it a run is not valid.
const NATIVE_SATURATED_MAX: f64 = 24.8 * 1.2;
const NATIVE_PACED_MAX: f64 = 44.8 * 1.2;
/// Messages a second where latency is measured.
const PACE: u64 = 8_000;

/// One run of the load against one program.
struct Run {
    per_second: f64,
    /// CPU seconds of the program per million messages.
    cpu: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let broker = Broker::start()?;
    let (saturated, paced) = if quick { (60_000, 40_000) } else { (250_000, 80_000) };
    let mut native: [Vec<Run>; 2] = Default::default();
    let mut host: [Vec<Run>; 2] = Default::default();
    let mut resident = Vec::new();
    for round in 0..rounds(quick) {
        eprintln!("round {}: native", round + 1);
        let process = start_native(&broker)?;
        native[0].push(load(&broker, &process, "in/t", "out/t", saturated, 0)?);
        native[1].push(load(&broker, &process, "in/t", "out/t", paced, PACE)?);
        process.stop()?;
        eprintln!("round {}: host", round + 1);
        let site = tempfile::tempdir()?;
        let process = start_host(&broker, site.path())?;
        host[0].push(load(&broker, &process, "a/in", "a/out/t", saturated, 0)?);
        host[1].push(load(&broker, &process, "a/in", "a/out/t", paced, PACE)?);
        resident.push(process.resident_kib()? / 1024.0);
        process.stop()?;
    }
    let all = |runs: &[Run], of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
    let ratios = |index: usize, of: fn(&Run) -> f64| {
        host[index]
            .iter()
            .zip(&native[index])
            .map(|(host, native)| of(host) / of(native))
            .collect::<Vec<f64>>()
    };
    let mut cases = vec![
        Case::median("saturated: messages/s, host ÷ native", "x", &ratios(0, |run| run.per_second))
            .hold(Hold::AtLeast(1.0)),
        Case::median("saturated: CPU, host ÷ native", "x", &ratios(0, |run| run.cpu)).hold(Hold::AtMost(1.0)),
        Case::median("8,000/s: CPU, host ÷ native", "x", &ratios(1, |run| run.cpu)).hold(Hold::AtMost(1.0)),
        Case::median("8,000/s: p99, host ÷ native", "x", &ratios(1, |run| run.p99_ms))
            .hold(Hold::AtMost(2.0)),
    ];
    let worst = cases[1].value.max(cases[2].value);
    cases.insert(0, Case::median("CPU, host ÷ native, the worse", "x", &[worst]).hold(Hold::AtMost(1.0)));
    for (name, runs, bounds) in
        [("native", &native, [NATIVE_SATURATED_MAX, NATIVE_PACED_MAX]), ("host", &host, [f64::INFINITY; 2])]
    {
        for ((load, runs), bound) in ["saturated", "8,000/s"].iter().zip(runs).zip(bounds) {
            let case =
                |what: &str, unit, of| Case::median(format!("{name}, {load}: {what}"), unit, &all(runs, of));
            let cpu = case("CPU s per million", "s", |run| run.cpu);
            cases.extend([
                case("messages/s", "1/s", |run| run.per_second),
                // A native program that is slow would flatter the host.
                if bound.is_finite() { cpu.hold(Hold::AtMost(bound)) } else { cpu },
                case("p50", "ms", |run| run.p50_ms),
                case("p99", "ms", |run| run.p99_ms),
            ]);
        }
    }
    cases.push(Case::median("host: resident", "MiB", &resident));
    Ok(Report {
        bench: "mqtt",
        unit: "x CPU of the native program",
        value_of: "CPU, host ÷ native, the worse".into(),
        cases,
    })
}

fn start_native(broker: &Broker) -> anyhow::Result<Process> {
    let program = tidegate()?.with_file_name("native_mqtt");
    let process = Process::start(Command::new(program).args(["--port", &broker.port.to_string()]), None)?;
    Ok(process)
}

/// Job J1 as two sealed operators: drop what is 50 °C or less, add Fahrenheit.
fn start_host(broker: &Broker, dir: &Path) -> anyhow::Result<Process> {
    let site = SiteFolder::new(dir, "shards: 1", &mqtt(&broker.address()))?;
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
    let run = |count: u64, rate: u64| -> anyhow::Result<Value> {
        let mut command = Command::new(&program);
        command.args(["--broker", &broker.address(), "--input", input, "--output", output]);
        command.args(["--count", &count.to_string(), "--rate", &rate.to_string()]);
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
    eventually("a first reading comes back", || run(5_000, 0).is_ok())?;
    let before = process.cpu_seconds()?;
    let figures = run(count, rate)?;
    let cpu = (process.cpu_seconds()? - before) / count as f64 * 1e6;
    let figure = |name: &str| figures[name].as_f64().with_context(|| format!("no {name} in {figures}"));
    ensure!(figure("lost")? == 0.0, "readings were lost: {figures}");
    Ok(Run { per_second: figure("per_second")?, cpu, p50_ms: figure("p50_ms")?, p99_ms: figure("p99_ms")? })
}
