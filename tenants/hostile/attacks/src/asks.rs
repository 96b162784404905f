//! Attacks through what the host may be asked: AIO's metrics, state store and handles.

use std::hint::black_box;

wit_bindgen::generate!({
    inline: r#"
        package hostile:attacks;
        world asks {
            import wasm-graph:processor/types@1.1.0;
            import wasm-graph:processor/metrics@1.1.0;
            import wasm-graph:processor/state-store@1.1.0;
            import wasm-graph:processor/command-invoker@1.1.0;
        }
    "#,
    path: "../../../wit/wasm-graph-processor",
    generate_all,
});

use wasm_graph::processor::{
    command_invoker::{CommandInvokerOptionsBuilder, CommandRequestBuilder},
    hybrid_logical_clock::{HybridLogicalClock, Timespec},
    metrics::{CounterValue, Label, add_to_counter},
    state_store::{self, SetOptions},
    state_store_types::SetConditions,
    types::Buffer,
};

/// Below the 256 KiB that all strings of one host call may have.
const LONG_BYTES: usize = 200 << 10;

/// It goes on whatever it is told: what it gets is the host's to bound.
fn count(name: &str, labels: &[Label]) {
    _ = black_box(add_to_counter(name, CounterValue::U64(1), Some(labels)));
}

pub fn labels(amount: u64) {
    for number in 0..amount {
        count("explosion", &[Label { key: "number".into(), value: number.to_string() }]);
    }
}

pub fn long_labels(amount: u64) {
    let labels = [Label { key: "long".into(), value: "l".repeat(LONG_BYTES) }];
    (0..amount).for_each(|_| count("long", &labels));
}

pub fn not_utf8() {
    // Not sound at all: the host must find it out.
    let name = unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe]) };
    count(&name, &[]);
}

pub fn enormous() {
    let label = Label { key: String::new(), value: String::new() };
    // Neither is this list, whose end is far outside of the guest's memory.
    let labels = unsafe { std::slice::from_raw_parts(&label, black_box(1 << 26)) };
    count("enormous", labels);
}

fn set(key: &[u8], value: &[u8], token: Option<&HybridLogicalClock>) {
    let options = SetOptions { conditions: SetConditions::Unconditional, expires: None };
    _ = black_box(state_store::set(key, value, None, token, options));
}

pub fn keys(amount: u64) {
    (0..amount).for_each(|number| set(&number.to_le_bytes(), b"", None));
}

pub fn values(amount: u64) {
    let value = vec![b'v'; 64 << 10];
    (0..amount).for_each(|number| set(&number.to_le_bytes(), &value, None));
}

pub fn value(amount: u64) {
    let bytes = if amount == u64::MAX { super::reserve() } else { 0..amount as usize };
    // Memory of its own, or zeros that it need not keep.
    let value = match amount {
        u64::MAX => unsafe { std::slice::from_raw_parts(bytes.start as *const u8, bytes.len()) },
        amount => &vec![b'v'; amount as usize],
    };
    set(b"huge", value, None);
}

pub fn tokens(amount: u64) {
    let token = HybridLogicalClock {
        timestamp: Timespec { secs: 1, nanos: 0 },
        counter: 0,
        node_id: "n".repeat(LONG_BYTES),
    };
    (0..amount).for_each(|_| set(b"token", b"", Some(&token)));
}

pub fn gets(amount: u64) {
    (0..amount).for_each(|_| _ = black_box(state_store::get(b"nothing", None)));
}

/// One that might be another instance's, were there one table for all.
const FORGED: u32 = 3;

pub fn forge() {
    let buffer = unsafe { Buffer::from_handle(black_box(FORGED)) };
    black_box(buffer.read());
}

pub fn confuse() {
    let builder = CommandRequestBuilder::new();
    let buffer = unsafe { Buffer::from_handle(black_box(builder.handle())) };
    black_box(buffer.read());
}

pub fn reuse() {
    let builder = CommandInvokerOptionsBuilder::new();
    let handle = builder.handle();
    drop(builder);
    let builder = unsafe { CommandInvokerOptionsBuilder::from_handle(black_box(handle)) };
    _ = black_box(builder.command_name("again"));
}

pub fn hoard(amount: u64) {
    let kept: Vec<_> = (0..amount).map(|_| CommandRequestBuilder::new()).collect();
    black_box(kept);
}
