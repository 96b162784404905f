//! °F to °C.

use operator_logic::climate;
use wasm_graph_sdk::macros::map_operator;

#[map_operator]
fn fahrenheit_to_celsius(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let payload = climate::to_celsius(&message.payload.read());
    message.payload = BufferOrBytes::Bytes(payload.map_err(|error| Error { message: error.to_string() })?);
    Ok(DataModel::Message(message))
}
