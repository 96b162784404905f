//! Fuzzes `tidegate::fuzz::packed`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::packed(data));
