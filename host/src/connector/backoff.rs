//! `Backoff`: how long to wait between attempts. Has its own random numbers and no clock.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// Waits twice as long each time, with jitter, so that a thousand clients of a server that
/// restarts do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
    rng: SmallRng,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Backoff::seeded(first, longest, rand::random())
    }

    /// With the same waits for the same seed.
    pub(super) fn seeded(first: Duration, longest: Duration, seed: u64) -> Self {
        Backoff { first, longest, attempts: 0, rng: SmallRng::seed_from_u64(seed) }
    }

    /// Between half and all of the doubled wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        wait.mul_f64(self.rng.random_range(0.5..=1.0))
    }

    /// Whether no attempt has failed since the last that went well.
    pub(super) fn is_fresh(&self) -> bool {
        self.attempts == 0
    }

    /// An attempt went well.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests;
