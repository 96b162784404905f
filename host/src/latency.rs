//! `Latency`: how long deliveries of one tenant take from ingest to settlement, lately.
//! Written by the tenant's shard once a delivery, with readings of the clock that were
//! made anyway; read by `status`. Reports on the path; knows no clock.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Buckets of each power of two: a reading is at most an eighth too high.
const PARTS: u64 = 8;
const PARTS_BITS: u32 = PARTS.ilog2();
/// Below this, in ns, nothing is told apart.
const UNIT_BITS: u32 = 10;
/// Two minutes, beyond which all is one.
const BUCKETS: usize = 208;

/// A histogram of what was lately, in two halves: one that is filled, and the one before.
#[derive(Debug, Default)]
pub struct Latency {
    /// None before the first delivery: most tenants of a large host are idle.
    halves: OnceLock<Box<[Half; 2]>>,
    filled: AtomicUsize,
}

#[derive(Debug)]
struct Half([AtomicU32; BUCKETS]);

impl Default for Half {
    fn default() -> Self {
        Half([const { AtomicU32::new(0) }; BUCKETS])
    }
}

impl Latency {
    /// By the one thread that settles deliveries of this tenant.
    pub fn record(&self, took: Duration) {
        let halves = self.halves.get_or_init(Box::default);
        let count = &halves[self.filled.load(Ordering::Relaxed)].0[bucket_of(took)];
        // Nobody else adds: no need to lock the line of the cache.
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Forgets the older half and begins another: what is read is of one to two times as
    /// long as there is between two calls.
    pub fn turn(&self) {
        let Some(halves) = self.halves.get() else { return };
        let next = 1 - self.filled.load(Ordering::Relaxed);
        halves[next].0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.filled.store(next, Ordering::Relaxed);
    }

    /// What so many of a hundred deliveries did not pass; `None` where there were none.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let halves = self.halves.get()?;
        let count = |index: usize| -> u64 {
            halves.iter().map(|half| u64::from(half.0[index].load(Ordering::Relaxed))).sum()
        };
        let all: u64 = (0..BUCKETS).map(count).sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let reached = (0..BUCKETS).find(|index| {
            seen += count(*index);
            seen >= rank
        });
        reached.map(end_of)
    }
}

fn bucket_of(took: Duration) -> usize {
    let units = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) >> UNIT_BITS;
    if units < PARTS {
        return units as usize;
    }
    let power = units.ilog2();
    let part = (units >> (power - PARTS_BITS)) & (PARTS - 1);
    let index = u64::from(power - PARTS_BITS + 1) * PARTS + part;
    (index as usize).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn end_of(index: usize) -> Duration {
    let (row, part) = (index as u64 / PARTS, index as u64 % PARTS);
    let units = if row == 0 { part + 1 } else { (PARTS + part + 1) << (row - 1) };
    Duration::from_nanos(units << UNIT_BITS)
}

#[cfg(test)]
mod tests;
