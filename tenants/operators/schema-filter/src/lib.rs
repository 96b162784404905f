//! Filter: passes payloads that fit the JSON Schema of the dataflow's inbound
//! connection, which the host hands over as a module schema; as AIO's sample of this
//! name. A payload that is no JSON does not fit. Without a schema it does not start.

use std::sync::OnceLock;

use jsonschema::Validator;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::filter_operator;

static SCHEMA: OnceLock<Validator> = OnceLock::new();

fn compile(configuration: &ModuleConfiguration) -> Result<Validator, String> {
    let schema = configuration.module_schemas.first().ok_or("the connection has no schema")?;
    let content =
        serde_json::from_str(&schema.content).map_err(|error| format!("`{}`: {error}", schema.name))?;
    jsonschema::validator_for(&content).map_err(|error| format!("`{}`: {error}", schema.name))
}

fn start(configuration: ModuleConfiguration) -> bool {
    match compile(&configuration) {
        Ok(validator) => SCHEMA.set(validator).is_ok(),
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
    let validator = SCHEMA.get().expect("the host calls `init` first");
    let verdict = match serde_json::from_slice(&message.payload.read()) {
        Ok(payload) => validator.validate(&payload).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = &verdict {
        logger::log(Level::Info, "schema-filter/filter", &format!("dropped: {error}"));
    }
    Ok(verdict.is_ok())
}
