//! Attacks through what the host may be asked: AIO's metrics, state store and handles, and
//! standard output.

use std::hint::black_box;

wit_bindgen::generate!({
    inline: r#"
        package hostile:attacks;
        world asks {
            import wasm-graph:processor/types@1.1.0;
            import wasm-graph:processor/metrics@1.1.0;
            import wasm-graph:processor/state-store@1.1.0;
            import wasi:cli/stdout@0.2.12;
            import wasi:clocks/monotonic-clock@0.2.12;
        }
    "#,
    path: [
        "../../../wit/wasm-graph-processor",
        "../../../wit/deps/io.wit",
        "../../../wit/deps/clocks.wit",
        "../../../wit/deps/random.wit",
        "../../../wit/deps/filesystem.wit",
        "../../../wit/deps/sockets.wit",
        "../../../wit/deps/cli.wit",
    ],
    generate_all,
});

use wasi::cli::stdout::get_stdout;
use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::io::streams::OutputStream;
use wasm_graph::processor::{
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
    let start = black_box(1 << 16) as *const u8;
    // Neither is this slice, most of which is not the guest's.
    let key = unsafe { std::slice::from_raw_parts(start, 1 << 30) };
    _ = black_box(state_store::get(key, None));
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

pub fn value(bytes: usize) {
    set(b"huge", &vec![b'v'; bytes], None);
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

pub fn write(amount: u64) {
    let (stdout, bytes) = (get_stdout(), vec![b'w'; 512 << 10]);
    (0..amount).for_each(|_| _ = black_box(stdout.write(&bytes)));
}

/// One that might be another instance's, were there one table for all.
const FORGED: u32 = 3;

pub fn forge() {
    let buffer = unsafe { Buffer::from_handle(black_box(FORGED)) };
    black_box(buffer.read());
}

pub fn confuse() {
    let stdout = get_stdout();
    let buffer = unsafe { Buffer::from_handle(black_box(stdout.handle())) };
    black_box(buffer.read());
}

pub fn reuse() {
    let stdout = get_stdout();
    let handle = stdout.handle();
    drop(stdout);
    let stdout = unsafe { OutputStream::from_handle(black_box(handle)) };
    _ = black_box(stdout.write(b"again"));
}

pub fn hoard(amount: u64) {
    let mut kept = Vec::new();
    (0..amount).for_each(|_| kept.push(subscribe_duration(1 << 40)));
    black_box(kept);
}
