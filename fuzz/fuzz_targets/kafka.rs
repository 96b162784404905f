//! Fuzzes `tidegate::fuzz::kafka`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::kafka(data));
