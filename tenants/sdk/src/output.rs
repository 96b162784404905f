//! `Output`: where a map's function puts its messages. An output starts as a copy of
//! the input's record, whose spans still point at the input's bytes; only what the
//! function changes is written, behind the input's arena.

use std::{fmt, io};

use crate::layout::{Entry, Fault, Span};
use crate::message::{Message, Time, push_property, span_within};

/// Collects the messages that a batch becomes.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) entries: Vec<Entry>,
    pub(crate) faults: Vec<Fault>,
    /// What operators wrote. Its first byte has the offset `base`.
    pub(crate) written: Vec<u8>,
    /// Length of the call's own arena.
    pub(crate) base: usize,
}

impl Output {
    /// Emits the message. The draft that comes back changes it; left alone, it is
    /// the message as it came.
    pub fn emit<'o>(&'o mut self, message: &Message<'o>) -> Draft<'o> {
        message.entry.push_to(&mut self.entries);
        let Output { entries, written, base, .. } = self;
        let entry = entries.last_mut().expect("it was pushed just now");
        Draft { entry, written, base: *base, input: message.arena }
    }
}

/// The message just emitted. Setters that are given a piece of the input message
/// refer to it instead of copying it.
#[derive(Debug)]
pub struct Draft<'o> {
    entry: &'o mut Entry,
    written: &'o mut Vec<u8>,
    base: usize,
    input: &'o [u8],
}

impl Draft<'_> {
    pub fn payload(self, payload: impl AsRef<[u8]>) -> Self {
        let Draft { entry, written, base, input } = self;
        entry.payload = store(written, base, input, payload.as_ref());
        Draft { entry, written, base, input }
    }

    /// Writes the payload in place; an error is handed through.
    pub fn payload_with<E>(self, write: impl FnOnce(&mut Writer) -> Result<(), E>) -> Result<Self, E> {
        let start = self.written.len();
        write(&mut Writer::on(self.written))?;
        let Draft { entry, written, base, input } = self;
        entry.payload = Span { offset: (base + start) as u32, len: (written.len() - start) as u32 };
        Ok(Draft { entry, written, base, input })
    }

    /// Writes the payload as JSON.
    #[cfg(feature = "json")]
    pub fn json(self, value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        self.payload_with(|writer| serde_json::to_writer(writer, value))
    }

    pub fn topic(self, topic: impl AsRef<[u8]>) -> Self {
        let Draft { entry, written, base, input } = self;
        entry.topic = store(written, base, input, topic.as_ref());
        Draft { entry, written, base, input }
    }

    /// Lengthens the topic.
    pub fn topic_suffix(self, suffix: impl AsRef<[u8]>) -> Self {
        let Draft { entry, written, base, input } = self;
        let start = written.len();
        copy_span(written, base, input, entry.topic);
        written.extend_from_slice(suffix.as_ref());
        entry.topic = Span { offset: (base + start) as u32, len: (written.len() - start) as u32 };
        Draft { entry, written, base, input }
    }

    pub fn content_type(self, content_type: Option<&str>) -> Self {
        let Draft { entry, written, base, input } = self;
        entry.content_type = match content_type {
            Some(text) => store(written, base, input, text.as_bytes()),
            None => Span::ABSENT,
        };
        Draft { entry, written, base, input }
    }

    /// Adds a user property behind those that are there.
    pub fn property(self, key: &str, value: &str) -> Self {
        let Draft { entry, written, base, input } = self;
        let old = entry.properties;
        let end = old.offset as usize + old.len as usize;
        let start = if !old.is_absent() && end == base + written.len() && old.offset as usize >= base {
            old.offset as usize - base
        } else {
            let start = written.len();
            copy_span(written, base, input, old);
            start
        };
        push_property(written, key, value);
        entry.properties = Span { offset: (base + start) as u32, len: (written.len() - start) as u32 };
        Draft { entry, written, base, input }
    }

    /// Takes all user properties away.
    pub fn without_properties(self) -> Self {
        self.entry.properties = Span::ABSENT;
        self
    }

    /// Takes the schema away.
    pub fn without_schema(self) -> Self {
        self.entry.schema = Span::ABSENT;
        self
    }

    /// Sets the message's timestamp; its logical time stays.
    pub fn time(self, time: &Time) -> Self {
        let Draft { entry, written, base, input } = self;
        (entry.seconds, entry.nanos, entry.counter) = (time.seconds, time.nanos, time.counter);
        entry.node = store(written, base, input, time.node.as_bytes());
        Draft { entry, written, base, input }
    }
}

/// Writes a payload where it will stay. Takes bytes (`io::Write`) and text
/// (`fmt::Write`); neither ever fails.
#[derive(Debug)]
pub struct Writer<'o> {
    written: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    pub(crate) fn on(written: &'o mut Vec<u8>) -> Self {
        Writer { written }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.push(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The span of `bytes`: in the input if they are a piece of it, else written.
fn store(written: &mut Vec<u8>, base: usize, input: &[u8], bytes: &[u8]) -> Span {
    if let Some(span) = span_within(input, bytes) {
        return span;
    }
    let offset = (base + written.len()) as u32;
    written.extend_from_slice(bytes);
    Span { offset, len: bytes.len() as u32 }
}

/// Appends the bytes of a span of the input, or of what was written before.
fn copy_span(written: &mut Vec<u8>, base: usize, input: &[u8], span: Span) {
    match (span.offset as usize).checked_sub(base) {
        _ if span.is_absent() => {}
        Some(start) => written.extend_from_within(start..start + span.len as usize),
        None => written.extend_from_slice(span.bytes(input)),
    }
}

#[cfg(test)]
mod tests;
