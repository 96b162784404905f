//! Filter: every message passes. For benches and as the smallest example.

use std::convert::Infallible;

use tidegate_sdk::{Message, filter};

fn pass(_message: &Message) -> Result<bool, Infallible> {
    Ok(true)
}

filter!(pass);
