//! `Clock`: every reading of time that the path takes, real or virtual. A shard on
//! a virtual clock behaves the same for the same seed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where the time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    System,
    Virtual(Arc<VirtualClock>),
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct VirtualClock {
    ns: AtomicU64,
}

impl VirtualClock {
    /// Where virtual wall clocks begin: 2026-01-01T00:00:00Z, in ns since the epoch.
    const WALL_START_NS: u64 = 1_767_225_600_000_000_000;

    pub fn advance(&self, by: Duration) {
        self.ns.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

/// An instant of a [`Clock`]: ns since some fixed point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The end of time at the latest, and never before this: a guest may name any.
    pub fn plus(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }

    pub fn less(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }

    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Clock {
    /// A monotonic reading.
    pub fn now(&self) -> Instant {
        match self {
            Clock::System => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
            }
            Clock::Virtual(clock) => Instant(clock.ns.load(Ordering::SeqCst)),
        }
    }

    /// Time since the Unix epoch.
    pub fn wall(&self) -> Duration {
        match self {
            // A clock set before 1970 reads as 1970.
            Clock::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Clock::Virtual(clock) => {
                Duration::from_nanos(VirtualClock::WALL_START_NS + clock.ns.load(Ordering::SeqCst))
            }
        }
    }

    /// CPU time of the calling thread, in ns. A virtual clock has one thread, whose
    /// CPU is never idle between two readings of a slice.
    pub fn cpu_ns(&self) -> u64 {
        match self {
            Clock::System => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
            }
            Clock::Virtual(clock) => clock.ns.load(Ordering::SeqCst),
        }
    }

    /// Lets a virtual clock pass `time`; the system's needs no telling.
    pub fn spend(&self, time: Duration) {
        if let Clock::Virtual(clock) = self {
            clock.advance(time);
        }
    }

    /// Lets a virtual clock pass the time that `fuel` of guest work would take, at
    /// 8 units per ns; the system's clock needs no telling.
    pub fn spend_fuel(&self, fuel: u64) {
        if let Clock::Virtual(clock) = self {
            clock.ns.fetch_add(fuel / 8, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests;
