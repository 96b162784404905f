//! The `tidegate` binary: commands for platform and tenant teams.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate::planted::plant_from_environment();
    tidegate::cli::main()
}
