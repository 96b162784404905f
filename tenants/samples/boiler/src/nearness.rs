//! Map: adds `nearness`, the share of the parameter `limit` (bar; 10 if absent) that
//! the pressure has reached.

use std::sync::OnceLock;

use serde_json::Value;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;
use wasm_graph_sdk::metrics::{self, CounterValue, Label};

static LIMIT: OnceLock<f64> = OnceLock::new();

fn nearness_init(configuration: ModuleConfiguration) -> bool {
    logger::log(Level::Info, "boiler/map", "starting");
    let limit = configuration.properties.iter().find(|(key, _)| key == "limit");
    match limit.map_or(Ok(10.0), |(_, text)| text.parse()) {
        Ok(limit) => LIMIT.set(limit).is_ok(),
        Err(error) => {
            logger::log(Level::Error, "boiler/map", &format!("`limit`: {error}"));
            false
        }
    }
}

#[map_operator(init = "nearness_init")]
fn add_nearness(input: DataModel) -> Result<DataModel, Error> {
    let labels = vec![Label { key: "operator".to_string(), value: "nearness".to_string() }];
    let _ = metrics::add_to_counter("readings", CounterValue::U64(1), Some(&labels));

    let DataModel::Message(mut message) = input else {
        return Err(Error { message: "expected a message".to_string() });
    };
    let failed = |message: String| Error { message };
    let mut reading: Value = serde_json::from_slice(&message.payload.read())
        .map_err(|error| failed(format!("no JSON: {error}")))?;
    let pressure = reading["pressure"].as_f64().ok_or_else(|| failed("no `pressure`".to_string()))?;
    reading["nearness"] = (pressure / LIMIT.get().unwrap()).into();
    message.payload = BufferOrBytes::Bytes(reading.to_string().into_bytes());
    Ok(DataModel::Message(message))
}
