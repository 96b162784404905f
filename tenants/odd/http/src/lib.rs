//! Map: asks a server about every message, for which it imports
//! `wasi:http/outgoing-handler`, an import that few policies grant.

#![cfg(target_arch = "wasm32")]

use tidegate_sdk::{Message, Output, map};
use wasip2::http::outgoing_handler::{OutgoingRequest, handle};
use wasip2::http::types::Fields;

fn ask(message: &Message, output: &mut Output) -> Result<(), String> {
    let request = OutgoingRequest::new(Fields::new());
    request.set_authority(Some("example.com")).map_err(|()| "authority refused")?;
    handle(request, None).map_err(|error| error.to_string())?;
    output.emit(message);
    Ok(())
}

map!(ask);
