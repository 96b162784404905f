//! Attacks its host as configured, and otherwise passes messages on, so that a batch
//! can mix guilty messages with innocent ones. Exports map, filter and branch.
//!
//! Keys: `attack`, one of [`Attack`]; `at`, `message` (the default) or `init`; a message
//! is guilty if its payload contains `marker` (default `attack`), or, with `every`, if
//! it is the `every`th that an instance sees; `amount`, how much of an attack that has
//! a measure, by default without end or the most there is.

// Attacks on a machine that is not a guest's would be attacks.
#![cfg(target_arch = "wasm32")]

use std::arch::wasm32;
use std::cell::Cell;
use std::hint::black_box;

use serde::Deserialize;
use tidegate_sdk::{Message, Output, Time, branch, filter, map};

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawConfig")]
struct Config {
    attack: Attack,
    at: At,
    marker: String,
    every: Option<u64>,
    amount: u64,
}

#[derive(Deserialize)]
struct RawConfig {
    attack: Attack,
    #[serde(default)]
    at: At,
    marker: Option<String>,
    every: Option<u64>,
    amount: Option<u64>,
}

impl TryFrom<RawConfig> for Config {
    type Error = String;

    /// Where `init` comes by.
    fn try_from(raw: RawConfig) -> Result<Self, String> {
        let RawConfig { attack, at, marker, every, amount } = raw;
        let marker = marker.unwrap_or_else(|| "attack".into());
        let config = Config { attack, at, marker, every, amount: amount.unwrap_or(u64::MAX) };
        if config.at == At::Init {
            config.attack.run(config.amount)?;
        }
        Ok(config)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum At {
    #[default]
    Message,
    Init,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Attack {
    /// Loops; `amount` rounds.
    Spin,
    /// Executes `unreachable`.
    Trap,
    /// Panics with a message on standard error.
    Panic,
    /// Reads far outside of its memory.
    Stray,
    /// Calls itself; `amount` calls.
    Recurse,
    /// Grows its memory page by page and touches each, until refused; then goes on.
    /// `amount` pages.
    Grow,
    /// Allocates until the allocator gives up, which aborts.
    Allocate,
    /// Fills all of its memory over and over, in single instructions; `amount` times.
    Fill,
    /// Emits empty messages; `amount` of them, by default a million. Maps only.
    Messages,
    /// Emits one message of `amount` bytes, by default 64 MiB. Maps only.
    Bytes,
    /// Returns a fault of `amount` bytes, by default 64 MiB.
    Fault,
    /// Writes lines to the log; `amount` of them.
    Log,
    /// Sleeps; `amount` seconds.
    Sleep,
    /// Reads the clock; `amount` times.
    Clock,
    /// Ends its process.
    Exit,
}

impl Attack {
    fn run(self, amount: u64) -> Result<(), String> {
        match self {
            Attack::Spin => spin(amount),
            Attack::Trap => wasm32::unreachable(),
            Attack::Panic => panic!("an attack"),
            Attack::Stray => stray(),
            Attack::Recurse => _ = black_box(recurse(amount)),
            Attack::Grow => grow(amount),
            Attack::Allocate => allocate(),
            Attack::Fill => fill(amount),
            Attack::Messages | Attack::Bytes => {}
            Attack::Fault => return Err("f".repeat(measure(amount, 64 << 20))),
            Attack::Log => (0..amount).for_each(|line| println!("line {line} of an attack")),
            Attack::Sleep => std::thread::sleep(std::time::Duration::from_secs(amount)),
            Attack::Clock => (0..amount).for_each(|_| _ = black_box(std::time::Instant::now())),
            Attack::Exit => std::process::exit(1),
        }
        Ok(())
    }
}

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

fn is_guilty(config: &Config, message: &Message) -> bool {
    if config.at == At::Init {
        return false;
    }
    match config.every {
        Some(every) => {
            SEEN.set(SEEN.get() + 1);
            SEEN.get().is_multiple_of(every)
        }
        None => message
            .payload()
            .windows(config.marker.len().max(1))
            .any(|window| window == config.marker.as_bytes()),
    }
}

fn map(config: &Config, message: &Message, output: &mut Output) -> Result<(), String> {
    if is_guilty(config, message) {
        match config.attack {
            Attack::Messages => {
                for _ in 0..measure(config.amount, 1_000_000) {
                    output.emit(message).payload("");
                }
            }
            Attack::Bytes => {
                output.emit(message).payload(vec![b'b'; measure(config.amount, 64 << 20)]);
                return Ok(());
            }
            attack => attack.run(config.amount)?,
        }
    }
    output.emit(message);
    Ok(())
}

fn filter(config: &Config, message: &Message) -> Result<bool, String> {
    if is_guilty(config, message) {
        config.attack.run(config.amount)?;
    }
    Ok(true)
}

fn branch(config: &Config, message: &Message, _time: &Time) -> Result<bool, String> {
    filter(config, message)
}

map!(map, Config);
filter!(filter, Config);
branch!(branch, Config);

fn measure(amount: u64, default: usize) -> usize {
    if amount == u64::MAX { default } else { amount as usize }
}

fn spin(amount: u64) {
    for round in 0..amount {
        black_box(round);
    }
}

fn recurse(left: u64) -> u64 {
    // `black_box` keeps this from becoming a loop, and some stack in use.
    let frame = black_box([left; 16]);
    if left == 0 { frame[0] } else { recurse(left - 1).wrapping_add(black_box(frame)[1]) }
}

fn allocate() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 64 << 10]));
    }
}

const PAGE_BYTES: usize = 64 << 10;

fn stray() {
    let far = black_box(usize::MAX - 8) as *const u8;
    // Not safe at all: it is meant to trap.
    black_box(unsafe { far.read_volatile() });
}

fn grow(amount: u64) {
    for _ in 0..amount {
        let page = wasm32::memory_grow::<0>(1);
        if page == usize::MAX {
            return;
        }
        // Safe: the page is this guest's own, and nobody else knows of it.
        unsafe { ((page * PAGE_BYTES) as *mut u8).write_volatile(1) };
    }
}

fn fill(amount: u64) {
    let start = wasm32::memory_size::<0>();
    while wasm32::memory_grow::<0>(1) != usize::MAX {}
    let bytes = (wasm32::memory_size::<0>() - start) * PAGE_BYTES;
    for round in 0..amount {
        // Safe: the pages are this guest's own, and nobody else knows of them.
        unsafe { std::ptr::write_bytes(black_box(start * PAGE_BYTES) as *mut u8, round as u8, bytes) };
    }
}
