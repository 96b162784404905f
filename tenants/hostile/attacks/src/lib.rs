//! Attacks its host as configured, and otherwise passes messages on, so that a batch
//! can mix guilty messages with innocent ones. Exports all five kinds of operator.
//!
//! Keys: `attack`, one of [`Attack`]; `at`, `message` (the default) or `init`; a message
//! is guilty if its payload contains `marker` (default `attack`), or, with `every`, if
//! it is the `every`th that an instance sees; `amount`, how much of an attack that has
//! a measure, by default without end or the most there is; `topic`, for the one that
//! writes to another.

// Attacks on a machine that is not a guest's would be attacks.
#![cfg(target_arch = "wasm32")]

use std::arch::wasm32;
use std::cell::Cell;
use std::hint::black_box;

use serde::Deserialize;
use tidegate_sdk::{Message, Messages, Output, Time, accumulate, branch, delay, filter, map};

mod asks;

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawConfig")]
struct Config {
    attack: Attack,
    at: At,
    marker: String,
    every: Option<u64>,
    amount: u64,
    topic: String,
}

#[derive(Deserialize)]
struct RawConfig {
    attack: Attack,
    #[serde(default)]
    at: At,
    marker: Option<String>,
    every: Option<u64>,
    amount: Option<u64>,
    topic: Option<String>,
}

impl TryFrom<RawConfig> for Config {
    type Error = String;

    /// Where `init` comes by.
    fn try_from(raw: RawConfig) -> Result<Self, String> {
        let RawConfig { attack, at, marker, every, amount, topic } = raw;
        let marker = marker.unwrap_or_else(|| "attack".into());
        let (amount, topic) = (amount.unwrap_or(u64::MAX), topic.unwrap_or_default());
        let config = Config { attack, at, marker, every, amount, topic };
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
    /// Grows its memory as far as it can and touches none of it; then goes on.
    Reserve,
    /// Allocates until the allocator gives up, which aborts.
    Allocate,
    /// Allocates and frees, large and small; `amount` times.
    Churn,
    /// Fills all of its memory over and over, in single instructions; `amount` times.
    Fill,
    /// Copies one half of its memory over the other, in single instructions; `amount` times.
    Copy,
    /// Emits empty messages; `amount` of them, by default a million. Maps only.
    Messages,
    /// Emits messages of 8 KiB; `amount` of them, by default a million. Maps only.
    Pour,
    /// Emits one message of `amount` bytes, by default 64 MiB. Maps only.
    Bytes,
    /// Emits the message to `topic`. Maps only.
    Topic,
    /// Holds the message back for `amount` seconds, by default some thousand years.
    /// Delays only.
    Hold,
    /// Makes the staged value twice as long, `amount` times. Accumulates only.
    Swell,
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
    /// Counts in a metric with another label each time; `amount` times.
    Labels,
    /// Counts in a metric with 200 KiB of labels; `amount` times.
    LongLabels,
    /// Counts in a metric whose name is no UTF-8.
    NotUtf8,
    /// Asks for a key that ends far outside of its memory.
    Enormous,
    /// Sets another key each time; `amount` of them.
    Keys,
    /// Sets keys to values of 64 KiB; `amount` of them.
    Values,
    /// Sets one key to a value of `amount` bytes, by default 1.5 MiB.
    Value,
    /// Sets one key under a token whose node has 200 KiB; `amount` times.
    Tokens,
    /// Asks for a key that is not there; `amount` times.
    Gets,
    /// Writes 512 KiB to standard output at once; `amount` times.
    Write,
    /// Uses a handle that nobody gave it.
    Forge,
    /// Uses a handle of another type than it is.
    Confuse,
    /// Uses a handle that it gave back.
    Reuse,
    /// Asks for handles and keeps them; `amount` of them.
    Hoard,
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
            Attack::Reserve => _ = reserve(),
            Attack::Allocate => allocate(),
            Attack::Churn => churn(amount),
            Attack::Fill => fill(amount),
            Attack::Copy => copy(amount),
            // What only one kind of operator has the means for.
            Attack::Messages | Attack::Pour | Attack::Bytes | Attack::Topic => {}
            Attack::Hold | Attack::Swell => {}
            Attack::Fault => return Err("f".repeat(measure(amount, 64 << 20))),
            Attack::Log => (0..amount).for_each(|line| println!("line {line} of an attack")),
            Attack::Sleep => std::thread::sleep(std::time::Duration::from_secs(amount)),
            Attack::Clock => (0..amount).for_each(|_| _ = black_box(std::time::Instant::now())),
            Attack::Exit => std::process::exit(1),
            Attack::Labels => asks::labels(amount),
            Attack::LongLabels => asks::long_labels(amount),
            Attack::NotUtf8 => asks::not_utf8(),
            Attack::Enormous => asks::enormous(),
            Attack::Keys => asks::keys(amount),
            Attack::Values => asks::values(amount),
            Attack::Value => asks::value(measure(amount, 3 << 19)),
            Attack::Tokens => asks::tokens(amount),
            Attack::Gets => asks::gets(amount),
            Attack::Write => asks::write(amount),
            Attack::Forge => asks::forge(),
            Attack::Confuse => asks::confuse(),
            Attack::Reuse => asks::reuse(),
            Attack::Hoard => asks::hoard(amount),
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
            Attack::Pour => {
                let bytes = vec![b'p'; 8 << 10];
                for _ in 0..measure(config.amount, 1_000_000) {
                    output.emit(message).payload(&bytes);
                }
            }
            Attack::Topic => {
                output.emit(message).topic(&config.topic);
                return Ok(());
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

fn delay<'m>(config: &Config, message: &Message<'m>, time: &Time<'m>) -> Result<Time<'m>, String> {
    if is_guilty(config, message) {
        if config.attack == Attack::Hold {
            let held = if config.amount == u64::MAX { 100_000_000_000 } else { config.amount };
            return Ok(Time { seconds: time.seconds.saturating_add(held), ..*time });
        }
        config.attack.run(config.amount)?;
    }
    Ok(*time)
}

fn accumulate(
    config: &Config,
    staged: &Message,
    messages: Messages,
    output: &mut Output,
) -> Result<(), String> {
    let mut payload = staged.payload().to_vec();
    for message in messages.iter() {
        payload.extend_from_slice(message.payload());
        if is_guilty(config, &message) {
            match config.attack {
                Attack::Swell => (0..config.amount).for_each(|_| payload.extend_from_within(..)),
                attack => attack.run(config.amount)?,
            }
        }
    }
    output.emit(staged).payload(payload);
    Ok(())
}

map!(map, Config);
filter!(filter, Config);
branch!(branch, Config);
delay!(delay, Config);
accumulate!(accumulate, Config);

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

fn churn(amount: u64) {
    for round in 0..amount {
        // A large one that is given back before the small one that fits in its place.
        let bytes = 1 << (round % 19);
        drop(black_box(vec![1_u8; bytes]));
        drop(black_box(Box::new(round)));
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

/// The bytes from the first page that it gets to the last.
fn reserve() -> std::ops::Range<usize> {
    let start = wasm32::memory_size::<0>();
    // Large steps first, so that a small limit is found in few.
    for step in (0..16).rev() {
        while wasm32::memory_grow::<0>(1 << step) != usize::MAX {}
    }
    start * PAGE_BYTES..wasm32::memory_size::<0>() * PAGE_BYTES
}

fn fill(amount: u64) {
    let own = reserve();
    for round in 0..amount {
        // Safe: the pages are this guest's own, and nobody else knows of them.
        unsafe { std::ptr::write_bytes(black_box(own.start) as *mut u8, round as u8, own.len()) };
    }
}

fn copy(amount: u64) {
    let own = reserve();
    let half = own.len() / 2;
    for _ in 0..amount {
        let (from, to) = (black_box(own.start) as *const u8, black_box(own.start + half) as *mut u8);
        // Safe: the pages are this guest's own, and nobody else knows of them.
        unsafe { std::ptr::copy(from, to, half) };
    }
}
