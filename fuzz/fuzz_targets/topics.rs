//! Fuzzes `tidegate::fuzz::topics`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::topics(data));
