//! `Description`: what only its shard knows of a dataflow, for whoever asks why nothing
//! comes out of it. Facts at one moment; what they come to is said elsewhere.

use std::time::Duration;

use crate::{
    bucket::Level,
    clock::Instant,
    dataflow::circuit::State,
    dead_letter::{DeadLetter, Reason},
};

/// A dataflow as it is on its shard.
#[derive(Clone, Debug)]
pub struct Description {
    pub now: Instant,
    /// When it took its last delivery, and when it last gave something to its sinks.
    pub last_in: Option<Instant>,
    pub last_written: Option<Instant>,
    /// Deliveries that wait for its guests.
    pub waiting: usize,
    /// Deliveries that are taken and not settled.
    pub unsettled: usize,
    pub holding: Option<Holding>,
    pub circuit: State,
    /// Names of its windows, and logical times that are open over all of them.
    pub windows: Vec<String>,
    pub windows_open: usize,
    pub last_letter: Option<LastLetter>,
    /// Of its tenant.
    pub levels: Vec<Level>,
    /// Its tenant waits for one of them.
    pub is_throttled: bool,
}

/// The delivery behind which all others wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its number since the dataflow was installed.
    pub sequence: u64,
    /// When it came; unknown for what a window released.
    pub since: Option<Instant>,
    pub at: At,
}

/// Where a delivery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Before the first operator, until a sink has room.
    Room,
    /// In an operator, by name.
    Operator(String),
    /// Written, or on its way to the dead letters, and not confirmed.
    Confirmation,
    /// Through, and kept open by windows alone.
    Windows,
}

/// How far a dataflow was when it was last scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The first sequence that is not finished, and the next that is given.
    pub unfinished: u64,
    pub next: u64,
    /// The lane of the region in which the first that is not finished is, if it is in one.
    pub lane: Option<usize>,
}

/// Where a lane of the region is with the delivery that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Room,
    Step(usize),
}

/// The message that was given up last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLetter {
    /// Since the Unix epoch.
    pub at: Duration,
    pub operation: Option<String>,
    pub reason: Reason,
    pub detail: String,
}

impl From<&DeadLetter> for LastLetter {
    fn from(letter: &DeadLetter) -> Self {
        let DeadLetter { at, operation, reason, detail, .. } = letter;
        LastLetter { at: *at, operation: operation.clone(), reason: *reason, detail: detail.clone() }
    }
}
