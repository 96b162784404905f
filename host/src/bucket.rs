//! `Bucket`: a right that time fills and use spends, such as CPU time, fuel, messages or
//! bytes a second. What is spent before it is there is owed, so that over any time no
//! more is spent than was filled, but for the last use. Serves the run queue and the
//! doors of connectors; knows no clock.

use std::{borrow::Cow, time::Duration};

use crate::clock::Instant;

const NS_PER_SECOND: u128 = 1_000_000_000;

/// A token bucket, in whole units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Units a second.
    rate: u64,
    /// The most that it holds, in units.
    burst: i64,
    /// The most that may be owed, in units.
    debt_max: i64,
    /// Below zero where more was spent than was there.
    level: i64,
    filled_at: Instant,
    /// What time has filled beyond whole units, in units × ns.
    rest: u64,
}

impl Bucket {
    /// A full one. `rate` in units a second, `burst` in units, at least one.
    pub fn new(rate: u64, burst: u64, now: Instant) -> Self {
        let burst = i64::try_from(burst.max(1)).unwrap_or(i64::MAX);
        Bucket { rate, burst, debt_max: i64::MAX, level: burst, filled_at: now, rest: 0 }
    }

    /// Never owes more than its burst: what is spent beyond is forgiven.
    pub fn forgiving(self) -> Self {
        Bucket { debt_max: self.burst, ..self }
    }

    /// Adds what the time since the last call has filled.
    pub fn fill(&mut self, now: Instant) {
        let elapsed_ns = now.since(self.filled_at).as_nanos();
        if elapsed_ns == 0 {
            return;
        }
        self.filled_at = now;
        let filled = elapsed_ns * u128::from(self.rate) + u128::from(self.rest);
        let units = i64::try_from(filled / NS_PER_SECOND).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(units).min(self.burst);
        self.rest = if self.level == self.burst { 0 } else { (filled % NS_PER_SECOND) as u64 };
    }

    pub fn spend(&mut self, units: u64) {
        let units = i64::try_from(units).unwrap_or(i64::MAX);
        self.level = self.level.saturating_sub(units).max(-self.debt_max);
    }

    /// Whether there is any left, as of the last [`Self::fill`].
    pub fn is_open(&self) -> bool {
        self.level > 0
    }

    /// When there is one unit at least, if nothing more is spent.
    pub fn opens_at(&self) -> Instant {
        if self.is_open() {
            return self.filled_at;
        }
        if self.rate == 0 {
            return Instant(u64::MAX);
        }
        let missing = (1 - i128::from(self.level)) as u128 * NS_PER_SECOND - u128::from(self.rest);
        let ns = u64::try_from(missing.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX);
        Instant(self.filled_at.0.saturating_add(ns))
    }

    /// Units that are there, or owed where below zero.
    pub fn level(&self) -> i64 {
        self.level
    }

    /// Units a second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    pub fn burst(&self) -> i64 {
        self.burst
    }
}

/// What is left in one of a tenant's buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    pub of: LevelOf,
    /// Of host calls, which; of what passes an endpoint, whose name.
    pub name: Cow<'static, str>,
    /// In ns of CPU time, units of fuel, calls, messages or bytes; owed where below zero.
    pub level: i64,
    pub burst: i64,
    /// A second.
    pub rate: u64,
    /// When there will be some again, if there is none.
    pub opens_in: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelOf {
    /// Without a cap it is a right before others, and no limit.
    Cpu {
        cap: bool,
    },
    Fuel,
    Calls,
    /// What is taken in or given out at an endpoint.
    Passing(Passing),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    MessagesIn,
    BytesIn,
    MessagesOut,
    BytesOut,
}

impl Level {
    /// Of a bucket that was filled at `now`.
    pub fn new(of: LevelOf, name: impl Into<Cow<'static, str>>, bucket: &Bucket, now: Instant) -> Self {
        Level {
            of,
            name: name.into(),
            level: bucket.level(),
            burst: bucket.burst(),
            rate: bucket.rate(),
            opens_in: (!bucket.is_open()).then(|| bucket.opens_at().since(now)),
        }
    }
}

#[cfg(test)]
mod tests;
