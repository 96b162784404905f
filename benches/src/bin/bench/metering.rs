//! `metering`: what it costs a guest that its work is counted, or that it asks now and then
//! whether its time is over: bare calls of JSON operators on engines that differ in that
//! alone, and the same batches through the whole host.

use tidegate::{
    batch::Batch,
    clock::Clock,
    guest::{
        OperatorKind::{self, Filter, Map},
        engine::{Tuning, settings},
    },
    resource::{EngineKind, Limits, PoolLayout},
    tenant::Tenant,
};
use tidegate_benches::{
    bare::{BareFilter, BareMap},
    inside::{CONVERT, FILTER, READING},
    report::{Case, Hold, Report, rounds},
    rig::{Link, Rig, guest_path, unmetered},
};
use wasmtime::Engine;

/// Messages of a batch, half of which pass.
const MESSAGES: usize = 64;
/// In a round, of each that is compared; a few milliseconds long.
const TURNS: usize = 40;

/// Operators on JSON, whose code differs: a filter that passes over text in short loops, a map
/// that reads and writes numbers, and one that copies most of what it reads. What metering
/// costs one of them is ten points more or less than what it costs another.
const OPERATORS: [(&str, Link<'static>); 3] = [
    ("filter", ("json_filter", Filter, FILTER)),
    ("convert", ("unit_convert", Map, CONVERT)),
    ("enrich", ("json_enrich", Map, &[("add", "site=north"), ("rename", "unit=scale")])),
];

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let (rounds, batches) = (rounds(quick), if quick { 100 } else { 500 });
    let mut together = vec![[0.0; 3]; rounds];
    let mut each = Vec::new();
    for (name, link) in OPERATORS {
        let times = bare_times(link, rounds, batches)?;
        for (sum, times) in together.iter_mut().zip(&times) {
            sum.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        }
        each.extend(cases(name, &times));
    }
    let mut cases = cases("all three", &together);
    cases[0] = cases[0].clone().hold(Hold::AtMost(35.0));
    cases[1] = cases[1].clone().hold(Hold::AtMost(27.0));
    cases.extend(each);
    cases.extend(host_cases(rounds, batches)?);
    Ok(Report { bench: "metering", unit: "% over none", value_of: cases[0].name.clone(), cases })
}

/// One operator, each round: µs a batch on an engine with neither, with fuel, with epochs.
fn bare_times(link: Link<'_>, rounds: usize, batches: usize) -> anyhow::Result<Vec<[f64; 3]>> {
    let engine = |kind| Engine::new(&settings(Tuning::of(kind, PoolLayout::Guarded)));
    let batch = batch();
    let mut none = bare(&unmetered()?, link, &batch)?;
    let mut fuel = bare(&engine(EngineKind::Fuel)?, link, &batch)?;
    let mut epoch = bare(&engine(EngineKind::Epoch)?, link, &batch)?;
    (0..rounds).map(|_| least([&mut *none, &mut *fuel, &mut *epoch], batches)).collect()
}

fn cases(name: &str, times: &[[f64; 3]]) -> Vec<Case> {
    let case = |what: &str, unit: &'static str, of: fn(&[f64; 3]) -> f64| {
        Case::median(format!("{name}, {what}"), unit, &times.iter().map(of).collect::<Vec<_>>())
    };
    vec![
        case("fuel over none", "%", |[none, fuel, _]| (fuel / none - 1.0) * 100.0),
        case("epoch over none", "%", |[none, _, epoch]| (epoch / none - 1.0) * 100.0),
        case("bare call, none", "µs/batch", |[none, ..]| *none),
        case("bare call, fuel", "µs/batch", |[_, fuel, _]| *fuel),
        case("bare call, epoch", "µs/batch", |[_, _, epoch]| *epoch),
    ]
}

/// With what else an engine costs the host: yields, and a timer's signals.
fn host_cases(rounds: usize, batches: usize) -> anyhow::Result<Vec<Case>> {
    let on = |engine| {
        let mut rig = Rig::new(8, 4);
        let tenant = Tenant::new("bench", Limits::of_engine(engine));
        let mut flow = rig.install(&tenant, "filter", &[OPERATORS[0].1]);
        let batch = batch();
        move || {
            flow.pump(&mut rig, &batch, 1);
            Ok(())
        }
    };
    let (mut fuel, mut epoch) = (on(EngineKind::Fuel), on(EngineKind::Epoch));
    let mut figures: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        let times = least([&mut fuel as &mut Call, &mut epoch], batches)?;
        figures.iter_mut().zip(times).for_each(|(figure, time)| figure.push(time));
    }
    let named =
        ["filter, through the host, fuel", "filter, through the host, epoch"].into_iter().zip(&figures);
    Ok(named.map(|(name, figure)| Case::median(name, "µs/batch", figure)).collect())
}

/// A call with a batch.
type Call = dyn FnMut() -> anyhow::Result<()>;

fn bare(engine: &Engine, (guest, kind, configuration): Link<'_>, batch: &Batch) -> anyhow::Result<Box<Call>> {
    let bytes = std::fs::read(guest_path(guest))?;
    Ok(match kind {
        OperatorKind::Filter => {
            let mut bare = BareFilter::new(engine, &bytes, configuration, batch)?;
            Box::new(move || bare.call())
        }
        _ => {
            let mut bare = BareMap::new(engine, &bytes, configuration, batch)?;
            Box::new(move || bare.call())
        }
    })
}

/// µs of CPU that each call takes, by turns; the least of them, since what else the machine
/// does can only add to it.
fn least<const N: usize>(mut calls: [&mut Call; N], batches: usize) -> anyhow::Result<[f64; N]> {
    let mut least = [f64::INFINITY; N];
    for _ in 0..TURNS {
        for (call, least) in calls.iter_mut().zip(&mut least) {
            (0..batches / 10).try_for_each(|_| call())?;
            let begin_ns = Clock::System.cpu_ns();
            (0..batches).try_for_each(|_| call())?;
            let time = (Clock::System.cpu_ns() - begin_ns) as f64 / 1e3 / batches as f64;
            *least = least.min(time);
        }
    }
    Ok(least)
}

fn batch() -> Batch {
    let cold = READING.replace("70.5", "20.5");
    let payloads = (0..MESSAGES).map(|id| if id % 2 == 0 { cold.as_str() } else { READING });
    tidegate_benches::inside::delivery(&payloads.collect::<Vec<_>>())
}
