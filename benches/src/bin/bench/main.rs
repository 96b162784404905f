//! The benches, each a figure that Tidegate holds to: `cargo xtask bench NAME`. One
//! binary, so that one build makes all of them.

mod accounting;
mod chaos;
mod contracts;
mod crowd;
mod dense;
mod density;
mod deploy;
mod http;
mod kafka;
mod metering;
mod mqtt;
mod otlp;
mod path;
mod peers;
mod quiet;
mod restart;
mod scorecard;
mod share;
mod soak;
mod state;
mod windows;

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicU64, Ordering},
};

use clap::{Parser, Subcommand};

/// Measures the host against what it is compared with, side by side in one run.
#[derive(Parser)]
struct Args {
    /// Three short rounds.
    #[arg(long, global = true)]
    quick: bool,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// A batch through the whole host against the bare call, and allocations.
    Path,
    /// The packed contract against AIO's, by size of batch and message.
    Contracts,
    /// MQTT to MQTT through two operators against a native program.
    Mqtt,
    /// Kafka to Kafka through two operators against a native program and other engines.
    Kafka,
    /// HTTP requests through an operator and back against a bare echo.
    Http,
    /// OTLP to OTLP through a filter against the OpenTelemetry Collector.
    Otlp,
    /// What counting fuel and asking for epochs cost a guest.
    Metering,
    /// The pool without copy-on-write and guards: live instances, and what calls cost there.
    Dense,
    /// Memory of resident tenants and of live instances.
    Density,
    /// Quiet tenants beside attackers on one shard.
    Quiet,
    /// From `apply` to the first sink write, and instantiation.
    Deploy,
    /// A million messages through windows against plain Timely.
    Windows,
    /// Tenants' state from a guest against bare sled.
    State,
    /// Windows of hosts that are killed again and again.
    Restart,
    /// Shares of a shard, by weight.
    Fair,
    /// What a tenant with a cap gets in any second.
    Cap,
    /// Quiet tenants beside each attack of the list.
    Scorecard(Only),
    /// Hosts, brokers, links, disks and clocks made to fail under load.
    Chaos(Only),
    /// MQTT and Kafka at half of what is sustained, for long.
    Soak(Only),
    /// Ten thousand tenants with and without ten attackers.
    Crowd,
    /// The noisy neighbour of `scorecard` in another engine, beside the same here.
    Peers,
    /// What deploys, removals and attacks leave behind.
    Leak,
    /// Every quota on against every quota off.
    Accounting,
    /// A message's CPU time at 10,000 tenants against 10.
    Spread,
    /// What `density` measures, in a process of its own; told what to do on stdin.
    #[command(hide = true)]
    Resident(density::Resident),
}

#[derive(clap::Args)]
struct Only {
    /// Only the attacks, or scenarios, whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let report = match args.bench {
        Bench::Path => path::run(args.quick)?,
        Bench::Contracts => contracts::run(args.quick)?,
        Bench::Mqtt => mqtt::run(args.quick)?,
        Bench::Kafka => kafka::run(args.quick)?,
        Bench::Http => http::run(args.quick)?,
        Bench::Otlp => otlp::run(args.quick)?,
        Bench::Metering => metering::run(args.quick)?,
        Bench::Dense => dense::run(args.quick)?,
        Bench::Density => density::run(args.quick)?,
        Bench::Quiet => quiet::run(args.quick)?,
        Bench::Deploy => deploy::run(args.quick)?,
        Bench::Windows => windows::run(args.quick)?,
        Bench::State => state::run(args.quick)?,
        Bench::Restart => restart::run(args.quick)?,
        Bench::Scorecard(Only { only }) => scorecard::run(args.quick, &only)?,
        Bench::Chaos(Only { only }) => {
            std::process::exit(i32::from(!chaos::run(args.quick, &only)?.print_json()))
        }
        Bench::Soak(Only { only }) => soak::run(args.quick, &only)?,
        Bench::Crowd => crowd::run(args.quick)?,
        Bench::Peers => peers::run(args.quick)?,
        Bench::Leak => scorecard::leak(args.quick)?,
        Bench::Fair => share::fair(args.quick)?,
        Bench::Cap => share::cap(args.quick)?,
        Bench::Accounting => accounting::run(args.quick)?,
        Bench::Spread => density::spread(args.quick)?,
        Bench::Resident(resident) => return density::resident(&resident),
    };
    std::process::exit(i32::from(!report.print()));
}

/// Counts allocations; the allocator behind it is the host's.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// A counting allocator has no safe form; it only passes on.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { tikv_jemallocator::Jemalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { tikv_jemallocator::Jemalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { tikv_jemallocator::Jemalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
