//! `state`: what a guest's requests to its tenant's state cost, against bare sled on the
//! same keys: those that memory answers, writes until they are accepted, and, from many
//! guests at once, keys that their tenants do not have in memory.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tidegate::{
    guest::OperatorKind::Map,
    resource::Limits,
    store::{Condition, Set, StateLimits, Store},
    tenant::Tenant,
};
use tidegate_benches::{
    report::{Case, Hold, Report, rounds},
    rig::{Rig, Running},
};

/// Bytes of a value.
const VALUE: usize = 100;
/// Keys of one tenant that its part of memory has room for.
const KEYS: u64 = 500;
/// Requests of one call, over these keys.
const OPERATIONS: u64 = 500;
/// Calls of one round.
const CALLS: usize = 20;
const GUESTS: usize = 64;
/// Keys of each of many tenants: more than their parts of memory have room for. The first fit
/// the cache that sled has, and the second neither that of the host's store nor that of the
/// tree beside it. What one of them has room for and the other has not compares nothing.
const COLD_KEYS: [(u64, &str); 2] = [(2_000, "in sled's cache"), (16_000, "on disk")];
/// Requests of one call for them.
const COLD_OPERATIONS: u64 = 1_000;
/// Between two keys that are asked for one after the other, in no order; prime.
const SCATTERED_STEP: u64 = 1_613;

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let rounds = rounds(quick);
    let dir = tempfile::tempdir()?;
    let [hits, writes] = warm(dir.path(), rounds)?;
    let mut cold_pairs = Vec::new();
    for (keys, place) in COLD_KEYS.into_iter().take(if quick { 1 } else { 2 }) {
        let dir = tempfile::tempdir()?;
        let [in_order, scattered] = cold(dir.path(), rounds, keys)?;
        cold_pairs
            .extend([(format!("in order, {place}"), in_order), (format!("scattered, {place}"), scattered)]);
    }
    let mut cases = Vec::new();
    for (name, pairs) in [("hits", &hits), ("accepted writes", &writes)] {
        let ratios: Vec<f64> = pairs.iter().map(|(guest, bare)| guest / bare).collect();
        cases.push(Case::median(format!("{name}, guest ÷ bare sled"), "x", &ratios).hold(Hold::AtMost(2.0)));
    }
    let worst = cases[0].value.max(cases[1].value);
    let value_of = "time per operation, guest ÷ bare sled, the worse";
    cases.insert(0, Case::median(value_of, "x", &[worst]).hold(Hold::AtMost(2.0)));
    for (name, pairs) in &cold_pairs {
        let ratios: Vec<f64> = pairs.iter().map(|(guests, bare)| guests / bare).collect();
        let name = format!("misses of {GUESTS} guests, {name}: throughput ÷ bare sled");
        cases.push(Case::median(name, "x", &ratios).hold(Hold::AtLeast(0.5)));
    }
    let cold_rates =
        cold_pairs.into_iter().map(|(name, pairs)| (format!("misses {name}, a second"), "1/s", pairs));
    let warm_times = [("hit".to_owned(), "ns", hits), ("accepted write".to_owned(), "ns", writes)];
    for (name, unit, pairs) in warm_times.into_iter().chain(cold_rates) {
        let (guest, bare): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        cases.push(Case::median(format!("{name}, guest"), unit, &guest));
        cases.push(Case::median(format!("{name}, bare sled"), unit, &bare));
    }
    Ok(Report { bench: "state", unit: "x bare sled", value_of: value_of.into(), cases })
}

/// Figures of guest and bare sled, by round.
type Pairs = Vec<(f64, f64)>;

fn limits() -> Limits {
    let mut limits = Limits::default();
    // A call makes many requests, and is to end by itself.
    (limits.message_fuel_max, limits.message_time_max) = (1 << 40, Duration::from_secs(60));
    limits
}

/// A tenant whose state is in `store`.
fn tenant(store: &Store, name: &str) -> Arc<Tenant> {
    let limits = limits();
    let most = StateLimits { keys_max: 1 << 20, bytes_max: 1 << 30, ..StateLimits::default() };
    let keys = store.key_space(name, "bench", most);
    Tenant::keeping(name, limits, keys, None)
}

fn install(rig: &mut Rig, tenant: &Arc<Tenant>) -> Running {
    rig.install(tenant, "flow", &[("aio_state_load", Map, &[])])
}

fn key(prefix: &str, number: u64) -> Vec<u8> {
    format!("{prefix}{number:08}").into_bytes()
}

/// ns that the guest's requests took, as it measured them itself.
fn ask(rig: &mut Rig, flow: &mut Running, request: &str) -> anyhow::Result<f64> {
    flow.send(&[request]);
    let answers = answers(rig, std::slice::from_ref(flow))?;
    answers[0].parse().with_context(|| format!("`{request}`: {}", answers[0]))
}

/// Turns the shard until each dataflow has answered.
fn answers(rig: &mut Rig, flows: &[Running]) -> anyhow::Result<Vec<String>> {
    let mut answers = Vec::new();
    let until = Instant::now() + Duration::from_secs(120);
    while answers.len() < flows.len() {
        ensure!(Instant::now() < until, "a guest does not answer: {:?}", rig.dead.lock());
        // Seldom enough that looking costs nothing.
        (0..64).for_each(|_| _ = rig.shard.turn());
        answers.extend(flows.iter().flat_map(Running::receive));
    }
    Ok(answers)
}

/// ns of a hit and of an accepted write.
fn warm(dir: &Path, rounds: usize) -> anyhow::Result<[Pairs; 2]> {
    let store = Store::open(&dir.join("store"))?;
    let bare = bare(&dir.join("bare"))?;
    let mut rig = Rig::new(8, 4);
    let mut flow = install(&mut rig, &tenant(&store, "a"));
    let (get, set) = (format!("get k 0 {OPERATIONS} 1 {KEYS}"), format!("set k 0 {OPERATIONS} {VALUE}"));
    let value = vec![b'x'; VALUE];
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|number| key("k", number)).collect();
    let mut pairs: [Pairs; 2] = Default::default();
    for round in 0..=rounds {
        let mut figures = [(0.0, 0.0); 2];
        for _ in 0..CALLS {
            figures[1].0 += ask(&mut rig, &mut flow, &set)?;
            let begun = Instant::now();
            keys.iter().try_for_each(|key| bare.insert(key, value.as_slice()).map(drop))?;
            figures[1].1 += begun.elapsed().as_nanos() as f64;
            bare.flush()?;
            figures[0].0 += ask(&mut rig, &mut flow, &get)?;
            let begun = Instant::now();
            for key in &keys {
                // As its own, which a program needs before the next request.
                std::hint::black_box(bare.get(key)?.context("it was written")?.to_vec());
            }
            figures[0].1 += begun.elapsed().as_nanos() as f64;
        }
        // The first round warms up.
        if round > 0 {
            let operations = OPERATIONS as f64 * CALLS as f64;
            for (pairs, (guest, bare)) in pairs.iter_mut().zip(figures) {
                pairs.push((guest / operations, bare / operations));
            }
        }
    }
    Ok(pairs)
}

/// A tree as a program without a host would have it, with the cache that a host has.
fn bare(dir: &Path) -> anyhow::Result<sled::Tree> {
    let config = sled::Config::new().path(dir).cache_capacity(64 << 20).flush_every_ms(None);
    Ok(config.open()?.open_tree("state")?)
}

/// Requests a second for keys that no tenant has in memory, in their order and scattered: of
/// many guests, and of a program.
fn cold(dir: &Path, rounds: usize, keys: u64) -> anyhow::Result<[Pairs; 2]> {
    eprintln!("writing {} keys", GUESTS as u64 * keys);
    let names: Vec<String> = (0..GUESTS).map(|guest| format!("t{guest:02}")).collect();
    let store = Store::open(&dir.join("cold-store"))?;
    let bare = bare(&dir.join("cold-bare"))?;
    let tenants: Vec<_> = names.iter().map(|name| tenant(&store, name)).collect();
    let value: Arc<[u8]> = vec![b'x'; VALUE].into();
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for tenant in &tenants {
        for number in 0..keys {
            let key = key("k", number);
            bare.insert([tenant.name.as_bytes(), &[0], &key].concat(), &*value)?;
            let value = value.clone();
            let set = Set { key, value, condition: Condition::Unconditional, token: None, expires: None };
            runtime.block_on(tenant.keys.set(set, wall))?;
        }
        store.flush()?;
    }
    bare.flush()?;
    let mut rig = Rig::new(GUESTS, 4);
    let mut flows: Vec<_> = tenants.iter().map(|tenant| install(&mut rig, tenant)).collect();
    let mut pairs: [Pairs; 2] = Default::default();
    let operations = COLD_OPERATIONS.min(keys / 2);
    for round in 0..=rounds {
        // Others than in the round before, which may still be in memory.
        let first = round as u64 * operations % (keys - operations);
        for (pairs, step) in pairs.iter_mut().zip([1, SCATTERED_STEP]) {
            let begun = Instant::now();
            flows.iter_mut().for_each(|flow| {
                flow.send(&[format!("get k {first} {operations} {step} {keys}")]);
            });
            let answers = answers(&mut rig, &flows)?;
            let guests = begun.elapsed().as_secs_f64();
            ensure!(answers.iter().all(|answer| answer.parse::<u64>().is_ok()), "{answers:?}");
            let begun = Instant::now();
            for place in 0..operations {
                let key = key("k", (first + place * step) % keys);
                for tenant in &tenants {
                    let key = [tenant.name.as_bytes(), &[0], &key].concat();
                    std::hint::black_box(bare.get(key)?.context("it was written")?.to_vec());
                }
            }
            let sled = begun.elapsed().as_secs_f64();
            if round > 0 {
                let all = operations as f64 * GUESTS as f64;
                pairs.push((all / guests, all / sled));
            }
        }
    }
    Ok(pairs)
}
