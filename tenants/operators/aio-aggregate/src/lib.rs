//! `aggregate` in AIO's contract: same key, same results.

use std::sync::OnceLock;

use operator_logic::{Field, Summarise, Summary};
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::accumulate_operator;

static SUMMARISE: OnceLock<Summarise> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    let field = configuration.properties.iter().find(|(key, _)| key == "field");
    let field = field.map(|(_, value)| Field::try_from(value.clone()));
    match field.unwrap_or_else(|| Err("configuration key `field` is missing".into())) {
        Ok(field) => SUMMARISE.set(Summarise::of(field)).is_ok(),
        Err(error) => {
            logger::log(Level::Error, "aio-aggregate", &error);
            false
        }
    }
}

#[accumulate_operator(init = "start")]
fn aggregate(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
    let failed = |error: &dyn std::fmt::Display| Error { message: error.to_string() };
    let DataModel::Message(mut output) = staged else {
        return Err(failed(&"expected a message to be staged"));
    };
    let staged = output.payload.read();
    let is_first = staged.is_empty();
    let mut summary = Summary::staged(&staged).map_err(|error| failed(&error))?;
    let mut topic = None;
    for input in inputs {
        let DataModel::Message(message) = input else {
            return Err(failed(&"expected messages"));
        };
        let summarise = SUMMARISE.get().expect("the host calls `init` first");
        summarise.add(&message.payload.read(), &mut summary).map_err(|error| failed(&error))?;
        topic.get_or_insert(message.topic);
    }
    let payload = serde_json::to_vec(&summary).map_err(|error| failed(&error))?;
    output.payload = BufferOrBytes::Bytes(payload);
    output.content_type = Some(BufferOrString::String("application/json".into()));
    if let Some(topic) = topic.filter(|_| is_first) {
        output.topic = topic;
    }
    Ok(DataModel::Message(output))
}
