//! `Patience`: how long answers may wait for company before a session looks at them,
//! so that they do not cost a wake-up each. Knows only their number and the time.

use std::time::Duration;

use crate::clock::Instant;

/// How long one stall is remembered.
const REMEMBERED: Duration = Duration::from_secs(1);

/// While work keeps coming, its answers can be taken together. When nothing comes
/// while answers wait, perhaps nothing comes because they wait: a window is full.
/// From then on and for a while, as many waiting answers are taken at once.
#[derive(Debug)]
pub(super) struct Patience {
    within: Duration,
    eager_from_max: usize,
    /// From as many waiting answers on, none waits.
    eager_from: usize,
    /// When the last stall is forgotten.
    forget_at: Instant,
    /// When those that wait now have waited long enough.
    due: Option<Instant>,
    is_over: bool,
    has_moved: bool,
}

impl Patience {
    /// Answers wait at most `within`, and never when there are `eager_from_max`.
    pub(super) fn new(within: Duration, eager_from_max: usize) -> Self {
        Patience {
            within,
            eager_from_max,
            eager_from: eager_from_max,
            forget_at: Instant(0),
            due: None,
            is_over: false,
            has_moved: false,
        }
    }

    /// New work came.
    pub(super) fn moved(&mut self) {
        self.has_moved = true;
    }

    /// Answers were taken: the others begin to wait.
    pub(super) fn answered(&mut self) {
        self.due = None;
        self.is_over = false;
    }

    /// Whether to look for answers now, of which `waiting` are due; there are never
    /// more than `limit`.
    pub(super) fn is_over(&mut self, waiting: usize, limit: usize, now: Instant) -> bool {
        if waiting == 0 {
            self.answered();
            return true;
        }
        if self.forget_at <= now {
            self.eager_from = self.eager_from_max;
        }
        let Some(due) = self.due else {
            self.due = Some(now.plus(self.within));
            self.has_moved = false;
            return waiting >= self.eager_from.min(limit);
        };
        if due <= now && !self.is_over {
            self.is_over = true;
            if !self.has_moved {
                self.eager_from = waiting.min(self.eager_from_max);
                self.forget_at = now.plus(REMEMBERED);
            }
        }
        self.is_over || waiting >= self.eager_from.min(limit)
    }

    /// When waiting will be over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.is_over { None } else { self.due }
    }
}

#[cfg(test)]
mod tests;
