//! For authors' own tests, on any target: makes a message to call a function with and
//! shows what became of it. Serves no step of the path.

use std::fmt::Display;

use crate::batch::{Judged, Mapped};
use crate::layout::{Entry, LogicalTime, Span, kind};
use crate::message::{Message, Time, push_property};
use crate::output::Output;

/// One message of a test's batch.
///
/// ```
/// use tidegate_sdk::testing::{Sample, map};
/// use tidegate_sdk::{Message, Output};
///
/// fn shout(message: &Message, output: &mut Output) -> Result<(), std::str::Utf8Error> {
///     let text = message.text()?.to_uppercase();
///     output.emit(message).payload(text);
///     Ok(())
/// }
///
/// let outcome = map(&[Sample::new("in", "hello"), Sample::new("in", [0xff])], shout);
/// assert_eq!(outcome.samples, [Sample::new("in", "HELLO").with_origin(0)]);
/// assert_eq!(outcome.faults[0].0, 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
    pub content_type: Option<String>,
    pub properties: Vec<(String, String)>,
    pub seconds: u64,
    /// In a result: the place of the message it came from.
    pub origin: u32,
}

impl Sample {
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Self {
        Sample { topic: topic.as_ref().into(), payload: payload.as_ref().into(), ..Sample::default() }
    }

    pub fn with_property(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    pub fn with_origin(mut self, origin: u32) -> Self {
        self.origin = origin;
        self
    }

    fn read(message: &Message) -> Self {
        Sample {
            topic: message.topic().into(),
            payload: message.payload().into(),
            content_type: message.content_type().map(Into::into),
            properties: message.properties().map(|(key, value)| (key.into(), value.into())).collect(),
            seconds: message.time().seconds,
            origin: message.entry.origin,
        }
    }
}

/// What a map made of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub samples: Vec<Sample>,
    /// The place of the message that failed, and the error's text.
    pub faults: Vec<(u32, String)>,
}

/// Runs a map over a batch as a host would.
pub fn map<E: Display>(
    samples: &[Sample],
    process: impl FnMut(&Message, &mut Output) -> Result<(), E>,
) -> Outcome {
    let (entries, _, arena) = pack(samples);
    let mut mapped = Mapped::default();
    mapped.run(entries, arena, process);
    let arena = &mapped.arena;
    let read = |entry| Sample::read(&Message { entry, arena });
    let samples = mapped.output.entries.iter().map(read).collect();
    let text = |span: Span| String::from_utf8_lossy(span.bytes(arena)).into_owned();
    let faults = mapped.output.faults.iter().map(|fault| (fault.origin, text(fault.text))).collect();
    Outcome { samples, faults }
}

/// Runs a filter over a batch as a host would.
pub fn filter<E: Display>(
    samples: &[Sample],
    process: impl FnMut(&Message) -> Result<bool, E>,
) -> Vec<Result<bool, String>> {
    let (entries, _, arena) = pack(samples);
    let mut judged = Judged::default();
    judged.run_filter(&entries, &arena, process);
    verdicts(&judged)
}

/// Runs a branch over a batch as a host would; a message's logical time is its own.
pub fn branch<E: Display>(
    samples: &[Sample],
    process: impl FnMut(&Message, &Time) -> Result<bool, E>,
) -> Vec<Result<bool, String>> {
    let (entries, times, arena) = pack(samples);
    let mut judged = Judged::default();
    judged.run_branch(&entries, &times, &arena, process);
    verdicts(&judged)
}

fn verdicts(judged: &Judged) -> Vec<Result<bool, String>> {
    let mut faults = judged.faults.iter();
    let mut fault = || {
        let text = faults.next().expect("an error has a fault").text;
        String::from_utf8_lossy(text.bytes(&judged.arena)).into_owned()
    };
    judged
        .verdicts
        .iter()
        .map(|verdict| if *verdict < 2 { Ok(*verdict == 1) } else { Err(fault()) })
        .collect()
}

pub(crate) fn pack(samples: &[Sample]) -> (Vec<Entry>, Vec<LogicalTime>, Vec<u8>) {
    let mut arena = b"node".to_vec();
    let node = Span { offset: 0, len: arena.len() as u32 };
    let entries: Vec<Entry> = samples
        .iter()
        .enumerate()
        .map(|(origin, sample)| {
            let mut store = |bytes: &[u8]| {
                let offset = arena.len() as u32;
                arena.extend_from_slice(bytes);
                Span { offset, len: bytes.len() as u32 }
            };
            let mut properties = Vec::new();
            sample.properties.iter().for_each(|(key, value)| push_property(&mut properties, key, value));
            Entry {
                origin: origin as u32,
                kind: kind::MESSAGE,
                seconds: sample.seconds,
                nanos: 0,
                zero: 0,
                counter: 0,
                node,
                topic: store(&sample.topic),
                content_type: sample
                    .content_type
                    .as_ref()
                    .map_or(Span::ABSENT, |text| store(text.as_bytes())),
                payload: store(&sample.payload),
                properties: if properties.is_empty() { Span::ABSENT } else { store(&properties) },
                schema: Span::ABSENT,
            }
        })
        .collect();
    let times = entries
        .iter()
        .map(|entry| LogicalTime { seconds: entry.seconds, nanos: 0, zero: 0, counter: 0, node: entry.node })
        .collect();
    (entries, times, arena)
}
