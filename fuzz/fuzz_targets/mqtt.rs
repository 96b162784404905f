//! Fuzzes `tidegate::fuzz::mqtt`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::mqtt(data));
