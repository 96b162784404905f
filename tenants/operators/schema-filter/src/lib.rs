//! Filter: passes payloads that fit the JSON Schema of the dataflow's inbound
//! connection, which the host hands over as a module schema; as AIO's sample of this
//! name. A payload that is no JSON does not fit. Without a schema it does not start,
//! nor with one of whose keywords it knows not all (references and patterns are not).

use std::sync::OnceLock;

use operator_logic::schema::Schema;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::filter_operator;

static SCHEMA: OnceLock<Schema> = OnceLock::new();

fn compile(configuration: &ModuleConfiguration) -> Result<Schema, String> {
    let schema = configuration.module_schemas.first().ok_or("the connection has no schema")?;
    Schema::parse(&schema.content).map_err(|error| format!("`{}`: {error}", schema.name))
}

fn start(configuration: ModuleConfiguration) -> bool {
    match compile(&configuration) {
        Ok(schema) => SCHEMA.set(schema).is_ok(),
        Err(error) => {
            logger::log(Level::Error, "schema-filter/filter", &error);
            false
        }
    }
}

#[filter_operator(init = "start")]
fn fits(input: DataModel) -> Result<bool, Error> {
    let DataModel::Message(message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let schema = SCHEMA.get().expect("the host calls `init` first");
    let payload = serde_json::from_slice(&message.payload.read());
    Ok(payload.is_ok_and(|payload| schema.fits(&payload)))
}
