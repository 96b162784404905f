//! `cargo xtask sim`: simulated hosts by the seed, until one breaks a promise.

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use tidegate::planted;
use tidegate_benches::{rig, sim};

/// Simulates hosts on a virtual clock: tenants that pass, filter, trap and loop,
/// sinks that are slow or away, dataflows replaced under load. Every message must
/// come to its end once, and weights must hold.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages of one run.
    #[arg(long, default_value_t = 120_000)]
    messages: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    planted::plant_from_environment();
    let components = rig::components();
    let begin = Instant::now();
    let (mut deliveries, mut removals, mut faults, mut again) = (0, 0, 0, 0);
    for seed in args.seed..args.seed + args.seeds {
        match sim::run(seed, &components, args.messages) {
            Ok(outcome) => {
                deliveries += outcome.deliveries;
                removals += outcome.removals;
                faults += outcome.faults;
                again += outcome.redelivered;
                println!("seed {seed}: {} deliveries, log {:016x}", outcome.deliveries, outcome.log);
            }
            Err(error) => {
                println!("seed {seed}: {error:#}");
                return ExitCode::FAILURE;
            }
        }
        // A planted panic takes busy tenants away, as it should.
        if std::env::var("TIDEGATE_PLANT").is_ok_and(|plant| plant == "panic") {
            continue;
        }
        match sim::unfairness(seed, &components, &[1, 2, 4, 1], 4_000) {
            Ok(unfair) if unfair <= 0.1 => {}
            Ok(unfair) => {
                println!("seed {seed}: a tenant's share is {:.0} % off", unfair * 100.0);
                return ExitCode::FAILURE;
            }
            Err(error) => {
                println!("seed {seed}: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{} seeds, {deliveries} deliveries settled, {removals} replacements, {faults} faults, {again} messages \
         delivered again, {:.0} s",
        args.seeds,
        begin.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
