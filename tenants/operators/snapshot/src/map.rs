//! A snapshot's class, as a message.

use operator_logic::image::{self, Objects};
use wasm_graph_sdk::macros::map_operator;

#[map_operator]
fn classify(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Snapshot(snapshot) = input else {
        return Err(Error { message: "expected a snapshot".into() });
    };
    let mut objects = Objects::default();
    objects.add(image::class(snapshot.width, snapshot.height), 1);
    let payload = objects.payload().map_err(|error| Error { message: error.to_string() })?;
    Ok(DataModel::Message(Message {
        timestamp: snapshot.timestamp,
        // A snapshot has no topic to hand on.
        topic: BufferOrBytes::Bytes(Vec::new()),
        content_type: Some(BufferOrString::String("application/json".into())),
        payload: BufferOrBytes::Bytes(payload),
        properties: MessageProperties { user_properties: Vec::new() },
        schema: None,
    }))
}
