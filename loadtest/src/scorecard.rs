//! What a run came to, in the form that is kept as JSON: its keys are stable. Table and
//! page are made of nothing else.

mod checks;
pub mod table;

use serde::{Deserialize, Serialize};

use crate::{ledger::Tally, timeline::Bucket};

/// Counts up when a key changes its meaning or goes.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scorecard {
    pub schema: u32,
    pub version: String,
    pub scenario: ScenarioSummary,
    /// RFC 3339.
    pub started_at: String,
    pub seconds: f64,
    /// Stopped before its end: what is here ran.
    pub interrupted: bool,
    pub setup: Setup,
    pub rows: Vec<Row>,
    /// All rows together.
    pub overall: Pair,
    /// One to each tenant before anything is measured.
    pub first_messages: Option<Figures>,
    /// Messages that nobody sent, or that came where they were not meant to.
    pub unexpected: u64,
    pub memory: Option<Memory>,
    pub timeline: TimelineRecord,
    pub checks: Vec<Check>,
    /// Every check holds.
    pub holds: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScenarioSummary {
    pub name: String,
    pub about: String,
    pub seed: u64,
    pub phase_seconds: f64,
    pub tenants: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setup {
    /// What the host's binary calls itself; None if the host was there before.
    pub host: Option<String>,
    pub broker: String,
    pub cpu: String,
    pub host_cores: Vec<usize>,
    pub other_cores: Vec<usize>,
}

/// Without and with what happens beside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pair {
    pub alone: Option<Figures>,
    pub beside: Option<Figures>,
}

/// One attack, one step, or the whole of a plain load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Row {
    pub name: String,
    /// What the attacker gets, or what happens beside.
    pub about: String,
    /// Of an attack: whether the host can take the core from it at any moment.
    pub interruptible: bool,
    pub quiet: Pair,
    /// p99 beside ÷ p99 alone.
    pub ratio: Option<f64>,
    pub memory: Option<Memory>,
    pub beside: Option<BesideRecord>,
    /// What went wrong with the row itself: it proves nothing then.
    pub failure: Option<String>,
}

/// What happened beside: how much of it, and what the host says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BesideRecord {
    /// Messages sent to attackers.
    pub sent: u64,
    /// Messages that the host took from them, and errors and faults of their operators, as
    /// it says.
    pub taken: u64,
    pub errors: u64,
    /// Deploys, kills or restarts; of deploys, those that the host refused.
    pub times: u64,
    pub refused: u64,
    /// The longest of them, in seconds.
    pub longest_seconds: f64,
    /// The first refusal, in the host's words.
    pub said: Option<String>,
}

impl BesideRecord {
    /// Takes in another round's. What the host counts is of the tenants of that round.
    pub fn add(&mut self, other: BesideRecord) {
        let BesideRecord { sent, taken, errors, times, refused, longest_seconds, said } = other;
        self.sent += sent;
        self.taken += taken;
        self.errors += errors;
        self.times += times;
        self.refused += refused;
        self.longest_seconds = self.longest_seconds.max(longest_seconds);
        self.said = self.said.take().or(said);
    }
}

/// Of the host and what it starts, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Memory {
    pub before_bytes: u64,
    pub peak_bytes: u64,
    pub after_bytes: u64,
}

/// What became of the quiet tenants' messages. Of several rounds: sums, the longest, and
/// the medians of the percentiles; the curve is that of all messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Figures {
    /// From the first message due to the last that came.
    pub seconds: f64,
    pub sent: u64,
    pub came: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    /// Messages that came, a second.
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// The host's share of a core, while it lasted.
    pub cpu: Option<f64>,
    /// Percentile and latency in ms, more densely towards the end.
    pub curve: Vec<(f64, f64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimelineRecord {
    pub width_seconds: u64,
    pub buckets: Vec<Bucket>,
    pub marks: Vec<Mark>,
}

/// Where a phase begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mark {
    pub second: f64,
    pub label: String,
}

/// A threshold and whether it was kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// The threshold's key in a scenario.
    pub name: String,
    /// Of which row; None for the run as a whole.
    pub row: Option<String>,
    pub value: f64,
    pub bound: f64,
    pub unit: String,
    pub holds: bool,
}

/// What of a histogram is kept as a curve, in per cent.
const PERCENTILES: [f64; 18] = [
    0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 99.995,
    99.999, 100.0,
];

impl Figures {
    /// Of latencies in ms, ascending, that `seconds` of messages had, all of which came.
    pub fn of_latencies(ms: &[f64], seconds: f64) -> Self {
        let at = |percentile: f64| {
            let place = (ms.len().saturating_sub(1)) as f64 * percentile / 100.0;
            ms.get(place as usize).copied().unwrap_or_default()
        };
        let came = ms.len() as u64;
        Figures {
            seconds: rounded(seconds),
            sent: came,
            came,
            lost: 0,
            duplicated: 0,
            out_of_order: 0,
            per_second: came as f64 / seconds.max(1e-3),
            p50_ms: at(50.0),
            p99_ms: at(99.0),
            p999_ms: at(99.9),
            max_ms: at(100.0),
            cpu: None,
            curve: PERCENTILES.map(|percentile| (percentile, at(percentile))).into(),
        }
    }

    /// Of one round or more, each with the host's share of a core.
    pub fn of(rounds: &[(Tally, Option<f64>)]) -> Option<Self> {
        let (first, rest) = rounds.split_first()?;
        let mut all = first.0.clone();
        rest.iter().for_each(|(tally, _)| all.add(tally));
        let median = |of: &dyn Fn(&Tally) -> f64| median(rounds.iter().map(|(tally, _)| of(tally)).collect());
        let percentile = |quantile: f64| {
            median(&|tally: &Tally| tally.latency_us.value_at_quantile(quantile) as f64 / 1e3)
        };
        let cpu: Vec<f64> = rounds.iter().filter_map(|(_, cpu)| *cpu).collect();
        let ms = |quantile: f64| all.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        Some(Figures {
            seconds: rounded(rounds.iter().map(|(tally, _)| tally.seconds()).sum()),
            sent: all.sent,
            came: all.came,
            lost: all.lost(),
            duplicated: all.duplicated,
            out_of_order: all.out_of_order,
            per_second: median(&|tally: &Tally| tally.came as f64 / tally.seconds().max(1e-3)),
            p50_ms: percentile(0.5),
            p99_ms: percentile(0.99),
            p999_ms: percentile(0.999),
            max_ms: ms(1.0),
            cpu: (!cpu.is_empty()).then(|| self::median(cpu)),
            curve: PERCENTILES.map(|percentile| (percentile, ms(percentile / 100.0))).into(),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    rounded(if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    })
}

/// Figures are kept to three places: more is noise, and no reader should stumble on it.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Row {
    /// Where thresholds look: beside, if something was.
    pub fn measured(&self) -> Option<&Figures> {
        self.quiet.beside.as_ref().or(self.quiet.alone.as_ref())
    }
}

pub use checks::checks;

#[cfg(test)]
pub mod tests;
