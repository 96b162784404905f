//! `cargo xtask sim`: simulated hosts by the seed, until one breaks a promise.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use tidegate::{guest::component::Components, planted};
use tidegate_benches::{
    rig,
    sim::{self, Outcome},
};

/// Simulates hosts on a virtual clock: tenants that pass, filter, trap and loop,
/// brokers that break, forget and stall, dataflows removed and installed under load.
/// Every message must come to its end once, and weights must hold.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages of one run.
    #[arg(long, default_value_t = 26_000)]
    messages: usize,
    /// Seeds at a time; by default as many as there are cores.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Batches of the tenants that are always busy.
const BUSY_BATCHES: usize = 1_000;
const UNFAIR_MAX: f64 = 0.1;

fn main() -> ExitCode {
    let args = Args::parse();
    planted::plant_from_environment();
    let begin = Instant::now();
    let mut total = Outcome::default();
    let (mut good, mut ok) = (0, true);
    for_each_seed(&args, |seed, result| {
        match result {
            Ok(outcome) => {
                total += &outcome;
                good += 1;
                println!("seed {seed}: {} deliveries, log {:016x}", outcome.deliveries, outcome.log);
            }
            Err(error) => {
                println!("seed {seed}: {error:#}");
                ok = false;
            }
        }
        ok
    });
    println!("{}, {:.0} s", summary(good, &total), begin.elapsed().as_secs_f64());
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(seeds: u64, total: &Outcome) -> String {
    let Outcome { deliveries, messages, faults, stalls, losses, sessions_lost, .. } = total;
    let Outcome { installs, removals, dead_letters, given_up, redelivered, overtook, wire_bytes, .. } = total;
    format!(
        "{seeds} seeds are good: {deliveries} deliveries settled, {overtook} before an earlier one, {messages} messages ended, {redelivered} sent again, \
         {faults} guest faults, {dead_letters} dead letters, {stalls} stalls, {losses} connections lost, \
         {sessions_lost} sessions forgotten, {given_up} messages that no one had any more, {installs} installs, {removals} removals, {} MB of MQTT",
        wire_bytes / 1_000_000
    )
}

/// Runs seeds on all cores and hands over what came of them, in order, until
/// `report` wants no more.
fn for_each_seed(args: &Args, mut report: impl FnMut(u64, anyhow::Result<Outcome>) -> bool) {
    let components = rig::components();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // What is planted counts the whole process: one seed at a time replays the same.
    let is_planted = std::env::var("TIDEGATE_PLANT").is_ok_and(|plant| !plant.is_empty());
    let jobs = args.jobs.unwrap_or(if is_planted { 1 } else { cores });
    let (next, is_over) = (AtomicU64::new(args.seed), AtomicBool::new(false));
    let (tx, rx) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let tx = tx.clone();
            scope.spawn(|| {
                let tx = tx;
                while !is_over.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= args.seed + args.seeds
                        || tx.send((seed, run(seed, &components, args))).is_err()
                    {
                        return;
                    }
                }
            });
        }
        drop(tx);
        let (mut results, mut due) = (BTreeMap::new(), args.seed);
        for (seed, result) in rx {
            results.insert(seed, result);
            while let Some(result) = results.remove(&due) {
                if !is_over.load(Ordering::SeqCst) && !report(due, result) {
                    is_over.store(true, Ordering::SeqCst);
                }
                due += 1;
            }
        }
    });
}

fn run(seed: u64, components: &Components, args: &Args) -> anyhow::Result<Outcome> {
    let outcome = sim::run(seed, components, args.messages)?;
    // A planted panic takes busy tenants away, as it should.
    if std::env::var("TIDEGATE_PLANT").is_ok_and(|plant| plant == "panic") {
        return Ok(outcome);
    }
    let unfair = sim::unfairness(seed, components, &[1, 2, 4, 1], BUSY_BATCHES).context("busy tenants")?;
    ensure!(unfair <= UNFAIR_MAX, "a tenant's share is {:.0} % off", unfair * 100.0);
    Ok(outcome)
}
