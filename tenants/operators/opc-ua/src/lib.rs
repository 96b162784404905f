//! Map: an object of OPC UA values, `{"Tag":{"Value":…,"SourceTimestamp":…},…}`, becomes
//! an array of rows `{"tag","timestamp","value"}`, ordered by tag; as AIO's sample of
//! this name.
//!
//! All parameters are optional. `dataschema`: a reference to the rows' schema, which the
//! message then carries. `headers`: names of user properties (`a,b`) that every row gets
//! as members. `copy_all`: with `true` every row also gets the members that are no OPC
//! UA value.

use std::sync::OnceLock;

use operator_logic::opc_ua;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;

static SETTINGS: OnceLock<Settings> = OnceLock::new();

#[derive(Default)]
struct Settings {
    schema: Option<String>,
    headers: Vec<String>,
    copy_all: bool,
}

fn start(configuration: ModuleConfiguration) -> bool {
    let mut settings = Settings::default();
    for (key, value) in configuration.properties.into_iter().filter(|(_, value)| !value.trim().is_empty()) {
        match (key.as_str(), value.trim().to_ascii_lowercase().as_str()) {
            ("dataschema", _) => settings.schema = Some(value),
            ("headers", _) => settings.headers = value.split(',').map(|it| it.trim().to_owned()).collect(),
            ("copy_all", "true") => settings.copy_all = true,
            ("copy_all", "false") => settings.copy_all = false,
            ("copy_all", _) => {
                logger::log(Level::Error, "opc-ua/map", "`copy_all`: expected true or false");
                return false;
            }
            _ => {}
        }
    }
    SETTINGS.set(settings).is_ok()
}

fn read(text: &BufferOrString) -> String {
    match text {
        BufferOrString::String(text) => text.clone(),
        BufferOrString::Buffer(buffer) => String::from_utf8_lossy(&buffer.read()).into_owned(),
    }
}

#[map_operator(init = "start")]
fn flatten(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let settings = SETTINGS.get().expect("the host calls `init` first");
    let properties = message.properties.user_properties.iter();
    let extra: Vec<_> = properties
        .map(|(name, value)| (read(name), value))
        .filter(|(name, _)| settings.headers.contains(name))
        .map(|(name, value)| (name, read(value)))
        .collect();
    let rows = opc_ua::flatten(&message.payload.read(), &extra, settings.copy_all)
        .map_err(|error| Error { message: error.to_string() })?;
    message.payload = BufferOrBytes::Bytes(rows);
    if let Some(schema) = &settings.schema {
        message.schema = Some(MessageSchema::RegistryReference(BufferOrString::String(schema.clone())));
    }
    Ok(DataModel::Message(message))
}
