//! `Circuit`: whether a dataflow whose guests fail may go on. Faults in a row open it,
//! and the dataflow pauses; after a while one delivery probes. Too many faults within a
//! time put the dataflow in quarantine, until somebody lets it go on. Decisions only:
//! facts in, verdict out.
//!
//! ```text
//!            faults in a row           cool-down over
//!   Closed ──────────────────► Open ────────────────► Probing
//!     ▲ ▲                        ▲                     │  │
//!     │ └──── no fault ──────────┼─────────────────────┘  │
//!     │                          └──────── a fault ───────┘
//!     └── resume ── Quarantined ◄── too many faults within a time, from anywhere
//! ```

use std::{collections::VecDeque, time::Duration};

use crate::{clock::Instant, resource::Limits};

/// Deliveries in a row that have a fault, at which the circuit opens: one bad message
/// has its dead letter, and is no reason to stop.
const FAULTY_IN_A_ROW: u32 = 3;

/// Messages that earn one retry, and the most retries that are saved up: guests that
/// fail all the time cost their tenant a tenth more, not three times as much.
const MESSAGES_PER_RETRY: u32 = 10;
const RETRIES_SAVED_MAX: u32 = 20;

/// When a circuit opens and when a dataflow is given up, from its tenant's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitLimits {
    pub cool_down: Duration,
    /// So many faults within the time are too many.
    pub quarantine_after: u32,
    pub within: Duration,
}

impl CircuitLimits {
    pub fn of(limits: &Limits) -> Self {
        CircuitLimits {
            cool_down: limits.fault_cool_down,
            quarantine_after: limits.quarantine_after,
            within: limits.quarantine_within,
        }
    }
}

/// What the guests of a dataflow made of one delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub messages: u32,
    /// Messages that were given up because a guest failed.
    pub faults: u32,
}

/// Whether the next delivery may go to the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Pass,
    /// Not before this instant.
    Wait(Instant),
    /// Not before somebody says so.
    Shut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open { until: Instant },
    Probing,
    Quarantined,
}

#[derive(Debug)]
pub struct Circuit {
    limits: CircuitLimits,
    state: State,
    /// When the last faults were, as many as may matter.
    faults: VecDeque<Instant>,
    faulty_in_a_row: u32,
    retries_left: u32,
    /// Towards the next retry.
    messages: u32,
}

impl Circuit {
    pub fn new(limits: CircuitLimits, is_quarantined: bool) -> Self {
        let state = if is_quarantined { State::Quarantined } else { State::Closed };
        let retries_left = RETRIES_SAVED_MAX;
        Circuit { limits, state, faults: VecDeque::new(), faulty_in_a_row: 0, retries_left, messages: 0 }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Asked before each delivery; one that passes is a probe if the circuit was open.
    pub fn gate(&mut self, now: Instant) -> Gate {
        match self.state {
            State::Closed | State::Probing => Gate::Pass,
            State::Open { until } if now < until => Gate::Wait(until),
            State::Open { .. } => {
                self.state = State::Probing;
                Gate::Pass
            }
            State::Quarantined => Gate::Shut,
        }
    }

    /// Takes account of a delivery that is through the guests. True if the state changed.
    pub fn passed(&mut self, outcome: Outcome, now: Instant) -> bool {
        let before = self.state;
        self.earn(outcome.messages);
        if outcome.faults == 0 {
            self.faulty_in_a_row = 0;
            if self.state == State::Probing {
                self.state = State::Closed;
            }
            return self.state != before;
        }
        self.faulty_in_a_row += 1;
        if self.has_too_many(outcome.faults, now) {
            self.state = State::Quarantined;
        } else if self.limits.cool_down.is_zero() {
            // Nothing to wait for: no pause.
            self.state = State::Closed;
        } else if before == State::Probing || self.faulty_in_a_row >= FAULTY_IN_A_ROW {
            self.faulty_in_a_row = 0;
            self.state = State::Open { until: now.plus(self.limits.cool_down) };
        }
        self.state != before
    }

    /// Whether a message that failed may be tried again; spends a retry.
    pub fn may_retry(&mut self) -> bool {
        let may = self.retries_left > 0;
        self.retries_left = self.retries_left.saturating_sub(1);
        may
    }

    /// Lets a dataflow in quarantine, or paused, go on as if nothing had been. False if it
    /// was neither.
    pub fn resume(&mut self) -> bool {
        let was_held = self.state != State::Closed;
        *self = Circuit::new(self.limits, false);
        was_held
    }

    fn earn(&mut self, messages: u32) {
        self.messages += messages;
        let earned = self.messages / MESSAGES_PER_RETRY;
        self.messages %= MESSAGES_PER_RETRY;
        self.retries_left = (self.retries_left + earned).min(RETRIES_SAVED_MAX);
    }

    fn has_too_many(&mut self, faults: u32, now: Instant) -> bool {
        let CircuitLimits { quarantine_after, within, .. } = self.limits;
        let kept = quarantine_after as usize;
        self.faults.extend((0..faults).map(|_| now).take(kept));
        while self.faults.front().is_some_and(|at| now.since(*at) > within) || self.faults.len() > kept {
            self.faults.pop_front();
        }
        self.faults.len() >= kept
    }
}

#[cfg(test)]
mod tests;
