//! Map: a message that carries a PNG, JPEG or GIF becomes a snapshot, whose format and
//! size are what the file's head says and whose frame is the file as it came. AIO's
//! sample of this name also decodes the pixels, which `snapshot` here has no use for.

use operator_logic::image::{self, Head};
use wasm_graph_sdk::macros::map_operator;

#[map_operator]
fn to_snapshot(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let file = message.payload.read();
    let Some(Head { format, width, height }) = image::head(&file) else {
        return Err(Error { message: "payload is no PNG, JPEG or GIF".into() });
    };
    Ok(DataModel::Snapshot(Snapshot {
        timestamp: message.timestamp,
        format: BufferOrString::String(format.into()),
        width,
        height,
        frame: BufferOrBytes::Bytes(file),
    }))
}
