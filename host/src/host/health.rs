//! `HealthLog`: how a dataflow does, in the words of AIO's resources, and since when.
//! Judged from what its shard, its connections and its operators say of it; reports on
//! the path, and says nothing that is not seen here.

use std::{borrow::Cow, time::Duration};

use serde_json::{Value, json};

use super::time;
use crate::{
    clock::{Clock, Instant},
    connector::status::ConnectionState,
    dataflow::plan::{Failure, Health},
};

/// How long a fault, or a message that a sink refused, is news.
const LATELY: Duration = Duration::from_secs(60);

/// What AIO calls the status of a health state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// All of it works.
    Available,
    /// It goes on, and a part of it does not.
    Degraded,
    /// Nothing of it goes on.
    Unavailable,
    /// It begins or ends.
    Unknown,
}

impl HealthStatus {
    fn name(self) -> &'static str {
        match self {
            HealthStatus::Available => "Available",
            HealthStatus::Degraded => "Degraded",
            HealthStatus::Unavailable => "Unavailable",
            HealthStatus::Unknown => "Unknown",
        }
    }
}

/// Those of AIO's reasons that can be seen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonCode {
    InstantiationFailed,
    ConfigurationFailed,
    ProcessingFailed,
    SourceChannelClosed,
    SinkChannelClosed,
    OutputSendFailed,
    ModuleRuntimeFault,
}

impl ReasonCode {
    fn name(self) -> &'static str {
        match self {
            ReasonCode::InstantiationFailed => "DataflowGraphInstantiationFailed",
            ReasonCode::ConfigurationFailed => "DataflowGraphConfigurationFailed",
            ReasonCode::ProcessingFailed => "DataflowGraphProcessingFailed",
            ReasonCode::SourceChannelClosed => "DataflowGraphSourceChannelClosed",
            ReasonCode::SinkChannelClosed => "DataflowGraphSinkChannelClosed",
            ReasonCode::OutputSendFailed => "DataflowGraphOutputSendFailed",
            ReasonCode::ModuleRuntimeFault => "DataflowGraphModuleRuntimeFault",
        }
    }
}

impl From<Failure> for ReasonCode {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Instantiation => ReasonCode::InstantiationFailed,
            Failure::Configuration => ReasonCode::ConfigurationFailed,
            Failure::Panic => ReasonCode::ProcessingFailed,
        }
    }
}

/// What is seen of a dataflow at one moment.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub health: Health,
    pub sources: Vec<End<'a>>,
    pub sinks: Vec<End<'a>>,
    /// Calls of its operators that ended in a fault, ever.
    pub faults: u64,
    /// Messages that its sinks refused for good, ever.
    pub rejected: u64,
}

/// A connection of a dataflow.
#[derive(Clone, Debug)]
pub struct End<'a> {
    pub name: &'a str,
    /// Nothing where there is no connection to lose.
    pub state: Option<ConnectionState>,
}

impl End<'_> {
    /// What is said of a connection that is not there.
    fn away(&self) -> Option<String> {
        match &self.state {
            Some(ConnectionState::Degraded { error, .. }) => Some(format!("`{}`: {error}", self.name)),
            Some(ConnectionState::Closed) => Some(format!("`{}` is closed", self.name)),
            Some(ConnectionState::Connecting | ConnectionState::Connected) | None => None,
        }
    }

    fn is_connecting(&self) -> bool {
        self.state == Some(ConnectionState::Connecting)
    }
}

/// What a moment's facts come to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Judgement {
    status: HealthStatus,
    reason: Option<ReasonCode>,
    message: Cow<'static, str>,
}

impl Judgement {
    const AVAILABLE: Judgement =
        Judgement { status: HealthStatus::Available, reason: None, message: Cow::Borrowed("") };

    fn of(status: HealthStatus, reason: ReasonCode, message: String) -> Self {
        Judgement { status, reason: Some(reason), message: message.into() }
    }

    fn unknown(message: &'static str) -> Self {
        Judgement { status: HealthStatus::Unknown, reason: None, message: message.into() }
    }
}

/// What hurts most is said; `faults` and `rejected` are those of lately.
fn judge(facts: &Facts<'_>, faults: u64, rejected: u64) -> Judgement {
    use HealthStatus::{Degraded, Unavailable};
    match &facts.health {
        Health::Failed { failure, cause } => {
            return Judgement::of(Unavailable, (*failure).into(), cause.clone());
        }
        Health::Paused { cause } => {
            return Judgement::of(Degraded, ReasonCode::ModuleRuntimeFault, cause.clone());
        }
        Health::Quarantined { cause } => {
            return Judgement::of(Unavailable, ReasonCode::ModuleRuntimeFault, cause.clone());
        }
        Health::Draining => return Judgement::unknown("it takes nothing more, and ends"),
        Health::Running => {}
    }
    let away = |ends: &[End<'_>]| ends.iter().filter_map(End::away).collect::<Vec<_>>();
    let (sources, sinks) = (away(&facts.sources), away(&facts.sinks));
    if !sources.is_empty() {
        let status = if sources.len() == facts.sources.len() { Unavailable } else { Degraded };
        return Judgement::of(status, ReasonCode::SourceChannelClosed, sources.join("; "));
    }
    if !sinks.is_empty() {
        return Judgement::of(Degraded, ReasonCode::SinkChannelClosed, sinks.join("; "));
    }
    if facts.sources.iter().chain(&facts.sinks).any(End::is_connecting) {
        return Judgement::unknown("its connections are tried for the first time");
    }
    let of_late = |count: u64, what: &str| format!("{what}, with no quiet minute since: {count}");
    if faults > 0 {
        let message = of_late(faults, "calls of its operators that ended in a fault");
        return Judgement::of(Degraded, ReasonCode::ModuleRuntimeFault, message);
    }
    if rejected > 0 {
        let message = of_late(rejected, "messages that its sinks refused for good");
        return Judgement::of(Degraded, ReasonCode::OutputSendFailed, message);
    }
    Judgement::AVAILABLE
}

/// A count that grows, and how much of it is of lately.
#[derive(Debug, Default)]
struct Recent {
    /// Before what is of lately.
    before: u64,
    seen: u64,
    grew: Option<Instant>,
}

impl Recent {
    /// How much has come since it was last quiet for long.
    fn lately(&mut self, count: u64, now: Instant) -> u64 {
        if count > self.seen {
            (self.seen, self.grew) = (count, Some(now));
        }
        if self.grew.is_none_or(|grew| now.since(grew) > LATELY) {
            (self.before, self.grew) = (self.seen, None);
        }
        self.seen - self.before
    }
}

/// What was seen of a dataflow's health.
#[derive(Debug)]
pub struct HealthLog {
    judgement: Judgement,
    faults: Recent,
    rejected: Recent,
    /// On the wall clock: when the status became what it is, and when it was last looked at.
    changed: Duration,
    updated: Duration,
}

impl HealthLog {
    /// For a dataflow that begins now.
    pub fn new(clock: &Clock) -> Self {
        let now = clock.wall();
        HealthLog {
            judgement: Judgement::unknown("nobody has looked yet"),
            faults: Recent::default(),
            rejected: Recent::default(),
            changed: now,
            updated: now,
        }
    }

    /// Takes note of what is seen now.
    pub fn observe(&mut self, facts: &Facts<'_>, clock: &Clock) {
        let now = clock.now();
        let faults = self.faults.lately(facts.faults, now);
        let rejected = self.rejected.lately(facts.rejected, now);
        let judgement = judge(facts, faults, rejected);
        self.updated = clock.wall();
        if judgement.status != self.judgement.status {
            self.changed = self.updated;
        }
        self.judgement = judgement;
    }

    /// As AIO's resources have it.
    pub fn to_json(&self) -> Value {
        let Judgement { status, reason, message } = &self.judgement;
        json!({
            "status": status.name(),
            "reasonCode": reason.map(ReasonCode::name),
            "message": (!message.is_empty()).then_some(message),
            "lastTransitionTime": time(self.changed),
            "lastUpdateTime": time(self.updated),
        })
    }
}

#[cfg(test)]
mod tests;
