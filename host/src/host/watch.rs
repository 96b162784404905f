//! `Watch`: what is seen of a tenant from look to look: how much of everything goes on a
//! second, how long deliveries take, and on what step it is of the ladder. Reports on the
//! path; costs an idle tenant a few loads a look.

use serde_json::{Value, json};

use super::{
    RunningDataflow,
    ladder::{Counts, Facts, Ladder},
};
use crate::{
    clock::{Clock, Instant},
    dataflow::plan::Health,
    tenant::{MemoryUse, Tenant},
};

/// Looks that follow one another faster than this, in ns, are too close for a rate.
const APART_NS: u64 = 900_000_000;
/// How long each half of what is known of latencies is filled, in ns.
const LATELY_NS: u64 = 10_000_000_000;

/// Counts of all time, whose growth is a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    received: u64,
    delivered: u64,
    cpu_ns: u64,
    fuel: u64,
}

/// What goes on a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    pub received: u64,
    pub delivered: u64,
    pub cpu_milli: u64,
    pub fuel: u64,
}

impl Totals {
    /// The growth since `before`, a second.
    fn pace_since(&self, before: &Totals, ns: u64) -> Pace {
        let rate = |now: u64, before: u64| {
            (u128::from(now.saturating_sub(before)) * 1_000_000_000 / u128::from(ns.max(1))) as u64
        };
        Pace {
            received: rate(self.received, before.received),
            delivered: rate(self.delivered, before.delivered),
            cpu_milli: rate(self.cpu_ns, before.cpu_ns) / 1_000_000,
            fuel: rate(self.fuel, before.fuel),
        }
    }
}

#[derive(Debug)]
pub struct Watch {
    pub ladder: Ladder,
    pub pace: Pace,
    totals: Totals,
    looked: Instant,
    /// When what is known of latencies was turned over.
    turned: Instant,
}

impl Watch {
    /// For a tenant that begins now.
    pub fn new(clock: &Clock) -> Self {
        let now = clock.now();
        Watch {
            ladder: Ladder::new(clock.wall()),
            pace: Pace::default(),
            totals: Totals::default(),
            looked: now,
            turned: now,
        }
    }

    /// Takes note of what is seen now; another step of the ladder is an event.
    pub(super) fn observe<'a>(
        &mut self,
        tenant: &Tenant,
        dataflows: impl Iterator<Item = (&'a String, &'a RunningDataflow)>,
        clock: &Clock,
    ) {
        let (now, stats) = (clock.now(), &tenant.stats);
        let mut totals = Totals { cpu_ns: stats.cpu_ns.get(), fuel: stats.fuel.get(), ..Totals::default() };
        let mut facts = Facts {
            waits_for_credit: tenant.ledger.is_waited_for(),
            // The first is counted before the second: read the other way round.
            is_throttled: {
                let ended = stats.unthrottled.get();
                stats.throttled.get() > ended || tenant.gates().is_closed()
            },
            counts: Counts {
                dead: 0,
                throttled_cpu: stats.throttled_cpu.get(),
                throttled_fuel: stats.throttled_fuel.get(),
                throttled_calls: stats.throttled_calls.get(),
                closed_gates: tenant.gates().closed(),
            },
            ..Facts::default()
        };
        for (name, RunningDataflow { plan, .. }) in dataflows {
            totals.received += plan.stats.received.get();
            totals.delivered += plan.stats.delivered.get();
            facts.counts.dead += plan.stats.dead.get();
            match plan.health() {
                Health::Quarantined { cause } => facts.quarantined = Some((name.clone(), cause)),
                Health::Paused { cause } => facts.open = Some((name.clone(), cause)),
                Health::Running | Health::Failed { .. } | Health::Draining => {}
            }
        }
        self.keep_pace(totals, now);
        if now.0.saturating_sub(self.turned.0) >= LATELY_NS {
            self.turned = now;
            tenant.latency.turn();
        }
        if self.ladder.observe(&facts, now, clock.wall()) {
            let (step, cause) = (self.ladder.step().name(), self.ladder.cause());
            tracing::info!(tenant = tenant.name, step, cause, "a tenant's step of the ladder is another");
        }
    }

    fn keep_pace(&mut self, totals: Totals, now: Instant) {
        let ns = now.0.saturating_sub(self.looked.0);
        if ns >= APART_NS {
            self.pace = totals.pace_since(&self.totals, ns);
            (self.totals, self.looked) = (totals, now);
        }
    }

    /// Beside all that a tenant's status has: what it uses now.
    pub fn to_json(&self, tenant: &Tenant) -> Value {
        let Pace { received, delivered, cpu_milli, fuel } = self.pace;
        let MemoryUse { instances, components, queues, windows, state } = tenant.memory();
        let micros = |percent| tenant.latency.percentile(percent).map(|it| it.as_micros() as u64);
        json!({
            "ladder": self.ladder.to_json(),
            "perSecond": { "received": received, "delivered": delivered, "cpuMilli": cpu_milli, "fuel": fuel },
            "memory": {
                "total": tenant.memory().total(), "max": tenant.limits.memory_total_bytes_max,
                "instances": instances, "components": components, "queues": queues,
                "windows": windows, "state": state,
            },
            "latency": { "p50Micros": micros(50), "p99Micros": micros(99) },
            "used": super::counters(tenant.stats.values()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_what_has_grown_a_second() {
        let before = Totals { received: 10, delivered: 10, cpu_ns: 1_000, fuel: 7 };
        let now = Totals { received: 30, delivered: 10, cpu_ns: 100_001_000, fuel: 1_007 };
        let pace = now.pace_since(&before, 2_000_000_000);
        assert_eq!(pace, Pace { received: 10, delivered: 0, cpu_milli: 50, fuel: 500 });
    }
}
