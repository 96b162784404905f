//! Map: converts a field as `unit-convert` does (its keys), but carelessly. `loop_one_in`
//! and `trap_one_in`: so many messages of that many, told by their bytes, loop or trap
//! whenever they are tried. `stumble_every`: every so many calls an instance traps, and
//! the same message succeeds on the next one. All default to never.

// Attacks on a machine that is not a guest's would be attacks.
#![cfg(target_arch = "wasm32")]

use std::arch::wasm32;
use std::cell::Cell;
use std::hint::black_box;

use operator_logic::{Convert, FieldError};
use serde::Deserialize;
use tidegate_sdk::{Message, Output, map};

/// How often it is what.
#[derive(Deserialize)]
struct Habits {
    #[serde(default)]
    loop_one_in: u64,
    #[serde(default)]
    trap_one_in: u64,
    #[serde(default)]
    stumble_every: u64,
}

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn work(config: &(Convert, Habits), message: &Message, output: &mut Output) -> Result<(), FieldError> {
    let (convert, habits) = config;
    let draw = digest(message.payload());
    if is_one_in(draw, habits.loop_one_in) {
        let mut round = 0_u64;
        loop {
            round = black_box(round + 1);
        }
    }
    if is_one_in(draw.rotate_left(32), habits.trap_one_in) {
        wasm32::unreachable();
    }
    CALLS.set(CALLS.get() + 1);
    if is_one_in(CALLS.get(), habits.stumble_every) {
        wasm32::unreachable();
    }
    output.emit(message).payload_with(|writer| convert.write(message.payload(), writer))?;
    Ok(())
}

map!(work, (Convert, Habits));

fn is_one_in(draw: u64, amount: u64) -> bool {
    amount > 0 && draw.is_multiple_of(amount)
}

/// FNV-1a, and a last mixing so that all bits depend on all bytes.
fn digest(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
