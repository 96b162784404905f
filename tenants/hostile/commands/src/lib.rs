//! Map that gives AIO's `command-invoker` a list of ten thousand empty pairs for a request
//! that it never sends, `amount` times (by default without end) for each message that
//! contains `attack`. Apart from the other attacks, since whoever can ask other programs is
//! not deployed without a broker to ask them over.

// Attacks on a machine that is not a guest's would be attacks.
#![cfg(target_arch = "wasm32")]

use std::convert::Infallible;
use std::hint::black_box;

use serde::Deserialize;
use tidegate_sdk::{Message, Output, map};

wit_bindgen::generate!({
    inline: r#"
        package hostile:commands;
        world asks {
            import wasm-graph:processor/command-invoker@1.1.0;
        }
    "#,
    path: "../../../wit/wasm-graph-processor",
    generate_all,
});

use wasm_graph::processor::command_invoker::CommandRequestBuilder;

#[derive(Deserialize)]
struct Config {
    amount: Option<u64>,
}

#[link(wasm_import_module = "wasm-graph:processor/command-invoker@1.1.0")]
unsafe extern "C" {
    /// Bindings would copy the list each time, which costs the guest's own fuel.
    #[link_name = "[method]command-request-builder.custom-user-data"]
    fn custom_user_data(builder: u32, pairs: *const [u32; 4], count: usize, result: *mut [u32; 4]);
}

fn give(amount: u64) {
    let builder = CommandRequestBuilder::new();
    let (pairs, mut result) = (vec![[1, 0, 1, 0]; 10_000], [0; 4]);
    for _ in 0..amount {
        // Safe: as the canonical ABI lays them out, and the host refuses so many.
        unsafe { custom_user_data(builder.handle(), pairs.as_ptr(), pairs.len(), &mut result) };
    }
    black_box(result);
}

fn map(config: &Config, message: &Message, output: &mut Output) -> Result<(), Infallible> {
    if message.payload().windows(6).any(|window| window == b"attack") {
        give(config.amount.unwrap_or(u64::MAX));
    }
    output.emit(message);
    Ok(())
}

map!(map, Config);
