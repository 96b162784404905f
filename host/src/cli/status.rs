//! `tidegate status`: the live state of a running host, once or again and again.

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
use crate::control;

#[derive(Args)]
pub struct StatusArgs {
    /// Only this tenant, with its operators.
    tenant: Option<String>,
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
}

/// Clears the screen from the top left corner on.
const CLEAR: &str = "\x1b[H\x1b[J";

pub fn status(args: StatusArgs, json: bool) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let every = Duration::max(args.every.into(), Duration::from_millis(100));
    let is_live = args.watch && !json && std::io::stdout().is_terminal();
    let mut before: Option<Value> = None;
    loop {
        let (status, answer) = runtime.block_on(ask(&args.data, args.tenant.as_deref()))?;
        if !status.is_success() {
            if json {
                print_json(&answer);
            }
            anyhow::bail!("{}", answer["error"].as_str().unwrap_or("the host refused to answer"));
        }
        let shown = if json {
            format!("{answer}\n")
        } else {
            let rates = before.as_ref().map(|before| (before, every));
            text(&answer, rates, args.tenant.is_some())
        };
        let clear = if is_live { CLEAR } else { "" };
        // A reader that has seen enough closes the pipe.
        let mut stdout = std::io::stdout();
        if write!(stdout, "{clear}{shown}").and_then(|()| stdout.flush()).is_err() || !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        before = Some(answer);
        std::thread::sleep(every);
    }
}

async fn ask(data: &Path, tenant: Option<&str>) -> Result<(StatusCode, Value), control::ControlError> {
    control::ask(data, "/status", json!({ "tenant": tenant })).await
}

/// The whole state for people; with an earlier one also how fast messages come.
fn text(status: &Value, before: Option<(&Value, Duration)>, with_operators: bool) -> String {
    let shards = status["shards"].as_array().map_or(0, Vec::len);
    let instances: u64 = each(&status["shards"]).filter_map(|shard| shard["instances"].as_u64()).sum();
    let mut lines = vec![format!(
        "host {}: {shards} shards, {instances} instances, {} components loaded",
        string(&status["host"]),
        status["componentsLoaded"]
    )];
    if let Some(failure) = status["storeFailure"].as_str() {
        lines.push(format!("the store cannot be written, and is tried again: {failure}"));
    }
    if let Some((before, every)) = before {
        let per_second = |key: &str| {
            let grown = total(status, key).saturating_sub(total(before, key));
            grown as f64 / every.as_secs_f64()
        };
        lines.push(format!("in {:.0}/s, out {:.0}/s", per_second("received"), per_second("delivered")));
    }
    lines.extend(status_lines(status));
    if with_operators {
        lines.extend(each(&status["tenants"]).map(letters_line));
        lines.extend(operator_lines(status));
    }
    lines.join("\n") + "\n"
}

fn total(status: &Value, key: &str) -> u64 {
    let flows = each(&status["tenants"]).flat_map(|tenant| each(&tenant["dataflows"]));
    flows.filter_map(|flow| flow["counters"][key].as_u64()).sum()
}

/// A line for each dataflow of a status document.
pub fn status_lines(status: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for tenant in each(&status["tenants"]) {
        for flow in each(&tenant["dataflows"]) {
            let count = |key: &str| flow["counters"][key].as_u64().unwrap_or(0);
            let name = format!("{}/{}", string(&tenant["name"]), string(&flow["name"]));
            let mut line = format!(
                "{name:<28} {:<8} in {:>8}  out {:>8}  filtered {:>7}  errors {:>5}  dead {:>5}",
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
