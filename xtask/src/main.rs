//! The project's own commands: `cargo xtask demo|test|bench|sim|guests`. Each gets
//! what it needs by itself, without root, into `target/` and `tenants/target/`.

mod guests;
mod run;
mod tools;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
        Command::Test { args } => run::test(&args),
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
