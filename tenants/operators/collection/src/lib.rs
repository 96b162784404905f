//! Accumulate: what the branches of a window found (temperature, humidity, objects),
//! side by side in one message, `{"temperature":[…],"humidity":[…],"object":[…]}`; as
//! AIO's sample of this name.
//! What no branch can have found is logged and left out: the window must not be lost with it.

use operator_logic::climate::Collection;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::accumulate_operator;

#[accumulate_operator]
fn collect(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
    let failed = |error: &dyn std::fmt::Display| Error { message: error.to_string() };
    let DataModel::Message(mut output) = staged else {
        return Err(failed(&"expected a message to be staged"));
    };
    let mut window = Collection::staged(&output.payload.read()).map_err(|error| failed(&error))?;
    for input in inputs {
        let DataModel::Message(message) = input else {
            logger::log(Level::Warn, "collection/accumulate", "left out: expected a message");
            continue;
        };
        match window.add(&message.payload.read()) {
            // The window's message is its last one's, but for the payload.
            Ok(()) => output = message,
            Err(error) => logger::log(Level::Warn, "collection/accumulate", &format!("left out: {error}")),
        }
    }
    output.payload = BufferOrBytes::Bytes(window.payload().map_err(|error| failed(&error))?);
    Ok(DataModel::Message(output))
}
