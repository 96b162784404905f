//! How often a window saw each class.
//! One that is no reading is logged and left out: the window must not be lost with it.

use operator_logic::image::{self, Objects};
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::accumulate_operator;

#[accumulate_operator]
fn count_classes(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
    let failed = |error: &dyn std::fmt::Display| Error { message: error.to_string() };
    let DataModel::Message(mut output) = staged else {
        return Err(failed(&"expected a message to be staged"));
    };
    let mut window = Objects::staged(&output.payload.read()).map_err(|error| failed(&error))?;
    for input in inputs {
        let message = match input {
            DataModel::Message(message) => message,
            // A graph may leave out the map, which tells no more than this.
            DataModel::Snapshot(snapshot) => {
                window.add(image::class(snapshot.width, snapshot.height), 1);
                output.timestamp = snapshot.timestamp;
                continue;
            }
            DataModel::BufferOrBytes(_) => {
                logger::log(Level::Warn, "snapshot/accumulate", "left out: expected a message or a snapshot");
                continue;
            }
        };
        match window.merge(&message.payload.read()) {
            // The window's message is its last one's, but for the payload.
            Ok(()) => output = message,
            Err(error) => logger::log(Level::Warn, "snapshot/accumulate", &format!("left out: {error}")),
        }
    }
    output.payload = BufferOrBytes::Bytes(window.payload().map_err(|error| failed(&error))?);
    Ok(DataModel::Message(output))
}
