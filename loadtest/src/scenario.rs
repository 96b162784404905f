//! What a run is to do, as a file says it: read strictly, with the place of every
//! mistake. Nothing runs with an error in its scenario.

mod read;

pub use read::{template, texts};

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    connector::Connector,
    diagnostic::{Problems, SourceFile},
    payload::Payloads,
    schedule::Shape,
    spread::Spread,
};

/// A scenario that can be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub seed: u64,
    /// What messages come in and go out by.
    pub connector: Connector,
    /// Length of each measured phase.
    pub phase: Duration,
    /// How often each phase is measured; medians are compared.
    pub rounds: usize,
    /// How long the last message may take once a phase is over.
    pub patience: Duration,
    pub tenants: Tenants,
    pub spread: Spread,
    /// What the dataflow of each quiet tenant does, in a row.
    pub operators: Vec<Operator>,
    pub arrivals: Shape,
    pub payloads: Payloads,
    /// Where a message carries its id.
    pub id: IdIn,
    pub topics: Topics,
    pub host: Host,
    pub beside: Option<Beside>,
    pub thresholds: Thresholds,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Tenants {
    Named(Vec<String>),
    /// One phase for each number of tenants.
    Steps(Vec<usize>),
}

impl Tenants {
    /// The names of all that there ever are.
    pub fn names(&self) -> Vec<String> {
        match self {
            Tenants::Named(names) => names.clone(),
            Tenants::Steps(steps) => quiet_names(steps.iter().copied().max().unwrap_or(0)),
        }
    }
}

pub fn quiet_names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("quiet-{index}")).collect()
}

#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// A component's file among the guests, without `.wasm`.
    pub guest: String,
    pub kind: String,
    pub configuration: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdIn {
    Payload,
    /// The user property `loadtest-id`.
    Property,
}

/// With `{tenant}` in them. Of HTTP, the input is a path below that of the tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Topics {
    pub input: String,
    pub output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    pub shards: u64,
    pub broker: BrokerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    /// Of MQTT: mosquitto if there is one, the host's own otherwise.
    Any,
    Mosquitto,
    Embedded,
}

/// What goes on beside the quiet tenants in the second phase.
#[derive(Clone, Debug, PartialEq)]
pub enum Beside {
    /// Each attack in turn, by so many tenants; those named, or all but variants of others.
    Attacks { attackers: usize, only: Vec<String> },
    /// So many tenants are deployed and removed, over and over.
    Deploys { tenants: usize },
    /// The host is killed and started again.
    KillHost { every: Duration },
    /// The broker is stopped and started again.
    RestartBroker { every: Duration },
}

/// What a run must keep. What is not said is not asked, but for loss, order and what
/// nobody sent, which are 0 unless a scenario says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    pub p99: Option<Duration>,
    /// p99 beside is at most `ratio` times p99 alone, and `slack` on top.
    pub ratio: Option<f64>,
    pub slack: Duration,
    /// More slack beside attacks that cannot be interrupted.
    pub uninterruptible: Duration,
    pub lost: u64,
    /// None for any number.
    pub duplicates: Option<u64>,
    pub out_of_order: Option<u64>,
    /// How much more memory the host has in the end, in per cent.
    pub memory_growth: Option<f64>,
}

impl Scenario {
    /// Reads a file's text. Data files are sought beside it.
    pub fn parse(file: &Arc<SourceFile>, folder: Option<&Path>) -> Result<Self, Problems> {
        read::scenario(file, folder)
    }

    /// The same by another connector: `--connector`.
    pub fn with_connector(mut self, connector: Connector) -> Result<Self, String> {
        if self.topics == self.connector.topics() {
            self.topics = connector.topics();
        }
        self.connector = connector;
        self.host.broker = BrokerKind::Any;
        if !connector.is_in_order() {
            self.thresholds.out_of_order = None;
        }
        let unfit = unfit(connector, Some(&self.tenants), Some(&self.topics), self.beside.as_ref());
        match unfit.into_iter().next() {
            Some(Unfit { key, why, help }) => Err(format!(
                "`{}` cannot be run over {}: `{key}`: {why}; {help}",
                self.name,
                connector.name()
            )),
            None => Ok(self),
        }
    }

    /// The same with other phases: `--seconds`.
    pub fn with_phase(mut self, phase: Duration) -> Result<Self, String> {
        if let Some(Beside::KillHost { every } | Beside::RestartBroker { every }) = &mut self.beside {
            // Shortened, it should still happen.
            *every = (*every).min(phase / 2);
        }
        if phase < Duration::from_secs(1) {
            return Err("a phase takes at least a second".into());
        }
        self.phase = phase;
        Ok(self)
    }
}

/// What a connector cannot do of a scenario.
struct Unfit {
    key: &'static str,
    why: String,
    help: &'static str,
}

/// Each tenant over Kafka has a client of its own in the host, and two topics.
const KAFKA_TENANTS_MAX: usize = 500;
/// What Kafka takes in the name of a topic beside letters and digits.
const KAFKA_NAME: [char; 3] = ['.', '_', '-'];

fn unfit(
    connector: Connector,
    tenants: Option<&Tenants>,
    topics: Option<&Topics>,
    beside: Option<&Beside>,
) -> Vec<Unfit> {
    let mut all = Vec::new();
    let mut add = |key, why: String, help| all.push(Unfit { key, why, help });
    if connector != Connector::Mqtt && matches!(beside, Some(Beside::Attacks { .. })) {
        add("beside", "attackers are sent their messages over MQTT".into(), "leave `connector` out");
    }
    if connector == Connector::Http && matches!(beside, Some(Beside::RestartBroker { .. })) {
        let why = "there is no broker between requests and webhooks";
        add("beside", why.into(), "have another connector, or `what: kill-host`");
    }
    if !connector.is_kafka() {
        return all;
    }
    let most = tenants.map_or(0, |tenants| tenants.names().len());
    if most > KAFKA_TENANTS_MAX {
        let why = format!("{most} tenants are more than {KAFKA_TENANTS_MAX}, each with a client of Kafka");
        add("tenants", why, "have fewer, or another connector");
    }
    for topic in topics.iter().flat_map(|topics| [&topics.input, &topics.output]) {
        let fits = |c: char| c.is_ascii_alphanumeric() || KAFKA_NAME.contains(&c);
        if !topic.replace("{tenant}", "").chars().all(fits) {
            let why = format!("`{topic}` is no topic of Kafka");
            add("topics", why, "letters, digits, `.`, `_` and `-`, such as `{tenant}.in`");
        }
    }
    all
}

/// The scenarios that come with the program: name and text.
pub const SHIPPED: [(&str, &str); 9] = [
    ("smoke", include_str!("../scenarios/smoke.yaml")),
    ("steady", include_str!("../scenarios/steady.yaml")),
    ("burst", include_str!("../scenarios/burst.yaml")),
    ("density", include_str!("../scenarios/density.yaml")),
    ("noisy-neighbour", include_str!("../scenarios/noisy-neighbour.yaml")),
    ("deploy-storm", include_str!("../scenarios/deploy-storm.yaml")),
    ("soak", include_str!("../scenarios/soak.yaml")),
    ("kill-9", include_str!("../scenarios/kill-9.yaml")),
    ("broker-restart", include_str!("../scenarios/broker-restart.yaml")),
];

#[cfg(test)]
mod tests;
