//! Images from all other messages, by topic.

use std::sync::OnceLock;

use wasm_graph_sdk::macros::branch_operator;

static TOPIC: OnceLock<String> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    let topic = configuration.properties.into_iter().find(|(key, _)| key == "snapshot_topic");
    TOPIC.set(topic.map_or_else(|| "snapshot_simulation".into(), |(_, topic)| topic)).is_ok()
}

#[branch_operator(init = "start")]
fn is_snapshot(_time: HybridLogicalClock, input: DataModel) -> Result<bool, Error> {
    let topic = TOPIC.get().expect("the host calls `init` first");
    Ok(match input {
        DataModel::Message(message) => message.topic.read() == topic.as_bytes(),
        DataModel::Snapshot(_) => true,
        DataModel::BufferOrBytes(_) => false,
    })
}
