//! Drops what no sensor can have measured.

use std::sync::OnceLock;

use operator_logic::climate::Bounds;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::filter_operator;

static BOUNDS: OnceLock<Bounds> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    let get = |name: &str| {
        configuration.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    match Bounds::parse(get("temperature_lower_bound"), get("temperature_upper_bound")) {
        Ok(bounds) => BOUNDS.set(bounds).is_ok(),
        Err(error) => {
            logger::log(Level::Error, "temperature/filter", &error.to_string());
            false
        }
    }
}

#[filter_operator(init = "start")]
fn is_believed(input: DataModel) -> Result<bool, Error> {
    let DataModel::Message(message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let bounds = BOUNDS.get().expect("the host calls `init` first");
    bounds.hold(&message.payload.read()).map_err(|error| Error { message: error.to_string() })
}
