//! How much fuel guests use in a second of CPU time on this machine: measured on one piece
//! of work, in a process of its own.

use std::{io, path::Path, process::Command};

use wasmtime::{Instance, Module, Store};

use crate::{
    clock::Clock,
    guest::engine::{self, Tuning},
    resource::{EngineKind, PoolLayout},
};

/// The hidden subcommand that measures and prints the number.
pub const SUBCOMMAND: &str = "measure-fuel";

const WORK: &str = include_str!("calibrate.wat");
/// Steps of one round: some milliseconds.
const STEPS: i32 = 1 << 20;
const ROUNDS: usize = 9;

/// Why it is not known how much fuel a second is.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error("cannot run the process that measures fuel")]
    Spawn(#[source] io::Error),
    #[error("the process that measures fuel said `{said}` and ended with {status}")]
    Failed { said: String, status: std::process::ExitStatus },
}

/// Fuel a second of CPU time, by `program measure-fuel`. Takes a tenth of a second.
pub fn measure(program: &Path) -> Result<u64, CalibrateError> {
    let output = Command::new(program).arg(SUBCOMMAND).env_clear().output().map_err(CalibrateError::Spawn)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = || CalibrateError::Failed {
        said: [said.trim(), String::from_utf8_lossy(&output.stderr).trim()].concat(),
        status: output.status,
    };
    said.trim().parse().ok().filter(|fuel| *fuel > 0).ok_or_else(failed)
}

/// The process itself.
pub fn child_main() -> wasmtime::Result<u64> {
    let engine = engine::compiling(Tuning::of(EngineKind::Fuel, PoolLayout::Guarded))?;
    let module = Module::new(&engine, wat::parse_str(WORK)?)?;
    let mut store = Store::new(&engine, ());
    store.set_fuel(u64::MAX)?;
    let instance = Instance::new(&mut store, &module, &[])?;
    let work = instance.get_typed_func::<i32, i32>(&mut store, "work")?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        store.set_fuel(u64::MAX)?;
        let begin = Clock::System.cpu_ns();
        work.call(&mut store, STEPS)?;
        let used = u64::MAX - store.get_fuel()?;
        rounds.push(used as f64 * 1e9 / (Clock::System.cpu_ns() - begin) as f64);
    }
    // What other programs do to caches makes some slower, and nothing makes any faster.
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2] as u64)
}
