//! Map in AIO's contract that lets messages speak to the state store: each payload is
//! a request, and becomes what came of it. One can look into a tenant's state with it.
//!
//! `get K` · `set K V [nx|nex] [expires=SECONDS] [token=SECONDS]` · `fill K BYTES` ·
//! `del K [token=SECONDS]` · `vdel K V [token=SECONDS]`

wit_bindgen::generate!({
    path: "../../../wit/wasm-graph-processor",
    world: "map-impl",
});

use exports::wasm_graph::processor::map::Guest;
use wasm_graph::processor::{
    hybrid_logical_clock::{HybridLogicalClock, Timespec},
    state_store::{self, Duration, SetOptions, StateStoreError},
    state_store_types::SetConditions,
    types::{BufferOrBytes, DataModel, Error, ModuleConfiguration},
};

struct State;

/// What stands behind the words that a request must have.
#[derive(Default)]
struct Rest {
    conditions: Option<SetConditions>,
    expires: Option<Duration>,
    token: Option<HybridLogicalClock>,
}

fn rest<'a>(words: impl Iterator<Item = &'a str>) -> Result<Rest, String> {
    let mut rest = Rest::default();
    for word in words {
        let seconds = |text: &str| text.parse::<u64>().map_err(|error| format!("{word}: {error}"));
        match word.split_once('=') {
            None if word == "nx" => rest.conditions = Some(SetConditions::OnlyIfDoesNotExist),
            None if word == "nex" => rest.conditions = Some(SetConditions::OnlyIfEqualOrDoesNotExist),
            Some(("expires", text)) => rest.expires = Some(Duration { seconds: seconds(text)?, nanos: 0 }),
            Some(("token", text)) => {
                let timestamp = Timespec { secs: seconds(text)?, nanos: 0 };
                rest.token = Some(HybridLogicalClock { timestamp, counter: 0, node_id: "holder".into() });
            }
            _ => return Err(format!("`{word}` is not known")),
        }
    }
    Ok(rest)
}

fn answer(request: &str) -> Result<String, String> {
    let mut words = request.split(' ');
    let mut word = || words.next().ok_or("a word is missing");
    let (verb, key) = (word()?, word()?.as_bytes());
    let said = |error: StateStoreError| match error {
        StateStoreError::RequestError(text) => format!("request-error: {text}"),
        StateStoreError::Timeout => "timeout".into(),
        StateStoreError::Protocol => "protocol".into(),
        StateStoreError::Internal => "internal".into(),
    };
    match verb {
        "get" => {
            let got = state_store::get(key, Some(Duration { seconds: 5, nanos: 0 })).map_err(said)?;
            Ok(match (got.response, got.version) {
                (Some(value), Some(_)) => String::from_utf8_lossy(&value).into_owned(),
                (None, None) => "none".into(),
                (value, version) => format!("{} and {}", value.is_some(), version.is_some()),
            })
        }
        "set" | "fill" => {
            let value = word()?;
            let value = match verb {
                "set" => value.as_bytes().to_vec(),
                _ => vec![b'x'; value.parse().map_err(|_| "no number of bytes")?],
            };
            let Rest { conditions, expires, token } = rest(words)?;
            let conditions = conditions.unwrap_or(SetConditions::Unconditional);
            let options = SetOptions { conditions, expires };
            let set = state_store::set(key, &value, None, token.as_ref(), options).map_err(said)?;
            Ok(set.response.to_string())
        }
        "del" => {
            let token = rest(words)?.token;
            let del = state_store::del(key, token.as_ref(), None).map_err(said)?;
            Ok(del.response.to_string())
        }
        "vdel" => {
            let value = word()?.as_bytes();
            let token = rest(words)?.token;
            let del = state_store::vdel(key, value, token.as_ref(), None).map_err(said)?;
            Ok(del.response.to_string())
        }
        other => Err(format!("`{other}` is no request")),
    }
}

impl Guest for State {
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
        let answer = answer(request.trim_matches('"')).unwrap_or_else(|refused| refused);
        *payload = BufferOrBytes::Bytes(answer.into_bytes());
        Ok(message)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

export!(State);
