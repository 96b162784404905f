//! `metering`: what it costs a guest that its work is counted, or that it asks now and then
//! whether its time is over: bare calls of the JSON operator on engines that differ in that
//! alone, and the same batches through the whole host.

use std::time::Instant;

use tidegate::{
    batch::Batch,
    guest::{
        OperatorKind,
        engine::{Tuning, settings},
    },
    resource::{EngineKind, Limits, PoolLayout},
    tenant::Tenant,
};
use tidegate_benches::{
    bare::BareFilter,
    inside::{FILTER, READING},
    report::{Case, Hold, Report, rounds},
    rig::{Rig, Running, guest_path, unmetered},
};
use wasmtime::Engine;

/// Messages of a batch, half of which pass.
const MESSAGES: usize = 64;

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let (rounds, batches) = (rounds(quick), if quick { 2_000 } else { 20_000 });
    let mut rig = Rig::new(8, 4);
    let mut flow_on = |engine| {
        let tenant = Tenant::new("bench", Limits::of_engine(engine));
        rig.install(&tenant, "filter", &[("json_filter", OperatorKind::Filter, FILTER)])
    };
    let mut flows = [flow_on(EngineKind::Fuel), flow_on(EngineKind::Epoch)];
    let batch = flows[0].batch(&payloads());
    let bytes = std::fs::read(guest_path("json_filter"))?;
    let engine = |kind| Engine::new(&settings(Tuning::of(kind, PoolLayout::Guarded)));
    let mut bare = Vec::new();
    for engine in [unmetered()?, engine(EngineKind::Fuel)?, engine(EngineKind::Epoch)?] {
        bare.push(BareFilter::new(&engine, &bytes, FILTER, &batch)?);
    }
    let [mut calls, mut hosts, mut added]: [Vec<Vec<f64>>; 3] =
        [vec![Vec::new(); 3], vec![Vec::new(); 2], vec![Vec::new(); 2]];
    for _ in 0..rounds {
        for (bare, times) in bare.iter_mut().zip(&mut calls) {
            times.push(time(batches, || bare.call())?);
        }
        for (flow, times) in flows.iter_mut().zip(&mut hosts) {
            times.push(drive(&mut rig, flow, &batch, batches));
        }
        let last = |times: &[f64]| times.last().copied().unwrap_or(f64::NAN);
        for (added, metered) in added.iter_mut().zip(&calls[1..]) {
            added.push((last(metered) / last(&calls[0]) - 1.0) * 100.0);
        }
    }
    let [none, fuel, epoch] = [0, 1, 2].map(|place| &calls[place]);
    Ok(Report {
        bench: "metering",
        unit: "% over none",
        value_of: "fuel over none".into(),
        cases: vec![
            Case::median("fuel over none", "%", &added[0]).hold(Hold::AtMost(35.0)),
            Case::median("epoch over none", "%", &added[1]).hold(Hold::AtMost(27.0)),
            Case::median("bare call, none", "µs/batch", none),
            Case::median("bare call, fuel", "µs/batch", fuel),
            Case::median("bare call, epoch", "µs/batch", epoch),
            // With what else an engine costs the host: yields, and a timer's signals.
            Case::median("through the host, fuel", "µs/batch", &hosts[0]),
            Case::median("through the host, epoch", "µs/batch", &hosts[1]),
        ],
    })
}

fn payloads() -> Vec<String> {
    let cold = READING.replace("70.5", "20.5");
    (0..MESSAGES).map(|id| if id % 2 == 0 { cold.clone() } else { READING.to_owned() }).collect()
}

/// µs a batch.
fn drive(rig: &mut Rig, flow: &mut Running, batch: &Batch, batches: usize) -> f64 {
    flow.pump(rig, batch, batches / 10);
    let begin = Instant::now();
    flow.pump(rig, batch, batches);
    begin.elapsed().as_secs_f64() * 1e6 / batches as f64
}

/// µs a call.
fn time(calls: usize, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    (0..calls / 10).try_for_each(|_| call())?;
    let begin = Instant::now();
    (0..calls).try_for_each(|_| call())?;
    Ok(begin.elapsed().as_secs_f64() * 1e6 / calls as f64)
}
