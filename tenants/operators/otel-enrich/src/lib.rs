//! Map: adds values of the state store to the member `attributes` of a JSON object, each
//! under its key; `otel-transform` makes them a metric's. As AIO's sample of this name.
//!
//! `enrichKeys`: the keys, `factoryId,machineId`. A value that is JSON is added as such,
//! any other as text; a key that the store does not have is left out.

use std::sync::OnceLock;

use operator_logic::otel;
use serde_json::Value;
use wasm_graph_sdk::macros::map_operator;
use wasm_graph_sdk::state_store;

static KEYS: OnceLock<Vec<String>> = OnceLock::new();
/// Of each request to the store.
const TIMEOUT: Option<state_store::Duration> = Some(state_store::Duration { seconds: 5, nanos: 0 });

fn start(configuration: ModuleConfiguration) -> bool {
    let keys = configuration.properties.iter().find(|(key, _)| key == "enrichKeys");
    let keys = keys.map_or("", |(_, keys)| keys).split(',').map(str::trim).filter(|key| !key.is_empty());
    KEYS.set(keys.map(str::to_owned).collect()).is_ok()
}

#[map_operator(init = "start")]
fn enrich(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let mut attributes = Vec::new();
    for key in KEYS.get().expect("the host calls `init` first") {
        let got = state_store::get(key.as_bytes(), TIMEOUT)
            .map_err(|error| Error { message: format!("state store, `{key}`: {error}") })?;
        let Some(value) = got.response else { continue };
        let text = || Value::String(String::from_utf8_lossy(&value).into_owned());
        attributes.push((key.clone(), serde_json::from_slice(&value).unwrap_or_else(|_| text())));
    }
    let payload = otel::add_attributes(&message.payload.read(), attributes);
    message.payload = BufferOrBytes::Bytes(payload.map_err(|error| Error { message: error.to_string() })?);
    Ok(DataModel::Message(message))
}
