//! Loops while it is instantiated, before any export is called: the linker runs
//! `_initialize` from a start function.

// Attacks on a machine that is not a guest's would be attacks.
#![cfg(target_arch = "wasm32")]

use std::convert::Infallible;
use std::hint::black_box;

use tidegate_sdk::{Message, Output, map};

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    let mut round = 0_u64;
    loop {
        round = black_box(round + 1);
    }
}

fn pass(message: &Message, output: &mut Output) -> Result<(), Infallible> {
    output.emit(message);
    Ok(())
}

map!(pass);
