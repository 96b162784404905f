//! Map in AIO's contract that looks schemas up: each payload names one, and becomes
//! what came of it. One can look into a tenant's schema registry with it.
//!
//! `ID [VERSION]`, where no version means the newest; `ID VERSION nanos=N` waits for so
//! many nanoseconds.

wit_bindgen::generate!({
    inline: "
        package tidegate:aio-schemas;
        world schemas {
            include wasm-graph:processor/map-impl@1.1.0;
            import wasm-graph:processor/schema-registry@1.1.0;
        }
    ",
    path: "../../../wit/wasm-graph-processor",
    generate_all,
});

use exports::wasm_graph::processor::map::Guest;
use wasm_graph::processor::{
    schema_registry,
    schema_types::{Schema, SchemaError, SchemaFormat, SchemaType},
    types::{BufferOrBytes, DataModel, Error, ModuleConfiguration},
};

struct Schemas;

fn answer(request: &str) -> String {
    let mut words = request.split(' ');
    let (id, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let nanos = words.next().and_then(|word| word.strip_prefix("nanos=")?.parse().ok()).unwrap_or(0);
    match schema_registry::get(id, version, (5, nanos)) {
        Ok(schema) => described(&schema),
        Err(SchemaError::Request(text)) => format!("request: {text}"),
        Err(SchemaError::Internal(text)) => format!("internal: {text}"),
        Err(SchemaError::Timeout) => "timeout".into(),
        Err(SchemaError::NotFound) => "not-found".into(),
        Err(SchemaError::NotAvailable) => "not-available".into(),
    }
}

/// Every field of a schema, in the order of the record.
fn described(schema: &Schema) -> String {
    let format = match schema.format {
        SchemaFormat::Json => "json",
        SchemaFormat::Delta => "delta",
    };
    let SchemaType::MessageSchema = schema.schema_type;
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let tags: Vec<_> = schema.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!(
        "{}|{}|{format}|{}|{}|{}|{}|message-schema|{}|{}",
        text(&schema.description),
        text(&schema.display_name),
        text(&schema.hash),
        schema.name,
        schema.namespace,
        schema.schema_content.trim_end(),
        tags.join(","),
        schema.version,
    )
}

impl Guest for Schemas {
    fn process(mut message: DataModel) -> Result<DataModel, Error> {
        let payload = match &mut message {
            DataModel::BufferOrBytes(payload) => payload,
            DataModel::Message(message) => &mut message.payload,
            DataModel::Snapshot(snapshot) => &mut snapshot.frame,
        };
        let bytes = match payload {
            BufferOrBytes::Buffer(buffer) => buffer.read(),
            BufferOrBytes::Bytes(bytes) => std::mem::take(bytes),
        };
        let request = String::from_utf8_lossy(&bytes);
        // A payload of JSON text, as `tidegate run` reads it from a line.
        *payload = BufferOrBytes::Bytes(answer(request.trim_matches('"')).into_bytes());
        Ok(message)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

export!(Schemas);
