//! `Stage`: what all parts of a simulated run share: the instant, the dice, the log
//! of everything that happens, and the counts.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::{AddAssign, Range},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidegate::clock::Instant;

/// What a simulated run came to; several add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of everything that happened, in order; of every byte on every wire, too.
    pub log: u64,
    /// Deliveries settled, and messages that came to their end.
    pub deliveries: u64,
    pub messages: u64,
    /// Calls that ended in a trap or without fuel.
    pub faults: u64,
    /// Times that a sink, a broker or the shard did nothing for a while.
    pub stalls: u64,
    /// Connections and brokers lost; sessions are what brokers forgot then.
    pub losses: u64,
    pub sessions_lost: u64,
    pub installs: u64,
    pub removals: u64,
    pub dead_letters: u64,
    /// Messages whose broker forgot them, and then their dataflow was given up.
    pub given_up: u64,
    /// Messages that came more than once.
    pub redelivered: u64,
    /// Deliveries that were settled before one that came earlier.
    pub overtook: u64,
    /// Bytes on all wires.
    pub wire_bytes: u64,
}

impl AddAssign<&Outcome> for Outcome {
    /// The log stays that of the first.
    fn add_assign(&mut self, other: &Outcome) {
        self.deliveries += other.deliveries;
        self.messages += other.messages;
        self.faults += other.faults;
        self.stalls += other.stalls;
        self.losses += other.losses;
        self.sessions_lost += other.sessions_lost;
        self.installs += other.installs;
        self.removals += other.removals;
        self.dead_letters += other.dead_letters;
        self.given_up += other.given_up;
        self.redelivered += other.redelivered;
        self.overtook += other.overtook;
        self.wire_bytes += other.wire_bytes;
    }
}

/// See the module.
pub(super) struct Stage {
    pub now: Instant,
    pub rng: StdRng,
    pub outcome: Outcome,
    log: DefaultHasher,
}

impl Stage {
    pub fn new(seed: u64) -> Self {
        let (now, log) = (Instant(0), DefaultHasher::new());
        Stage { now, rng: StdRng::seed_from_u64(seed), outcome: Outcome::default(), log }
    }

    /// Something happened now.
    pub fn note(&mut self, event: impl Hash) {
        self.now.hash(&mut self.log);
        event.hash(&mut self.log);
    }

    /// Some instant as many microseconds from now.
    pub fn after(&mut self, micros: Range<u64>) -> Instant {
        let micros = self.rng.random_range(micros);
        self.now.plus(Duration::from_micros(micros))
    }

    pub fn one_in(&mut self, count: u32) -> bool {
        self.rng.random_ratio(1, count)
    }

    pub fn finish(mut self) -> Outcome {
        self.outcome.log = self.log.finish();
        self.outcome
    }
}
