//! Map in AIO's contract that puts load on the state store: each payload asks for many
//! requests of one kind, and becomes the nanoseconds that they took.
//!
//! `get PREFIX FIRST COUNT STEP OF` · `set PREFIX FIRST COUNT BYTES`
//!
//! A key is its prefix and a number of eight digits: `FIRST` and each `STEP` on, which
//! begin again at 0 after `OF` of them; where it is written, each number from `FIRST` on.
//! A value is as many `x`. A key that is not there is an error.

use std::time::Instant;

wit_bindgen::generate!({
    path: "../../../wit/wasm-graph-processor",
    world: "map-impl",
});

use exports::wasm_graph::processor::map::Guest;
use wasm_graph::processor::{
    state_store::{self, SetOptions},
    state_store_types::SetConditions,
    types::{BufferOrBytes, DataModel, Error, ModuleConfiguration},
};

struct Load;

/// What a request asks for.
struct Request<'a> {
    prefix: &'a str,
    first: u64,
    count: u64,
    step: u64,
    of: u64,
    /// Of a value, where it is written.
    bytes: Option<usize>,
}

impl<'a> Request<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse().ok();
        match words[..] {
            ["get", prefix, first, count, step, of] => Some(Request {
                prefix,
                first: number(first)?,
                count: number(count)?,
                step: number(step)?,
                of: number(of)?.max(1),
                bytes: None,
            }),
            ["set", prefix, first, count, bytes] => {
                let (step, of, bytes) = (1, u64::MAX, Some(bytes.parse().ok()?));
                Some(Request { prefix, first: number(first)?, count: number(count)?, step, of, bytes })
            }
            _ => None,
        }
    }

    /// Nanoseconds.
    fn run(&self) -> Result<u128, String> {
        let key = |number: u64| format!("{}{number:08}", self.prefix).into_bytes();
        let numbers = (0..self.count).map(|place| (self.first + place * self.step) % self.of);
        let keys: Vec<Vec<u8>> = numbers.map(key).collect();
        let begun = Instant::now();
        match self.bytes {
            None => keys.iter().try_for_each(|key| {
                let got = state_store::get(key, None).map_err(|error| format!("{error:?}"))?;
                got.response.map(drop).ok_or_else(|| "a key is not there".to_owned())
            })?,
            Some(bytes) => {
                let value = vec![b'x'; bytes];
                keys.iter().try_for_each(|key| {
                    let options = SetOptions { conditions: SetConditions::Unconditional, expires: None };
                    let set = state_store::set(key, &value, None, None, options);
                    set.map(drop).map_err(|error| format!("{error:?}"))
                })?;
            }
        }
        Ok(begun.elapsed().as_nanos())
    }
}

impl Guest for Load {
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
        let text = String::from_utf8_lossy(&bytes);
        let request = Request::parse(&text).ok_or("no request").map_err(str::to_owned);
        let nanos = request.and_then(|request| request.run()).map_err(|message| Error { message })?;
        *payload = BufferOrBytes::Bytes(nanos.to_string().into_bytes());
        Ok(message)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

export!(Load);
