//! Fuzzes `tidegate::fuzz::json_lines`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzz::json_lines(data));
