//! Fuzzes `tidegate::fuzz::commands`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::commands(data));
