//! `accounting`: what it costs to hold a tenant to every quota that there is, none of
//! which it reaches, against one that is held to those alone that cannot be lifted.

use std::{sync::Arc, time::Instant};

use tidegate::{
    batch::Batch,
    guest::{OperatorKind, host_call::Interface},
    resource::Limits,
    tenant::Tenant,
};
use tidegate_benches::{
    inside::FILTER,
    report::{Case, Hold, Report, rounds},
    rig::{Link, Rig, Running},
};

/// Every bucket that a tenant can have, wide enough that it is never empty.
fn held() -> Limits {
    let mut limits = Limits {
        cpu_rate_milli: 1_000_000,
        cpu_cap: true,
        fuel_rate: 1 << 50,
        fuel_burst: 1 << 50,
        ..Limits::default()
    };
    Interface::limited().for_each(|interface| limits.calls.set(interface, 1 << 40));
    limits
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let (rounds, batches) = (2 * rounds(quick), if quick { 5_000 } else { 20_000 });
    let mut rig = Rig::new(8, 4);
    let tenant = |name: &str, limits| Tenant::new(name, limits);
    let (free, held) = (tenant("free", Limits::default()), tenant("held", held()));
    let filter: Link<'_> = ("json_filter", OperatorKind::Filter, FILTER);
    let calls: Link<'_> = ("aio_metrics", OperatorKind::Map, &[]);
    let mut cases = Vec::new();
    let mut worst = f64::MIN;
    for (what, link, batches) in
        [("JSON filter", filter, batches), ("two host calls a message", calls, batches / 10)]
    {
        let mut flows = [&free, &held].map(|tenant| install(&mut rig, tenant, link));
        let batch = batch(&flows[0]);
        let mut figures: [Vec<f64>; 3] = Default::default();
        for round in 0..rounds {
            let mut took = [0.0; 2];
            // Each goes first every other time.
            for place in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                took[place] = drive(&mut rig, &mut flows[place], &batch, batches);
            }
            figures[0].push((took[1] / took[0] - 1.0) * 100.0);
            figures[1].push(took[0]);
            figures[2].push(took[1]);
        }
        let added = Case::median(format!("{what}: on top"), "%", &figures[0]);
        worst = worst.max(added.value);
        cases.extend([
            added.hold(Hold::AtMost(5.0)),
            Case::median(format!("{what}: all quotas off"), "µs/batch", &figures[1]),
            Case::median(format!("{what}: all quotas on"), "µs/batch", &figures[2]),
        ]);
    }
    cases.insert(0, Case::median("on top, the worse", "%", &[worst]).hold(Hold::AtMost(5.0)));
    Ok(Report { bench: "accounting", unit: "%", value_of: "on top, the worse".into(), cases })
}

fn install(rig: &mut Rig, tenant: &Arc<Tenant>, link: Link<'_>) -> Running {
    rig.install(tenant, link.0, &[link])
}

fn batch(flow: &Running) -> Batch {
    let payloads: Vec<_> = (0..64)
        .map(|id| {
            format!(
                r#"{{"msg_id":{},"sensor":"boiler-room-north-17","temperature":{}.5,"unit":"celsius-scale"}}"#,
                100_000 + id,
                20 + 50 * (id % 2)
            )
        })
        .collect();
    flow.batch(&payloads)
}

/// µs a batch.
fn drive(rig: &mut Rig, flow: &mut Running, batch: &Batch, batches: usize) -> f64 {
    flow.pump(rig, batch, batches / 10);
    let begin = Instant::now();
    flow.pump(rig, batch, batches);
    begin.elapsed().as_secs_f64() * 1e6 / batches as f64
}
