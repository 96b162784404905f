//! Bugs planted on purpose, to show that tests and simulation would find them. Only
//! with the feature `planted-bugs`, which no release has; without it every question
//! is answered no at compile time.

/// A bug of the kind that this design is most afraid of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A delivery is settled when it is taken.
    EarlyAck = 1,
    /// A wake-up is lost now and then.
    LostWake,
    /// A delivery is settled twice.
    DoubleSettle,
    /// Credit does not come back now and then.
    CreditLeak,
    /// A sink gets only half of a batch.
    HalfBatch,
    /// The sink operator panics now and then.
    Panic,
    /// An MQTT source acknowledges on one connection what came on another.
    StalePuback,
    /// An MQTT sink takes what it had sent before a loss as answered.
    LostPublish,
    /// Windows take in again what they have.
    CountTwice,
    /// Volatile windows forget what they had completed before a restart.
    PartialWindow,
    /// What tenants used begins at zero with each host.
    UsageAnew,
}

impl Bug {
    pub const ALL: [Bug; 11] = [
        Bug::EarlyAck,
        Bug::LostWake,
        Bug::DoubleSettle,
        Bug::CreditLeak,
        Bug::HalfBatch,
        Bug::Panic,
        Bug::StalePuback,
        Bug::LostPublish,
        Bug::CountTwice,
        Bug::PartialWindow,
        Bug::UsageAnew,
    ];

    /// The name in the variable `TIDEGATE_PLANT`.
    pub fn name(self) -> &'static str {
        match self {
            Bug::EarlyAck => "early-ack",
            Bug::LostWake => "lost-wake",
            Bug::DoubleSettle => "double-settle",
            Bug::CreditLeak => "credit-leak",
            Bug::HalfBatch => "half-batch",
            Bug::Panic => "panic",
            Bug::StalePuback => "stale-puback",
            Bug::LostPublish => "lost-publish",
            Bug::CountTwice => "count-twice",
            Bug::PartialWindow => "partial-window",
            Bug::UsageAnew => "usage-anew",
        }
    }
}

#[cfg(feature = "planted-bugs")]
mod planting {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    use super::Bug;

    static PLANTED: AtomicU8 = AtomicU8::new(0);
    static ASKED: AtomicU64 = AtomicU64::new(0);

    /// Plants a bug, or none, in the whole process.
    pub fn plant(bug: Option<Bug>) {
        ASKED.store(0, Ordering::SeqCst);
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
    }

    /// Plants what the variable `TIDEGATE_PLANT` names.
    pub fn plant_from_environment() {
        let name = std::env::var("TIDEGATE_PLANT").unwrap_or_default();
        plant(Bug::ALL.into_iter().find(|bug| bug.name() == name));
    }

    pub fn is(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    pub fn is_now_and_then(bug: Bug, every: u64) -> bool {
        is(bug) && ASKED.fetch_add(1, Ordering::Relaxed) % every == every - 1
    }
}

#[cfg(not(feature = "planted-bugs"))]
mod planting {
    use super::Bug;

    pub fn plant_from_environment() {}

    pub fn is(_bug: Bug) -> bool {
        false
    }

    pub fn is_now_and_then(_bug: Bug, _every: u64) -> bool {
        false
    }
}

pub use planting::*;
