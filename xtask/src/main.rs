//! The project's own commands: `cargo xtask demo|test|bench|sim|guests|languages|component`.
//! Each gets what it needs by itself, without root, into `target/` and `tenants/target/`.

mod demo;
mod guests;
mod languages;
mod made;
mod run;
mod tools;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::languages::Language;

/// Commands for working on Tidegate.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds every guest component into tenants/target/wasm32-wasip2/release.
    Guests,
    /// Builds the guests in other languages than Rust into tenants/target/LANGUAGE, with
    /// compilers that it fetches.
    Languages,
    /// Builds one guest of your own, in another language than Rust.
    Component {
        language: Language,
        /// What is to be compiled.
        source: PathBuf,
        /// The world that it exports, by its name, or NAMESPACE:PACKAGE/NAME.
        #[arg(long)]
        world: String,
        /// WIT packages, each after those that it needs [default: AIO's contract].
        #[arg(long)]
        wit: Vec<PathBuf>,
        #[arg(short, long)]
        output: PathBuf,
    },
    /// The main job: three teams on real data, one of them careless, on a host with its
    /// broker inside.
    Demo {
        /// End by itself after so many seconds, with a summary.
        #[arg(long)]
        seconds: Option<u64>,
        /// Messages a second for each team.
        #[arg(long, default_value_t = 200)]
        rate: u32,
    },
    /// Builds in release and runs a bench, or all of them for benches/RESULTS.md.
    Bench {
        /// path, contracts, metering, deploy, quiet, density, dense, mqtt, kafka, http, otlp, windows,
        /// state, restart, fair, cap, scorecard, accounting, leak, spread, crowd, peers, chaos, soak, or
        /// all but the last two.
        name: String,
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        /// Of `scorecard`, `chaos` and `soak`, only what has this in its name.
        #[arg(long)]
        only: Option<String>,
    },
    /// Simulates hosts on a virtual clock, in release.
    Sim {
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Builds guests and host and runs all tests.
    Test {
        /// Passed on to `cargo test`, for example a filter.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Guests => guests::build(),
        Command::Languages => match languages::build()?.pop() {
            None => Ok(()),
            Some((_, error)) => Err(error),
        },
        Command::Component { language, source, world, wit, output } => {
            languages::component(language, source, wit, world, output)
        }
        Command::Demo { seconds, rate } => demo::demo(demo::Demo { seconds, rate }),
        Command::Bench { name, quick, only } => run::bench(&name, quick, only.as_deref()),
        Command::Sim { seeds, seed } => run::sim(seeds, seed),
        Command::Test { args } => run::test(&args),
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
