//! Fairness: tenants that are always busy get CPU by their weights, on the same shard
//! and virtual clock as the rest of the simulation.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use tidegate::{
    clock::{Clock, VirtualClock},
    guest::{OperatorKind, component::Components},
    resource::Limits,
    tenant::Tenant,
};

use crate::rig::{Link, Rig, Running};

/// Deliveries of each tenant under way: more than the quantum of the heaviest has room
/// for, so that nobody is ever short of work.
const UNDER_WAY: u64 = 32;

/// Largest deviation from the promised share among busy tenants of these weights,
/// as a fraction of that share: while all are within their rates, and while all are past
/// them.
///
/// An error if they get nowhere.
pub fn unfairness(
    seed: u64,
    components: &Components,
    weights: &[u32],
    batches: usize,
) -> anyhow::Result<f64> {
    let within = deviation(seed, components, weights, batches, 1_000_000)?;
    let past = deviation(seed, components, weights, batches, 1)?;
    Ok(within.max(past))
}

/// The same for tenants of this `cpu.rate`, in thousandths of a core.
fn deviation(
    seed: u64,
    components: &Components,
    weights: &[u32],
    batches: usize,
    cpu_rate_milli: u64,
) -> anyhow::Result<f64> {
    let clock = Arc::new(VirtualClock::default());
    let mut rig = Rig::with(components.clone(), Clock::Virtual(clock), 64, 8, seed);
    let mut flows: Vec<Running> = Vec::new();
    for (index, weight) in weights.iter().enumerate() {
        let cpu_burst = Duration::from_millis(1);
        let limits = Limits { weight: *weight, cpu_rate_milli, cpu_burst, ..Limits::default() };
        let tenant = Tenant::new(format!("busy{index}"), limits);
        // Tenants differ in how long their calls are: weights must hold all the same.
        let micros = (10 << (index % 4)).to_string();
        let link: Link<'_> = ("hostile_busy", OperatorKind::Map, &[("micros", &micros)]);
        flows.push(rig.install(&tenant, "busy", &[link]));
    }
    let (mut done, mut turns) = (0, 0);
    while done < batches {
        turns += 1;
        ensure!(turns < batches * 100, "busy tenants get nowhere");
        for flow in &mut flows {
            while flow.source.unsettled() < UNDER_WAY {
                flow.send(&["work", "work", "work", "work"]);
            }
        }
        rig.shard.turn();
        for flow in &flows {
            for write in flow.take() {
                done += 1;
                write.confirm(Vec::new());
            }
        }
    }
    let fuel: Vec<f64> = flows
        .iter()
        .map(|flow| flow.plan.operators().map(|it| it.stats.fuel.get()).sum::<u64>() as f64)
        .collect();
    let (total, shares) = (fuel.iter().sum::<f64>(), weights.iter().sum::<u32>());
    let deviation = |(fuel, weight): (&f64, &u32)| {
        let promised = f64::from(*weight) / f64::from(shares);
        ((fuel / total) / promised - 1.0).abs()
    };
    Ok(fuel.iter().zip(weights).map(deviation).fold(0.0, f64::max))
}
