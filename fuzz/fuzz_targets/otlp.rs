//! Fuzzes `tidegate::fuzz::otlp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::otlp(data));
