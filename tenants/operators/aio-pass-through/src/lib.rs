//! `pass-through` in AIO's contract: every message as it came, its buffers unread. The
//! bindings as they are, with nothing in between, because benches compare contracts.

wit_bindgen::generate!({
    path: "../../../wit/wasm-graph-processor",
    world: "map-impl",
});

use exports::wasm_graph::processor::map::Guest;
use wasm_graph::processor::types::{DataModel, Error, ModuleConfiguration};

struct PassThrough;

impl Guest for PassThrough {
    fn process(message: DataModel) -> Result<DataModel, Error> {
        Ok(message)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

export!(PassThrough);
