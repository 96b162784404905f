//! Map: every message as it came. For benches and as the smallest example.

use std::convert::Infallible;

use tidegate_sdk::{Message, Output, map};

fn pass(message: &Message, output: &mut Output) -> Result<(), Infallible> {
    output.emit(message);
    Ok(())
}

map!(pass);
