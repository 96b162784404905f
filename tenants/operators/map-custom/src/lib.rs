//! Map that owns the integration with AIO and nothing else: it hands a message's
//! payload to whatever provider of `map:custom` it is fused with, and keeps the rest.

wit_bindgen::generate!({
    path: ["../../../wit/wasm-graph-processor", "../../../wit/map-custom"],
    inline: r#"
        package tidegate:map-custom;

        world component {
            include wasm-graph:processor/map-impl@1.1.0;
            include %map:custom/custom-impl;
        }
    "#,
    world: "tidegate:map-custom/component",
    generate_all,
});

use exports::wasm_graph::processor::map::Guest;
use map::custom::{
    custom,
    types::{DataModel as Plain, Error as Refusal, ModuleConfiguration as PlainConfiguration},
};
use wasm_graph::processor::{
    logger::{Level, log},
    types::{BufferOrBytes, DataModel, Error, ModuleConfiguration},
};

struct Operator;

impl Guest for Operator {
    fn process(mut message: DataModel) -> Result<DataModel, Error> {
        let place = match &mut message {
            DataModel::Message(message) => &mut message.payload,
            DataModel::BufferOrBytes(payload) => payload,
            DataModel::Snapshot(snapshot) => &mut snapshot.frame,
        };
        let payload = match place {
            BufferOrBytes::Buffer(buffer) => buffer.read(),
            BufferOrBytes::Bytes(bytes) => std::mem::take(bytes),
        };
        let Plain { payload } = custom::process(&Plain { payload }).map_err(told)?;
        *place = BufferOrBytes::Bytes(payload);
        Ok(message)
    }

    fn init(configuration: ModuleConfiguration) -> bool {
        let accepted = custom::init(&PlainConfiguration { properties: configuration.properties });
        if !accepted {
            log(Level::Error, "map-custom", "the provider refuses its configuration");
        }
        accepted
    }
}

fn told(refusal: Refusal) -> Error {
    let message = match refusal {
        Refusal::InvalidArgument(text) => format!("invalid argument: {text}"),
        Refusal::Internal(text) => format!("provider: {text}"),
    };
    Error { message }
}

export!(Operator);
