//! Whole-host tests: one binary, so that it links once.

mod path;

