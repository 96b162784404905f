//! `Ladder`: on what step a tenant is of what happens to one at its limits, since when, and
//! why. Judged at every look from what has changed since the last one; reports on the path.
//!
//! ```text
//!   running ─► throttled ─► paused ─► dead-lettering ─► quarantine
//!      ▲           │           │            │               │
//!      └───────────┴───────────┴────────────┘               │
//!      │     by itself, once it has been quiet              │
//!      └──────────────── tidegate resume ───────────────────┘
//! ```

use std::time::Duration;

use serde_json::{Value, json};

use super::time;
use crate::clock::Instant;

/// The worst that happens to any of a tenant's dataflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    #[default]
    Running,
    /// Its guests wait for CPU time, fuel or host calls, or its messages at an endpoint.
    Throttled,
    /// A source waits: for credit, or for a circuit to close.
    Paused,
    /// Messages are given up.
    DeadLettering,
    /// A dataflow takes nothing until it is resumed by command.
    Quarantine,
}

impl Step {
    const ALL: [Step; 5] =
        [Step::Running, Step::Throttled, Step::Paused, Step::DeadLettering, Step::Quarantine];

    pub fn name(self) -> &'static str {
        match self {
            Step::Running => "running",
            Step::Throttled => "throttled",
            Step::Paused => "paused",
            Step::DeadLettering => "deadLettering",
            Step::Quarantine => "quarantine",
        }
    }
}

/// So long nothing is seen of a step before it counts as over: what comes and goes from one
/// look to the next is one event.
const QUIET: Duration = Duration::from_secs(5);

/// What is seen of a tenant at one look; counts are of all time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A dataflow that is in quarantine, and one whose circuit is open, with causes.
    pub quarantined: Option<(String, String)>,
    pub open: Option<(String, String)>,
    /// A source waits for credit now.
    pub waits_for_credit: bool,
    pub counts: Counts,
    /// Its guests wait now for what its buckets do not have.
    pub is_throttled: bool,
}

/// Counts of which the ladder looks at what they have grown by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub dead: u64,
    pub throttled_cpu: u64,
    pub throttled_fuel: u64,
    pub throttled_calls: u64,
    pub closed_gates: u64,
}

/// The worst step that the facts show, and why.
fn judge(facts: &Facts, before: &Counts) -> (Step, String) {
    if let Some((dataflow, cause)) = &facts.quarantined {
        return (Step::Quarantine, format!("{dataflow}: {cause}"));
    }
    let dead = facts.counts.dead.saturating_sub(before.dead);
    if dead > 0 {
        let cause = match dead {
            1 => "a message was given up".to_owned(),
            more => format!("{more} messages were given up"),
        };
        return (Step::DeadLettering, cause);
    }
    if let Some((dataflow, cause)) = &facts.open {
        return (Step::Paused, format!("{dataflow}: {cause}"));
    }
    if facts.waits_for_credit {
        return (Step::Paused, "all its credit is in flight (`inflight`)".to_owned());
    }
    let grown = |count: fn(&Counts) -> u64| count(&facts.counts) > count(before);
    let causes = [
        ("CPU time (`cpu.rate`)", grown(|it| it.throttled_cpu)),
        ("fuel (`fuel.rate`)", grown(|it| it.throttled_fuel)),
        ("host calls (`calls`)", grown(|it| it.throttled_calls)),
        ("messages or bytes a second (`endpoints`)", grown(|it| it.closed_gates)),
    ];
    let used_up: Vec<_> = causes.iter().filter(|(_, is)| *is).map(|(what, _)| *what).collect();
    if !used_up.is_empty() {
        return (Step::Throttled, format!("it has used up its {}", used_up.join(", ")));
    }
    if facts.is_throttled {
        return (Step::Throttled, String::new());
    }
    (Step::Running, String::new())
}

/// What was seen of a tenant.
#[derive(Debug, Default)]
pub struct Ladder {
    step: Step,
    cause: String,
    /// On the wall clock.
    since: Duration,
    /// When the step was seen last.
    seen: Instant,
    counts: Counts,
    /// How often each step was come to.
    entered: [u64; Step::ALL.len()],
}

impl Ladder {
    /// For a tenant that begins now.
    pub fn new(wall: Duration) -> Self {
        Ladder { since: wall, ..Ladder::default() }
    }

    pub fn step(&self) -> Step {
        self.step
    }

    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Takes note of what is seen now. True if the step is another.
    pub fn observe(&mut self, facts: &Facts, now: Instant, wall: Duration) -> bool {
        let (step, cause) = judge(facts, &self.counts);
        self.counts = facts.counts;
        if step >= self.step {
            self.seen = now;
        }
        if step == self.step {
            // One that waits on says no more than at first why.
            if !cause.is_empty() {
                self.cause = cause;
            }
            return false;
        }
        // What is said outright to be over is over.
        let is_held = matches!(self.step, Step::Throttled | Step::Paused | Step::DeadLettering);
        if step < self.step && is_held && now.since(self.seen) < QUIET {
            return false;
        }
        (self.step, self.cause, self.since) = (step, cause, wall);
        self.seen = now;
        self.entered[step as usize] += 1;
        true
    }

    pub fn to_json(&self) -> Value {
        let entered = Step::ALL.iter().zip(self.entered).skip(1);
        let entered: serde_json::Map<_, _> =
            entered.map(|(step, times)| (step.name().to_owned(), times.into())).collect();
        json!({
            "step": self.step.name(), "cause": (!self.cause.is_empty()).then_some(&self.cause),
            "since": time(self.since), "entered": entered,
        })
    }
}

#[cfg(test)]
mod tests;
