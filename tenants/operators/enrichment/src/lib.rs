//! Map: marks the temperatures of a collection with `overtemp` if their greatest is
//! above a threshold; as AIO's sample of this name does with the state store.
//!
//! The threshold, in °C, is the state store's key `overtemp-threshold`; whoever changes
//! it there is heard at the next message. The first operator to find none writes 500,
//! under the lock `overtemp-threshold-lock`: taken only if nobody holds it, given back
//! at once, and gone by itself after 10 s. Its version is the fencing token of what is
//! written under it.

use operator_logic::climate::{ClimateError, Collection};
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;
use wasm_graph_sdk::state_store::{self, SetConditions, SetOptions, StateStoreError};

const THRESHOLD: &[u8] = b"overtemp-threshold";
const LOCK: &[u8] = b"overtemp-threshold-lock";
const HOLDER: &[u8] = b"enrichment";
/// Of the lock.
const EXPIRES: state_store::Duration = state_store::Duration { seconds: 10, nanos: 0 };
/// Of each request to the store.
const TIMEOUT: Option<state_store::Duration> = Some(state_store::Duration { seconds: 5, nanos: 0 });
const USUAL: f64 = 500.0;

/// What the store says; if there is nothing, the usual one, which is then written.
fn threshold() -> Result<f64, StateStoreError> {
    let Some(text) = state_store::get(THRESHOLD, TIMEOUT)?.response else {
        write_usual()?;
        return Ok(USUAL);
    };
    Ok(str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| {
        logger::log(Level::Warn, "enrichment/map", "the threshold in the state store is no number");
        USUAL
    }))
}

fn write_usual() -> Result<(), StateStoreError> {
    let options = SetOptions { conditions: SetConditions::OnlyIfEqualOrDoesNotExist, expires: Some(EXPIRES) };
    let lock = state_store::set(LOCK, HOLDER, TIMEOUT, None, options)?;
    let (true, Some(token)) = (lock.response, lock.version) else {
        // Somebody else writes it.
        return Ok(());
    };
    let options = SetOptions { conditions: SetConditions::OnlyIfDoesNotExist, ..SetOptions::default() };
    let set = state_store::set(THRESHOLD, USUAL.to_string().as_bytes(), TIMEOUT, Some(&token), options);
    state_store::vdel(LOCK, HOLDER, None, TIMEOUT)?;
    set.map(|_| ())
}

#[map_operator]
fn mark_overtemp(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let failed = |error: ClimateError| Error { message: error.to_string() };
    let mut collection = Collection::staged(&message.payload.read()).map_err(failed)?;
    let threshold = threshold().unwrap_or_else(|error| {
        // Without the store the usual threshold is better than no message.
        logger::log(Level::Warn, "enrichment/map", &format!("no answer from the state store: {error}"));
        USUAL
    });
    collection.mark_overtemp(threshold);
    message.payload = BufferOrBytes::Bytes(collection.payload().map_err(failed)?);
    Ok(DataModel::Message(message))
}
