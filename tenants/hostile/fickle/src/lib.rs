//! Map in AIO's contract that is fine when it is deployed, and refuses its configuration
//! from when the key `refuse` is in the state store: instances of it that are made later
//! do not start. What it is given it gives back.

wit_bindgen::generate!({
    path: "../../../wit/wasm-graph-processor",
    world: "map-impl",
});

use exports::wasm_graph::processor::map::Guest;
use wasm_graph::processor::{
    state_store,
    types::{DataModel, Error, ModuleConfiguration},
};

struct Fickle;

impl Guest for Fickle {
    fn process(message: DataModel) -> Result<DataModel, Error> {
        Ok(message)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        !state_store::get(b"refuse", None).is_ok_and(|answer| answer.response.is_some())
    }
}

export!(Fickle);
