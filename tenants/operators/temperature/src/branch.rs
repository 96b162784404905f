//! Temperatures from all other readings.

use operator_logic::climate;
use wasm_graph_sdk::macros::branch_operator;

#[branch_operator]
fn is_temperature(_time: HybridLogicalClock, input: DataModel) -> Result<bool, Error> {
    let DataModel::Message(message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    climate::is_temperature(&message.payload.read()).map_err(|error| Error { message: error.to_string() })
}
