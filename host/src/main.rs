//! The `tidegate` binary: commands for platform and tenant teams.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidegate::planted::plant_from_environment();
    tidegate::cli::main()
}
