//! Fuzzes `tidegate::fuzz::resources`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::resources(data));
