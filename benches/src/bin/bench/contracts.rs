//! `contracts`: the packed contract against AIO's on the pass-through operator,
//! through the whole path from ingest to settle, by size of batch and message; and
//! what fuel metering costs the packed call.

use std::time::Instant;

use tidegate::{guest::OperatorKind, resource::EngineKind};
use tidegate_benches::{
    bare::BareMap,
    report::{Case, Hold, Report, rounds},
    rig::{Rig, Running, guest_path, tenant, unmetered},
};

const SIZES: [usize; 2] = [100, 1024];
const BATCHES: [usize; 4] = [1, 16, 64, 256];

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let mut rig = Rig::new(8, 4);
    let tenant = tenant("bench");
    let mut install =
        |name: &str, guest: &str| rig.install(&tenant, name, &[(guest, OperatorKind::Map, &[])]);
    let mut packed = install("packed", "pass_through");
    let mut aio = install("aio", "aio_pass_through");
    let component = std::fs::read(guest_path("pass_through"))?;
    let (metered, free) = (rig.components.engines().of(EngineKind::Fuel).clone(), unmetered()?);
    let mut cases = Vec::new();
    for size in SIZES {
        for messages in BATCHES {
            let payloads = vec!["x".repeat(size); messages];
            let batch = packed.batch(&payloads);
            let mut bare = BareMap::new(&metered, &component, &[], &batch)?;
            let mut bare_free = BareMap::new(&free, &component, &[], &batch)?;
            // About as many messages in each cell.
            let batches = (if quick { 20_000 } else { 200_000 } / messages).max(100);
            let mut figures: [Vec<f64>; 5] = Default::default();
            for _ in 0..rounds(quick) {
                let packed = messages_per_second(&mut rig, &mut packed, &payloads, batches);
                let aio = messages_per_second(&mut rig, &mut aio, &payloads, batches);
                let with_fuel = time(batches, || bare.call())?;
                let without = time(batches, || bare_free.call())?;
                figures[0].push(packed);
                figures[1].push(aio);
                figures[2].push(packed / aio);
                figures[3].push(messages as f64 / with_fuel);
                figures[4].push(messages as f64 / without);
            }
            let cell = format!("{size} B, batch {messages}");
            let case =
                |name: &str, unit, figures: &[f64]| Case::median(format!("{cell}: {name}"), unit, figures);
            let ratio = case("packed ÷ AIO", "x", &figures[2]);
            let held = size == SIZES[0] && messages == 64;
            cases.extend([
                if held { ratio.hold(Hold::AtLeast(5.0)) } else { ratio },
                case("packed, fuel", "messages/s", &figures[0]),
                case("AIO, fuel", "messages/s", &figures[1]),
                case("packed call alone, fuel", "messages/s", &figures[3]),
                case("packed call alone, no metering", "messages/s", &figures[4]),
            ]);
        }
    }
    let value_of = format!("{} B, batch 64: packed ÷ AIO", SIZES[0]);
    Ok(Report { bench: "contracts", unit: "x AIO's contract", value_of, cases })
}

fn messages_per_second(rig: &mut Rig, flow: &mut Running, payloads: &[String], batches: usize) -> f64 {
    let batch = flow.batch(payloads);
    flow.pump(rig, &batch, batches / 10);
    let begin = Instant::now();
    flow.pump(rig, &batch, batches);
    (batches * payloads.len()) as f64 / begin.elapsed().as_secs_f64()
}

/// Seconds a call.
fn time(calls: usize, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    (0..calls / 10).try_for_each(|_| call())?;
    let begin = Instant::now();
    (0..calls).try_for_each(|_| call())?;
    Ok(begin.elapsed().as_secs_f64() / calls as f64)
}
