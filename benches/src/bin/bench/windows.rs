//! `windows`: a million messages from a file through filter, delay and accumulate, in a
//! hundred dataflows with a thousand windows open in each, against the same steps in
//! plain Timely.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_benches::{
    plain::{self, Job},
    report::{Case, Hold, Report, rounds},
    site::{Link, Process, SiteFolder, WITHIN, ask, chain, file, policy_like_standard},
};

/// Messages of each dataflow, two seconds apart: half of their windows are open when
/// the last has come.
const MESSAGES: usize = 10_000;
const EVERY: u64 = 2;
const WINDOW: Duration = Duration::from_secs(10);
const LATENESS: Duration = Duration::from_secs(10_000);
/// Windows that a dataflow has given then, and that it still holds: the one whose end is
/// just as late as allowed is held.
const GIVEN: usize = 999;
const OPEN: usize = 1_001;
/// Seconds since the epoch of the first.
const START: u64 = 1_700_000_000;

/// How a host runs the job.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    keeping: &'static str,
    /// Guests of filter, delay and accumulate.
    guests: [&'static str; 3],
}

const PACKED: [&str; 3] = ["json_filter", "align", "aggregate"];
const AIO: [&str; 3] = ["aio_json_filter", "window", "aio_aggregate"];
const WAYS: [Way; 4] = [
    Way { name: "packed, volatile", keeping: "volatile", guests: PACKED },
    Way { name: "packed, durable", keeping: "durable", guests: PACKED },
    Way { name: "AIO's contract, volatile", keeping: "volatile", guests: AIO },
    Way { name: "AIO's contract, durable", keeping: "durable", guests: AIO },
];

/// One run of a host.
struct Run {
    seconds: f64,
    cpu_seconds: f64,
    bytes_per_window: f64,
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let dataflows = if quick { 20 } else { 100 };
    let dir = tempfile::tempdir()?;
    let input = dir.path().join("in.jsonl");
    fs::write(&input, lines())?;
    let job = Job { above: 50.0, window: WINDOW, lateness: LATENESS };
    let mut natives = Vec::new();
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); WAYS.len()];
    let mut runs: Vec<Vec<Run>> = WAYS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds(quick) {
        eprintln!("round {}: plain Timely", round + 1);
        let output = dir.path().join("plain.jsonl");
        let begun = Instant::now();
        plain::run(job, dataflows, &input, &output)?;
        let native = begun.elapsed().as_secs_f64();
        natives.push(native);
        let expected = summaries(&fs::read_to_string(&output)?)?;
        ensure!(
            expected.values().sum::<usize>() == dataflows * GIVEN,
            "plain Timely gives other windows than those that are complete"
        );
        for (way, (ratios, runs)) in WAYS.iter().zip(ratios.iter_mut().zip(&mut runs)) {
            eprintln!("round {}: {}", round + 1, way.name);
            let run = host(*way, dataflows, &input, &expected)?;
            ratios.push(run.seconds / native);
            runs.push(run);
        }
    }
    let mut cases = Vec::new();
    for (index, way) in WAYS.iter().enumerate() {
        let case = Case::median(format!("time, {} ÷ plain Timely", way.name), "x", &ratios[index]);
        cases.push(if index == 0 { case.hold(Hold::AtMost(3.0)) } else { case });
    }
    cases.push(Case::median("plain Timely", "s", &natives));
    for (way, runs) in WAYS.iter().zip(&runs) {
        let all = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
        cases.extend([
            Case::median(way.name, "s", &all(|run| run.seconds)),
            Case::median(format!("{}: CPU", way.name), "s", &all(|run| run.cpu_seconds)),
            Case::median(
                format!("{}: resident per open window", way.name),
                "B",
                &all(|run| run.bytes_per_window),
            ),
        ]);
    }
    let value_of = cases[0].name.clone();
    Ok(Report { bench: "windows", unit: "x plain Timely", value_of, cases })
}

/// Readings of one dataflow; four of five pass the filter.
fn lines() -> String {
    let mut text = String::new();
    for number in 0..MESSAGES {
        let temperature = if number % 5 == 0 { 20.5 } else { 60.0 + (number % 30) as f64 };
        let ms = (START + number as u64 * EVERY) * 1000;
        let id = 100_000 + number;
        writeln!(
            text,
            r#"{{"topic":"in","payload":{{"msg_id":{id},"sensor":"boiler-room-north-17","temperature":{temperature:?},"unit":"celsius-scale"}},"properties":[["__ts","{ms:015}:00000:bench"]]}}"#
        )
        .expect("a string takes all");
    }
    text
}

/// Payloads of an output, and how often each is there.
fn summaries(text: &str) -> anyhow::Result<BTreeMap<String, usize>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let mut summaries = BTreeMap::new();
    for line in text.lines() {
        let line: Line<'_> = serde_json::from_str(line).with_context(|| line.to_owned())?;
        *summaries.entry(line.payload.get().to_owned()).or_insert(0) += 1;
    }
    Ok(summaries)
}

/// The first summaries that are there more or less often than expected.
fn differences(found: &BTreeMap<String, usize>, expected: &BTreeMap<String, usize>) -> String {
    let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let counts = names.into_iter().map(|name| (name, found.get(name), expected.get(name)));
    let differ = counts.filter(|(_, found, expected)| found != expected).take(5);
    let texts = differ.map(|(name, found, expected)| {
        format!("{name}: {} and not {}", found.unwrap_or(&0), expected.unwrap_or(&0))
    });
    texts.collect::<Vec<_>>().join("; ")
}

fn host(way: Way, dataflows: usize, input: &Path, expected: &BTreeMap<String, usize>) -> anyhow::Result<Run> {
    let dir = tempfile::tempdir()?;
    lay_out(dir.path(), way, dataflows)?;
    let source = dir.path().join("in.jsonl");
    File::create(&source)?;
    let process = Process::host(dir.path())?;
    let (resident, cpu) = (process.resident_kib()?, process.cpu_seconds()?);
    let text = fs::read(input)?;
    let mut file = File::options().append(true).open(&source)?;
    let begun = Instant::now();
    file.write_all(&text)?;
    let windows = expected.values().sum();
    wait_for_lines(&dir.path().join("out.jsonl"), windows, begun)?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = process.cpu_seconds()? - cpu;
    let found = summaries(&fs::read_to_string(dir.path().join("out.jsonl"))?)?;
    ensure!(
        found == *expected,
        "{}: other windows than plain Timely's: {}",
        way.name,
        differences(&found, expected)
    );
    let bytes = (process.resident_kib()? - resident) * 1024.0;
    let status = ask(&dir.path().join(".tidegate"), "/status", "{}")?;
    let dead = counters(&status, "dead");
    ensure!(dead == 0 && counters(&status, "late") == 0, "{}: messages were given up or late", way.name);
    process.stop()?;
    Ok(Run { seconds, cpu_seconds, bytes_per_window: bytes / (dataflows * OPEN) as f64 })
}

/// A counter over all dataflows.
fn counters(status: &serde_json::Value, name: &str) -> u64 {
    let tenants = status["tenants"].as_array().into_iter().flatten();
    let dataflows = tenants.flat_map(|tenant| tenant["dataflows"].as_array().into_iter().flatten());
    dataflows.filter_map(|dataflow| dataflow["counters"][name].as_u64()).sum()
}

/// Looks at what is appended to a file until it has so many lines.
fn wait_for_lines(path: &Path, count: usize, begun: Instant) -> anyhow::Result<()> {
    let (mut lines, mut read, mut bytes) = (0, 0, Vec::new());
    while lines < count {
        ensure!(begun.elapsed() < WITHIN, "{lines} of {count} windows within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(5));
        let Ok(mut file) = File::open(path) else { continue };
        file.seek(std::io::SeekFrom::Start(read))?;
        bytes.clear();
        read += file.read_to_end(&mut bytes)? as u64;
        lines += bytes.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(())
}

/// A tenant for each dataflow, all of the same input and output. None becomes idle, after
/// which time would go on without messages and more windows be complete.
fn lay_out(dir: &Path, way: Way, dataflows: usize) -> anyhow::Result<()> {
    let site =
        SiteFolder::new(dir, "shards: 1", &[file("in", "in.jsonl"), file("out", "out.jsonl")].join("---\n"))?;
    let longer = ("time: { lateness: 1h,", "time: { lateness: 3h,");
    site.write("platform/policy.yaml", &policy_like_standard("windows", &[longer], &["in", "out"])?)?;
    let links = [
        Link {
            kind: "filter",
            module: "filter",
            configuration: &[("field", "temperature"), ("op", "gt"), ("value", "50")],
        },
        Link { kind: "delay", module: "delay", configuration: &[] },
        Link { kind: "accumulate", module: "accumulate", configuration: &[("field", "temperature")] },
    ];
    let annotations = format!(
        "metadata: {{ name: flow, annotations: {{ tidegate.dev/lateness: {}s, tidegate.dev/windows: {}, tidegate.dev/idle: 60s }} }}",
        LATENESS.as_secs(),
        way.keeping
    );
    let dataflow = chain::dataflow("flow", "graph", ("in", "in"), ("out", "out"))
        .replace("metadata: { name: flow }", &annotations);
    let mut tenants = String::new();
    for index in 0..dataflows {
        let tenant = format!("t{index:03}");
        tenants += &format!(
            "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: {tenant} }}\nspec: {{ policy: windows }}\n---\n"
        );
        site.write(&format!("tenants/{tenant}/artifacts/graph/1.yaml"), &chain::graph("graph", &links))?;
        site.write(&format!("tenants/{tenant}/dataflows/flow.yaml"), &dataflow)?;
        for (link, guest) in links.iter().zip(way.guests) {
            site.component(&tenant, link.module, guest, None)?;
        }
    }
    site.write("platform/tenants.yaml", &tenants)
}
