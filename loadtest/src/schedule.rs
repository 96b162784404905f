//! When messages are due: an open-loop schedule, made before anything is sent and
//! blind to how the host does. Knows no clock.

use std::{f64::consts::TAU, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// How arrivals are spread over time. Rates are messages a second of all tenants
/// together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// The same gap each time.
    Constant { rate: f64 },
    /// Gaps as of many senders that know nothing of each other.
    Poisson { rate: f64 },
    /// `rate`, and `peak` for the first `length` of every `every`.
    Burst { rate: f64, peak: f64, every: Duration, length: Duration },
    /// Evenly from one rate to another.
    Ramp { from: f64, to: f64 },
    /// From `low` to `high` and back in each `period`, as a day.
    Diurnal { low: f64, high: f64, period: Duration },
}

impl Shape {
    /// How many messages are due up to `at` seconds, of a phase of `length` seconds.
    fn due(&self, at: f64, length: f64) -> f64 {
        match *self {
            Shape::Constant { rate } | Shape::Poisson { rate } => rate * at,
            Shape::Burst { rate, peak, every, length } => {
                let (every, length) = (every.as_secs_f64(), length.as_secs_f64());
                let periods = (at / every).floor();
                let rest = at - periods * every;
                let of = |bursting: f64, quiet: f64| peak * bursting + rate * quiet;
                periods * of(length, every - length) + of(rest.min(length), (rest - length).max(0.0))
            }
            Shape::Ramp { from, to } => from * at + (to - from) * at * at / (2.0 * length),
            Shape::Diurnal { low, high, period } => {
                let (middle, swing, turn) =
                    ((low + high) / 2.0, (high - low) / 2.0, TAU / period.as_secs_f64());
                middle * at - swing * (turn * at).sin() / turn
            }
        }
    }

    /// The highest rate that it comes to.
    pub fn peak(&self) -> f64 {
        match *self {
            Shape::Constant { rate } | Shape::Poisson { rate } => rate,
            Shape::Burst { peak, .. } => peak,
            Shape::Ramp { from, to } => from.max(to),
            Shape::Diurnal { high, .. } => high,
        }
    }
}

/// The moments at which messages are due, in order, as nanoseconds after the phase
/// began. The same seed gives the same moments.
pub struct Schedule {
    shape: Shape,
    length: f64,
    rng: SmallRng,
    /// How many messages are due at the next moment; a whole number unless Poisson.
    next: f64,
    at: f64,
}

impl Schedule {
    pub fn new(shape: Shape, length: Duration, seed: u64) -> Self {
        let mut schedule = Schedule {
            shape,
            length: length.as_secs_f64(),
            rng: SmallRng::seed_from_u64(seed),
            next: 0.0,
            at: 0.0,
        };
        if let Shape::Poisson { .. } = shape {
            schedule.next = schedule.gap();
        }
        schedule
    }

    /// To the next message, in messages.
    fn gap(&mut self) -> f64 {
        match self.shape {
            // The logarithm of 0 is no gap.
            Shape::Poisson { .. } => -(1.0 - self.rng.random::<f64>()).ln(),
            _ => 1.0,
        }
    }

    /// When `count` messages are due, not before `from`.
    fn moment(&self, count: f64, from: f64) -> f64 {
        if let Shape::Constant { rate } | Shape::Poisson { rate } = self.shape {
            return count / rate;
        }
        // What is due only grows with time: halve until a nanosecond is left.
        let (mut before, mut after) = (from, self.length);
        while after - before > 1e-9 {
            let middle = f64::midpoint(before, after);
            if self.shape.due(middle, self.length) < count { before = middle } else { after = middle }
        }
        after
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.next >= self.shape.due(self.length, self.length) {
            return None;
        }
        let at = if self.next == 0.0 { 0.0 } else { self.moment(self.next, self.at) };
        self.at = at;
        self.next += self.gap();
        Some((at * 1e9) as u64)
    }
}

#[cfg(test)]
mod tests;
