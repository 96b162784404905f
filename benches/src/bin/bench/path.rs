//! `path`: a batch through the whole host, from ingest to settle, against the bare
//! wasmtime call of the same component on the same batch; and allocations on the way.

use std::{sync::atomic::Ordering, time::Instant};

use tidegate::{batch::Batch, guest::OperatorKind, resource::EngineKind};
use tidegate_benches::{
    bare::{BareFilter, BareMap},
    report::{Case, Hold, Report, rounds},
    rig::{Link, Rig, Running, guest_path, tenant},
};

use crate::ALLOCATIONS;

const FILTER: &[(&str, &str)] = &[("field", "temperature"), ("op", "gt"), ("value", "50")];

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let (rounds, batches) = (rounds(quick), if quick { 2_000 } else { 20_000 });
    let mut rig = Rig::new(8, 4);
    let tenant = tenant("bench");
    let filter: Link<'_> = ("json_filter", OperatorKind::Filter, FILTER);
    let pass: Link<'_> = ("pass_through", OperatorKind::Map, &[]);
    let mut filter_flow = rig.install(&tenant, "filter", &[filter]);
    let mut pass_flow = rig.install(&tenant, "pass", &[pass]);
    let batch = filter_flow.batch(&payloads(64));
    let engine = rig.components.engines().of(EngineKind::Fuel).clone();
    let component = |name: &str| std::fs::read(guest_path(name));
    let mut bare_filter = BareFilter::new(&engine, &component("json_filter")?, FILTER, &batch)?;
    let mut bare_pass = BareMap::new(&engine, &component("pass_through")?, &[], &batch)?;

    let mut figures: [Vec<f64>; 6] = Default::default();
    for _ in 0..rounds {
        let bare = time(batches, || bare_filter.call())?;
        let host = drive(&mut rig, &mut filter_flow, &batch, batches);
        figures[0].push(bare);
        figures[1].push(host);
        figures[2].push(host / bare);
        let bare = time(batches, || bare_pass.call())?;
        let host = drive(&mut rig, &mut pass_flow, &batch, batches);
        figures[3].push(bare);
        figures[4].push(host);
        figures[5].push(host - bare);
    }
    let [filter_bare, filter_host, ratio, pass_bare, pass_host, added] = &figures;
    let per_message = allocations(&mut rig, &mut pass_flow);
    Ok(Report {
        bench: "path",
        unit: "x bare call",
        value_of: "filter, host ÷ bare".into(),
        cases: vec![
            Case::median("filter, host ÷ bare", "x", ratio).hold(Hold::AtMost(1.25)),
            Case::median("filter, bare call", "µs/batch", filter_bare),
            Case::median("filter, host", "µs/batch", filter_host),
            Case::median("pass-through, host − bare", "µs/batch", added).hold(Hold::AtMost(4.0)),
            Case::median("pass-through, bare call", "µs/batch", pass_bare),
            Case::median("pass-through, host", "µs/batch", pass_host),
            Case::median("allocations", "per message", &[per_message]).hold(Hold::AtMost(0.0)),
        ],
    })
}

/// JSON of about 100 bytes with four fields; half pass `temperature > 50`.
fn payloads(count: usize) -> Vec<String> {
    (0..count)
        .map(|id| {
            let temperature = if id % 2 == 0 { 20.5 } else { 70.5 };
            format!(
                r#"{{"msg_id":{},"sensor":"boiler-room-north-17","temperature":{temperature},"unit":"celsius-scale"}}"#,
                100_000 + id
            )
        })
        .collect()
}

fn time(batches: usize, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    (0..batches / 10).try_for_each(|_| call())?;
    let begin = Instant::now();
    (0..batches).try_for_each(|_| call())?;
    Ok(begin.elapsed().as_secs_f64() * 1e6 / batches as f64)
}

/// µs a batch.
fn drive(rig: &mut Rig, flow: &mut Running, batch: &Batch, batches: usize) -> f64 {
    flow.pump(rig, batch, batches / 10);
    let begin = Instant::now();
    flow.pump(rig, batch, batches);
    begin.elapsed().as_secs_f64() * 1e6 / batches as f64
}

/// Allocations that one more message in a batch costs, door to door.
fn allocations(rig: &mut Rig, flow: &mut Running) -> f64 {
    let (small, large, batches) = (16, 256, 2_000);
    let mut count = |messages: usize| {
        let payloads = payloads(messages);
        let batch = flow.batch(&payloads);
        flow.pump(rig, &batch, 100);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        flow.pump(rig, &batch, batches);
        (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / batches as f64
    };
    let (of_small, of_large) = (count(small), count(large));
    eprintln!("allocations per batch: {of_small:.1} with {small} messages, {of_large:.1} with {large}");
    ((of_large - of_small) / (large - small) as f64 * 100.0).round() / 100.0
}
