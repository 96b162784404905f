//! `tidegate status`: the live state of a running host, once or again and again; and of one
//! dataflow, why nothing comes out of it.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::{print_json, runtime};
use crate::{control, resource::quantity::show_cpu};

#[derive(Args)]
pub struct StatusArgs {
    /// Only this tenant, with its operators; or a dataflow, TENANT/DATAFLOW, and why nothing
    /// comes out of it.
    #[arg(value_name = "TENANT[/DATAFLOW]")]
    of: Option<String>,
    /// The host's data folder.
    #[arg(long, default_value = ".tidegate")]
    data: PathBuf,
    /// Show it again and again, until Ctrl-C: in place on a terminal, as plain lines
    /// or a JSON document a line elsewhere.
    #[arg(long)]
    watch: bool,
    /// Time between two looks of `--watch`.
    #[arg(long, default_value = "1s", value_name = "DUR", requires = "watch")]
    every: humantime::Duration,
    /// Every tenant, rather than the twenty that have trouble or do most.
    #[arg(long)]
    all: bool,
}

/// Clears the screen from the top left corner on.
pub const CLEAR: &str = "\x1b[H\x1b[J";

/// Tenants that a table shows, unless it is asked for all.
pub const BUSIEST: usize = 20;

/// Dataflows up to which each has its line; of more, those that have trouble.
const DATAFLOWS_MAX: usize = 30;

pub fn status(args: StatusArgs, json: bool) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let every = Duration::max(args.every.into(), Duration::from_millis(100));
    let is_live = args.watch && !json && std::io::stdout().is_terminal();
    let (tenant, dataflow) = match args.of.as_deref().map(|of| of.split_once('/').ok_or(of)) {
        None => (None, None),
        Some(Err(tenant)) => (Some(tenant), None),
        Some(Ok((tenant, dataflow))) => (Some(tenant), Some(dataflow)),
    };
    let busiest = (tenant.is_none() && !args.all && !json).then_some(BUSIEST);
    let question = json!({ "tenant": tenant, "dataflow": dataflow, "busiest": busiest });
    loop {
        let (status, mut answer) = runtime.block_on(ask(&args.data, &question))?;
        if !status.is_success() {
            if json {
                print_json(&answer);
            }
            anyhow::bail!("{}", answer["error"].as_str().unwrap_or("the host refused to answer"));
        }
        let shown = match (json, dataflow) {
            (true, _) => {
                // The document says all that the text does.
                answer.as_object_mut().map(|answer| answer.remove("text"));
                format!("{answer}\n")
            }
            (false, Some(_)) => string(&answer["text"]).to_owned(),
            (false, None) => text(&answer, tenant.is_some()),
        };
        let clear = if is_live { CLEAR } else { "" };
        // A reader that has seen enough closes the pipe.
        let mut stdout = std::io::stdout();
        if write!(stdout, "{clear}{shown}").and_then(|()| stdout.flush()).is_err() || !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(every);
    }
}

async fn ask(data: &Path, question: &Value) -> Result<(StatusCode, Value), control::ControlError> {
    control::ask(data, "/status", question.clone()).await
}

/// The state of those tenants that the document has, for people.
pub fn text(status: &Value, with_operators: bool) -> String {
    let shards = status["shards"].as_array().map_or(0, Vec::len);
    let instances: u64 = each(&status["shards"]).filter_map(|shard| shard["instances"].as_u64()).sum();
    let mut lines = vec![format!(
        "host {}: {shards} shards, {instances} instances, {} components loaded",
        string(&status["host"]),
        status["componentsLoaded"]
    )];
    if let Some(fuel) = status["fuelPerCpuSecond"].as_u64() {
        lines.push(format!("fuel for a second of CPU time: {}", short(fuel)));
    }
    if let Some(failure) = status["storeFailure"].as_str() {
        lines.push(format!("the store cannot be written, and is tried again: {failure}"));
    }
    for server in each(&status["servers"]) {
        let count = |name: &str| short(server["counters"][name].as_u64().unwrap_or(0));
        lines.push(format!(
            "server {}: {}; {} connections, {} requests accepted",
            string(&server["address"]),
            string(&server["connection"]),
            count("connections"),
            count("accepted")
        ));
    }
    let total = |key: &str| status["totals"][key].as_u64().unwrap_or(0);
    lines.push(format!(
        "in {}/s, out {}/s, CPU {}; {} tenants, {} dataflows",
        short(total("receivedPerSecond")),
        short(total("deliveredPerSecond")),
        show_cpu(total("cpuMilli")),
        total("tenants"),
        total("dataflows")
    ));
    lines.push(String::new());
    lines.extend(table(status));
    let shown = each(&status["tenants"]).count() as u64;
    if !with_operators && total("tenants") > shown {
        lines.push(format!("and {} more; --all shows them", total("tenants") - shown));
    }
    lines.extend(each(&status["tenants"]).filter_map(step_line));
    lines.push(String::new());
    let flows: usize = each(&status["tenants"]).map(|tenant| each(&tenant["dataflows"]).count()).sum();
    let every_one = with_operators || flows <= DATAFLOWS_MAX;
    lines.extend(flow_lines(status, |flow| every_one || has_trouble(flow)));
    if with_operators {
        lines.extend(each(&status["tenants"]).map(letters_line));
        lines.extend(operator_lines(status));
    }
    lines.join("\n") + "\n"
}

/// A line for each tenant, below a head, within 100 columns.
fn table(status: &Value) -> Vec<String> {
    let row = |name: &str, cells: [&str; 10], step: &str| {
        let [received, delivered, filtered, errors, dead, queue, cpu, fuel, memory, p99] = cells;
        format!(
            "{:<15}{received:>8}{delivered:>8}{filtered:>9}{errors:>7}{dead:>6}{queue:>6}{cpu:>7}{fuel:>7}{memory:>7}{p99:>7}  {}",
            cropped(name, 15),
            cropped(step, 11)
        )
    };
    let head = ["in", "out", "filtered", "errors", "dead", "queue", "CPU", "fuel/s", "memory", "p99"];
    let mut lines = vec![row("tenant", head, "step")];
    for tenant in each(&status["tenants"]) {
        let flows = || each(&tenant["dataflows"]);
        let count = |key: &str| short(flows().filter_map(|flow| flow["counters"][key].as_u64()).sum());
        let queue: u64 = flows().filter_map(|flow| flow["waitingDeliveries"].as_u64()).sum();
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let pace = &tenant["perSecond"];
        let p99 = tenant["latency"]["p99Micros"].as_u64().map_or("-".to_owned(), short_micros);
        let cells = [
            count("received"),
            count("delivered"),
            count("filtered"),
            count("errors"),
            count("dead"),
            short(queue),
            show_cpu(number(&pace["cpuMilli"])),
            short(number(&pace["fuel"])),
            short_bytes(number(&tenant["memory"]["total"])),
            p99,
        ];
        let cells = cells.each_ref().map(String::as_str);
        lines.push(row(string(&tenant["name"]), cells, string(&tenant["ladder"]["step"])));
    }
    lines
}

/// Why a tenant is not just running, and since when.
fn step_line(tenant: &Value) -> Option<String> {
    let ladder = &tenant["ladder"];
    let step = ladder["step"].as_str().filter(|step| *step != "running")?;
    let cause = ladder["cause"].as_str().map_or(String::new(), |cause| format!(": {cause}"));
    Some(format!("  {} {step} since {}{cause}", string(&tenant["name"]), string(&ladder["since"])))
}

fn has_trouble(flow: &Value) -> bool {
    flow["state"] != "Running" || flow["healthState"]["reasonCode"].is_string()
}

/// At most `len` characters.
fn cropped(text: &str, len: usize) -> String {
    if text.chars().count() <= len {
        return text.to_owned();
    }
    let kept: String = text.chars().take(len - 1).collect();
    format!("{kept}…")
}

/// In at most five characters, rounded down.
fn short(count: u64) -> String {
    scaled(count, 1_000, &["", "K", "M", "G", "T", "P", "E"])
}

fn short_bytes(bytes: u64) -> String {
    scaled(bytes, 1_024, &["B", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

fn short_micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..100_000 => format!("{:.1}ms", micros as f64 / 1_000.0),
        100_000..10_000_000 => format!("{}ms", micros / 1_000),
        _ => format!("{}s", micros / 1_000_000),
    }
}

/// In the first unit in which it is below ten thousand.
fn scaled(mut number: u64, by: u64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().expect("there is a smallest unit");
    while number >= 10_000 {
        number /= by;
        unit = units.next().expect("no number is beyond the largest unit");
    }
    format!("{number}{unit}")
}

/// A line for each dataflow of a status document.
pub fn status_lines(status: &Value) -> Vec<String> {
    flow_lines(status, |_| true)
}

/// The same, for those that are wanted.
fn flow_lines(status: &Value, is_wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for tenant in each(&status["tenants"]) {
        for flow in each(&tenant["dataflows"]).filter(|flow| is_wanted(flow)) {
            let count = |key: &str| flow["counters"][key].as_u64().unwrap_or(0);
            let name = format!("{}/{}", string(&tenant["name"]), string(&flow["name"]));
            let mut line = format!(
                "{name:<26} {:<8} in {:>7}  out {:>7}  filtered {:>6}  errors {:>4}  dead {:>4}",
                string(&flow["state"]),
                count("received"),
                count("delivered"),
                count("filtered"),
                count("errors"),
                count("dead")
            );
            let connections = each(&flow["sources"]).chain(each(&tenant["sinks"]));
            let connections = connections.chain(each(&tenant["commands"]));
            for state in connections.filter_map(|end| end["connection"].as_str()) {
                if state != "connected" {
                    line.push_str(&format!("  ({state})"));
                }
            }
            if let Some(cause) = flow["cause"].as_str() {
                line.push_str(&format!("  ({cause})"));
            }
            let health = &flow["healthState"];
            if let Some(reason) = health["reasonCode"].as_str() {
                let reason = reason.strip_prefix("DataflowGraph").unwrap_or(reason);
                line.push_str(&format!("  {}: {reason}", string(&health["status"])));
            }
            lines.push(line);
        }
    }
    lines
}

/// What is kept of a tenant's dead letters, and what its limits cost it.
fn letters_line(tenant: &Value) -> String {
    let count = |key: &str| tenant["deadLetters"][key].as_u64().unwrap_or(0);
    format!(
        "  dead letters kept {} ({} KiB)  expired {}  displaced {}",
        count("count"),
        count("bytes").div_ceil(1024),
        count("expired"),
        count("displaced")
    )
}

/// What each operator did, and what it reports of itself.
fn operator_lines(status: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let flows = each(&status["tenants"]).flat_map(|tenant| each(&tenant["dataflows"]));
    for operator in flows.flat_map(|flow| each(&flow["operators"])) {
        let count = |key: &str| operator["counters"][key].as_u64().unwrap_or(0);
        lines.push(format!(
            "  {:<42} {}  taken {}  given {}  faults {}  retries {}",
            string(&operator["name"]),
            string(&operator["component"]),
            count("taken"),
            count("given"),
            count("faults"),
            count("retries")
        ));
        for series in each(&operator["metrics"]) {
            let labels = series["labels"].as_object().into_iter().flatten();
            let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={}", string(value))).collect();
            let sum = series["sum"].as_f64().map_or(String::new(), |sum| format!(", sum {sum}"));
            lines.push(format!(
                "    {} {{{}}} {}{sum}",
                string(&series["name"]),
                labels.join(","),
                series["count"]
            ));
        }
    }
    lines
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_enough_for_their_columns() {
        for (shown, expected) in [
            (short(9_999), "9999"),
            (short(10_000), "10K"),
            (short(u64::MAX), "18E"),
            (short_bytes(64 << 20), "64Mi"),
            (short_bytes(1 << 10), "1024B"),
            (short_micros(999), "999us"),
            (short_micros(1_250), "1.2ms"),
            (short_micros(250_000), "250ms"),
            (short_micros(12_000_000), "12s"),
        ] {
            assert_eq!(shown, expected);
            assert!(shown.chars().count() <= 6, "{shown}");
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_tenant_within_a_hundred_columns() {
        let tenant = json!({
            "name": "a-tenant-with-a-long-name",
            "ladder": { "step": "deadLettering", "cause": "3 messages were given up", "since": "then" },
            "perSecond": { "cpuMilli": 1_500, "fuel": 3_000_000_000_u64 },
            "memory": { "total": 999_999_999_999_u64 },
            "latency": { "p99Micros": 123_456_789 },
            "dataflows": [
                { "counters": { "received": 123_456_789, "delivered": 5 }, "waitingDeliveries": 3 },
                { "counters": { "received": 1, "delivered": 5 }, "waitingDeliveries": 4 },
            ],
        });
        let status = json!({ "tenants": [tenant], "totals": { "tenants": 3 } });
        let lines = table(&status);
        assert_eq!(lines.len(), 2);
        let words: Vec<_> = lines[1].split_whitespace().collect();
        let expected = [
            "a-tenant-with-…",
            "123M",
            "10",
            "0",
            "0",
            "0",
            "7",
            "1500m",
            "3000M",
            "931Gi",
            "123s",
            "deadLetter…",
        ];
        assert_eq!(words, expected);
        assert!(lines.iter().all(|line| line.chars().count() <= 100), "{lines:?}");
        let text = text(&status, false);
        assert!(text.contains("\nand 2 more; --all shows them\n"), "{text}");
        assert!(text.contains("deadLettering since then: 3 messages"), "{text}");
    }
}
