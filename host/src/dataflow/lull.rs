//! `Lull`: whether a shard's thread that has nothing to do sleeps a little before it
//! asks its sockets again, so that the messages that come meanwhile share one wake-up,
//! as a network card gathers interrupts. At some thousand messages a second waking up
//! for each costs more than all that is done with it. Decisions only: facts in, a
//! length of sleep out.
//!
//! ```text
//!           woken often                      as many messages, several a wake-up
//!   Watch ──────────────► Try ────────────────────────────► Keep ──┐
//!     ▲ ▲                  │ fewer messages than without          │ after a while
//!     │ └── after a while ─┴─► Leave: each time for longer        │ measure again
//!     └───────────────────────────────────────────────────────────┘
//! ```

use std::{cell::RefCell, thread, time::Duration};

use crate::clock::{Clock, Instant};

/// Length of one sleep: what a message waits at most, and half of it on average.
const LULL: Duration = Duration::from_micros(250);
/// Parks in one measurement: enough that chance moves its rate by less than 10 %.
const PARKS: u32 = 256;
/// Shorter than this between two parks, and sleeping may pay.
const CYCLE_MAX: Duration = Duration::from_micros(200);
/// Below this share of the messages that came without it, somebody waits for us
/// before he sends more, and a sleep only makes him slower.
const RATE_MIN: f64 = 0.85;
/// Messages that must share a wake-up.
const MESSAGES_MIN: f64 = 1.5;
/// Measurements for which a decision stands; where sleeping was of no use again and again,
/// up to so many.
const STANDS_FOR: u32 = 16;
const STANDS_FOR_MAX: u32 = 512;
/// After so many parks it is clear whether sleeping makes everything far slower: then whoever
/// waits for us does not wait for the end of the measurement.
const GLANCE: u32 = 32;
const FAR_SLOWER: f64 = 0.65;
/// Rates as far apart are of another load.
const ALIKE: f64 = 1.5;

#[derive(Debug)]
pub struct Lull {
    phase: Phase,
    /// Parks of this measurement so far.
    parks: u32,
    began: Option<Instant>,
    /// Messages when it began.
    messages: u64,
    /// For how many measurements the next decision not to sleep stands.
    stands: u32,
}

impl Default for Lull {
    fn default() -> Self {
        Lull { phase: Phase::default(), parks: 0, began: None, messages: 0, stands: STANDS_FOR }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    /// Measures without sleeping.
    #[default]
    Watch,
    /// Measures with it, against the messages a second seen without.
    Try { rate: f64 },
    /// It pays.
    Keep { rate: f64, left: u32 },
    /// It does not, at this rate.
    Leave { rate: f64, left: u32 },
}

impl Lull {
    /// The thread is about to wait for events, having taken `messages` since it began.
    /// How long it should sleep first.
    pub fn park(&mut self, now: Instant, messages: u64) -> Option<Duration> {
        self.parks += 1;
        if self.parks > PARKS || self.began.is_none() || self.is_far_slower(now, messages) {
            if let Some(began) = self.began {
                self.measured(now.since(began), messages - self.messages);
            }
            (self.parks, self.began, self.messages) = (1, Some(now), messages);
        }
        matches!(self.phase, Phase::Try { .. } | Phase::Keep { .. }).then_some(LULL)
    }

    fn is_far_slower(&self, now: Instant, messages: u64) -> bool {
        let (Phase::Try { rate }, Some(began), true) = (self.phase, self.began, self.parks > GLANCE) else {
            return false;
        };
        let seconds = now.since(began).as_secs_f64().max(1e-9);
        ((messages - self.messages) as f64 / seconds) < FAR_SLOWER * rate
    }

    fn measured(&mut self, elapsed: Duration, messages: u64) {
        let rate = messages as f64 / elapsed.as_secs_f64().max(1e-9);
        let pays =
            |before: f64| messages as f64 >= MESSAGES_MIN * f64::from(PARKS) && rate >= RATE_MIN * before;
        self.phase = match self.phase {
            Phase::Watch if elapsed < CYCLE_MAX * PARKS => Phase::Try { rate },
            Phase::Watch => Phase::Watch,
            Phase::Try { rate } if pays(rate) => {
                self.stands = STANDS_FOR;
                Phase::Keep { rate, left: STANDS_FOR }
            }
            Phase::Keep { rate, left } if left > 0 && pays(rate) => Phase::Keep { rate, left: left - 1 },
            // What was measured without it is old.
            Phase::Keep { .. } => Phase::Watch,
            Phase::Try { rate } => {
                let left = self.stands;
                self.stands = (2 * left).min(STANDS_FOR_MAX);
                Phase::Leave { rate, left }
            }
            Phase::Leave { rate: before, .. } if rate > ALIKE * before || before > ALIKE * rate => {
                self.stands = STANDS_FOR;
                Phase::Watch
            }
            Phase::Leave { left: 0, .. } => Phase::Watch,
            Phase::Leave { rate, left } => Phase::Leave { rate, left: left - 1 },
        };
    }
}

thread_local! {
    static THREAD: RefCell<(Lull, u64)> = RefCell::default();
}

/// Counts messages that the calling thread's shard took.
pub fn count(messages: usize) {
    THREAD.with_borrow_mut(|(_, taken)| *taken += messages as u64);
}

/// Called by a shard's thread when it is about to wait for events.
pub fn park() {
    let now = Clock::System.now();
    if let Some(length) = THREAD.with_borrow_mut(|(lull, taken)| lull.park(now, *taken)) {
        thread::sleep(length);
    }
}

#[cfg(test)]
mod tests;
