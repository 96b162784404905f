//! `path`: a batch through the whole host, from ingest to settle, against the bare
//! wasmtime call of the same component on the same batch; and allocations on the way.

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use clap::Parser;
use tidegate::{batch::Batch, guest::OperatorKind};
use tidegate_benches::{
    bare::{BareFilter, BareMap},
    report::{Case, Hold, Report, rounds},
    rig::{Link, Rig, Running, guest_path, tenant},
};

/// Times a batch through the host against the bare call.
#[derive(Parser)]
struct Args {
    /// Three short rounds.
    #[arg(long)]
    quick: bool,
}

/// Counts allocations; the allocator behind it is the host's.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// A counting allocator has no safe form; it only passes on.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Messages in flight: batches of this many, so many at once.
const IN_FLIGHT: usize = 8;
const FILTER: &[(&str, &str)] = &[("field", "temperature"), ("op", "gt"), ("value", "50")];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (rounds, batches) = (rounds(args.quick), if args.quick { 2_000 } else { 20_000 });
    let mut rig = Rig::new(8, 4);
    let tenant = tenant("bench");
    let filter: Link<'_> = ("json_filter", OperatorKind::Filter, FILTER);
    let pass: Link<'_> = ("pass_through", OperatorKind::Map, &[]);
    let mut filter_flow = rig.install(&tenant, "filter", &[filter]);
    let mut pass_flow = rig.install(&tenant, "pass", &[pass]);
    let batch = filter_flow.batch(&payloads(64));
    let engine = rig.components.engine().clone();
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
    let report = Report {
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
    };
    std::process::exit(i32::from(!report.print()));
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

/// Sends the batch `batches` times, [`IN_FLIGHT`] at once, confirming what comes out;
/// gives µs a batch.
fn drive(rig: &mut Rig, flow: &mut Running, batch: &Batch, batches: usize) -> f64 {
    pump(rig, flow, batch, batches / 10);
    let begin = Instant::now();
    pump(rig, flow, batch, batches);
    begin.elapsed().as_secs_f64() * 1e6 / batches as f64
}

fn pump(rig: &mut Rig, flow: &mut Running, batch: &Batch, batches: usize) {
    let goal = flow.source.settled_upto() + batches as u64;
    let mut sent = 0;
    while flow.source.settled_upto() < goal {
        while sent < batches && flow.source.unsettled() < IN_FLIGHT as u64 {
            flow.deliver(batch.clone());
            sent += 1;
        }
        rig.shard.turn();
        flow.take().into_iter().for_each(|write| write.confirm(Vec::new()));
    }
}

/// Allocations that one more message in a batch costs, door to door.
fn allocations(rig: &mut Rig, flow: &mut Running) -> f64 {
    let (small, large, batches) = (16, 256, 2_000);
    let mut count = |messages: usize| {
        let payloads = payloads(messages);
        let batch = flow.batch(&payloads);
        pump(rig, flow, &batch, 100);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        pump(rig, flow, &batch, batches);
        (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / batches as f64
    };
    let (of_small, of_large) = (count(small), count(large));
    eprintln!("allocations per batch: {of_small:.1} with {small} messages, {of_large:.1} with {large}");
    ((of_large - of_small) / (large - small) as f64 * 100.0).round() / 100.0
}
