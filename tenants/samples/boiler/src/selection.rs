//! Filter: readings of the boilers that the parameter `boilers` (`b1,b2`) names.

use std::sync::OnceLock;

use serde::Deserialize;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::filter_operator;

static BOILERS: OnceLock<Vec<String>> = OnceLock::new();

#[derive(Deserialize)]
struct Reading {
    boiler: String,
}

fn selection_init(configuration: ModuleConfiguration) -> bool {
    let Some((_, names)) = configuration.properties.iter().find(|(key, _)| key == "boilers") else {
        logger::log(Level::Error, "boiler/filter", "the parameter `boilers` is missing");
        return false;
    };
    BOILERS.set(names.split(',').map(|it| it.trim().to_string()).collect()).unwrap();
    true
}

#[filter_operator(init = "selection_init")]
fn is_selected(input: DataModel) -> Result<bool, Error> {
    let DataModel::Message(message) = input else {
        return Err(Error { message: "expected a message".to_string() });
    };
    let reading: Reading = serde_json::from_slice(&message.payload.read())
        .map_err(|error| Error { message: format!("no reading: {error}") })?;
    Ok(BOILERS.get().unwrap().contains(&reading.boiler))
}
