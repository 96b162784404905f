//! Map in AIO's contract that asks another program over MQTT and puts its answer into
//! the message: each payload becomes the request's, and `answer` is added to it, or
//! `error` with the name of AIO's error. Instead of a payload of its own a message may
//! say in `ask` what is asked and how; so one can ask anything of anybody with it.
//!
//! | parameter, and key of `ask` | |
//! | --- | --- |
//! | `topic` | pattern of the request's topic |
//! | `command` | the command's name; `ask` unless it is given |
//! | `response`, `prefix`, `suffix`, `namespace` | as AIO's options have them |
//! | `timeout` | in milliseconds |
//!
//! Of `ask` alone: `payload` (text), `tokens` and `own` (of the invoker and of the request,
//! as objects), `data` (user data, as an object), `nanos` beside `timeout`.

wit_bindgen::generate!({
    inline: "
        package tidegate:aio-command;
        world command {
            include wasm-graph:processor/map-impl@1.1.0;
            import wasm-graph:processor/command-invoker@1.1.0;
        }
    ",
    path: "../../../wit/wasm-graph-processor",
    generate_all,
});

use std::{cell::RefCell, sync::OnceLock};

use exports::wasm_graph::processor::map::Guest;
use serde_json::{Map, Value, json};
use wasm_graph::processor::{
    command_invoker::{
        CommandInvoker, CommandInvokerOptionsBuilder, CommandRequest, CommandRequestBuilder, CommandResponse,
        new_invoker,
    },
    rpc_types::RpcError,
    types::{BufferOrBytes, DataModel, Error, ModuleConfiguration},
};

struct Command;

static CONFIGURATION: OnceLock<Map<String, Value>> = OnceLock::new();

thread_local! {
    /// The last invoker, and the options that it was made with.
    static INVOKER: RefCell<Option<(Map<String, Value>, CommandInvoker)>> = const { RefCell::new(None) };
}

/// What an invoker is made with.
const OPTIONS: [&str; 7] = ["topic", "command", "response", "prefix", "suffix", "namespace", "tokens"];

fn pairs(value: Option<&Value>) -> Vec<(String, String)> {
    let object = value.and_then(Value::as_object);
    object.into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn invoker(options: &Map<String, Value>) -> Result<CommandInvoker, RpcError> {
    let mut builder = CommandInvokerOptionsBuilder::new();
    let named = |name: &str| options.get(name).map(text);
    if let Some(topic) = named("topic") {
        builder = builder.request_topic_pattern(&topic)?;
    }
    builder = builder.command_name(&named("command").unwrap_or_else(|| "ask".into()))?;
    if let Some(response) = named("response") {
        builder = builder.response_topic_pattern(&response)?;
    }
    if let Some(prefix) = named("prefix") {
        builder = builder.response_topic_prefix(&prefix)?;
    }
    if let Some(suffix) = named("suffix") {
        builder = builder.response_topic_suffix(&suffix)?;
    }
    if let Some(namespace) = named("namespace") {
        builder = builder.topic_namespace(&namespace)?;
    }
    if options.contains_key("tokens") {
        builder = builder.topic_token_map(&pairs(options.get("tokens")))?;
    }
    new_invoker(builder.build()?)
}

fn request(ask: &Map<String, Value>, payload: Option<&[u8]>) -> Result<CommandRequest, RpcError> {
    let mut builder = CommandRequestBuilder::new();
    if let Some(payload) = payload {
        builder = builder.payload(payload)?;
    }
    if ask.contains_key("data") {
        builder = builder.custom_user_data(&pairs(ask.get("data")))?;
    }
    if ask.contains_key("own") {
        builder = builder.topic_tokens(&pairs(ask.get("own")))?;
    }
    if let Some(timeout) = ask.get("timeout") {
        let ms: u64 = text(timeout).parse().unwrap_or(0);
        let nanos = ask.get("nanos").and_then(Value::as_u64).unwrap_or((ms % 1000) * 1_000_000);
        builder = builder.timeout(ms / 1000, nanos as u32)?;
    }
    builder.build()
}

fn asked(ask: &Map<String, Value>, payload: Option<&[u8]>) -> Result<CommandResponse, RpcError> {
    let options = OPTIONS.iter().filter_map(|name| Some((name.to_string(), ask.get(*name)?.clone())));
    let options: Map<String, Value> = options.collect();
    INVOKER.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(of, _)| *of != options) {
            *kept = Some((options.clone(), invoker(&options)?));
        }
        let (_, invoker) = kept.as_ref().expect("there is one now");
        invoker.invoke(request(ask, payload)?)
    })
}

fn name_of(error: RpcError) -> &'static str {
    match error {
        RpcError::ConfigurationInvalid => "configuration-invalid",
        RpcError::PayloadInvalid => "payload-invalid",
        RpcError::Timeout => "timeout",
        RpcError::ClientError => "client-error",
        RpcError::Cancellation => "cancellation",
        RpcError::HeaderInvalid => "header-invalid",
        RpcError::HeaderMissing => "header-missing",
        RpcError::UnknownError => "unknown-error",
        RpcError::InvocationException => "invocation-exception",
        RpcError::ExecutionException => "execution-exception",
        RpcError::InternalLogicError => "internal-logic-error",
        RpcError::StateInvalid => "state-invalid",
        RpcError::ResourceTableError => "resource-table-error",
        RpcError::BuildError => "build-error",
    }
}

/// The answer's payload, as JSON if it is.
fn described(response: CommandResponse) -> Map<String, Value> {
    let payload = &response.payload;
    let answer = serde_json::from_slice(payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(payload).into_owned()));
    let mut described = Map::from_iter([("answer".to_owned(), answer)]);
    if !response.custom_user_data.is_empty() {
        let data = response.custom_user_data.into_iter().map(|(key, value)| (key, Value::String(value)));
        described.insert("data".into(), Value::Object(data.collect()));
    }
    if let Some(clock) = response.timestamp {
        let time = clock.timestamp;
        described.insert(
            "answered".into(),
            json!(format!("{}.{:09}:{}:{}", time.secs, time.nanos, clock.counter, clock.node_id)),
        );
    }
    described
}

/// Adds what came of the request to the message's own keys.
fn answer(payload: &[u8]) -> Vec<u8> {
    let message = serde_json::from_slice(payload).unwrap_or(Value::Null);
    let mut ask = CONFIGURATION.get().cloned().unwrap_or_default();
    let result = match message.get("ask").and_then(Value::as_object) {
        None => asked(&ask, Some(payload)),
        Some(of_its_own) => {
            ask.extend(of_its_own.clone());
            let payload = of_its_own.get("payload").map(text);
            asked(&ask, payload.as_deref().map(str::as_bytes))
        }
    };
    let mut object = match message {
        Value::Object(object) => object,
        Value::Null => Map::new(),
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    match result {
        Ok(response) => object.extend(described(response)),
        Err(error) => _ = object.insert("error".into(), json!(name_of(error))),
    }
    Value::Object(object).to_string().into_bytes()
}

impl Guest for Command {
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
        *payload = BufferOrBytes::Bytes(answer(&bytes));
        Ok(message)
    }

    fn init(configuration: ModuleConfiguration) -> bool {
        let parameters = configuration.properties.into_iter().map(|(key, value)| (key, Value::String(value)));
        CONFIGURATION.set(parameters.collect()).is_ok()
    }
}

export!(Command);
