//! `tidegate-loadtest`: its commands, and what they end with: 0 all thresholds kept, 1
//! one missed or something failed, 2 wrong usage, 130 stopped by Ctrl-C.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
