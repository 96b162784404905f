//! Map: honest work on every message, for floods of it. `micros` is about how many
//! microseconds of a core each message costs under fuel metering.

use std::convert::Infallible;
use std::hint::black_box;

use serde::Deserialize;
use tidegate_sdk::{Message, Output, map};

#[derive(Deserialize)]
struct Config {
    micros: u64,
}

/// Measured on a Zen 4 core with the host's fuel engine.
const ROUNDS_PER_MICRO: u64 = 575;

fn work(config: &Config, message: &Message, output: &mut Output) -> Result<(), Infallible> {
    let mut state = message.payload().len() as u64 | 1;
    for _ in 0..config.micros * ROUNDS_PER_MICRO {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
    output.emit(message);
    Ok(())
}

map!(work, Config);
