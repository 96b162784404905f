//! `Message`: what an operator's function is given. Everything is borrowed from the
//! batch; nothing is copied or checked until it is asked for.

use std::str::Utf8Error;

use crate::layout::{Entry, LogicalTime, Span, kind};

/// One message, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) arena: &'a [u8],
}

impl<'a> Message<'a> {
    /// What arrived: nearly always a message.
    pub fn kind(&self) -> Kind {
        match self.entry.kind {
            kind::MESSAGE => Kind::Message,
            kind::BYTES => Kind::Bytes,
            _ => Kind::Snapshot,
        }
    }

    /// The payload; an image's frame.
    pub fn payload(&self) -> &'a [u8] {
        self.entry.payload.bytes(self.arena)
    }

    /// The payload as text.
    pub fn text(&self) -> Result<&'a str, Utf8Error> {
        str::from_utf8(self.payload())
    }

    /// The payload parsed as JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.payload())
    }

    /// The topic it arrived on; bytes, since AIO allows any.
    pub fn topic(&self) -> &'a [u8] {
        self.entry.topic.bytes(self.arena)
    }

    /// The topic as text.
    pub fn topic_text(&self) -> Result<&'a str, Utf8Error> {
        str::from_utf8(self.topic())
    }

    /// The content type; an image's format.
    pub fn content_type(&self) -> Option<&'a str> {
        self.entry.content_type.get(self.arena).map(utf8)
    }

    /// User properties in order, duplicates kept.
    pub fn properties(&self) -> Properties<'a> {
        let encoded = match self.kind() {
            Kind::Snapshot => &[],
            Kind::Message | Kind::Bytes => self.entry.properties.bytes(self.arena),
        };
        Properties { rest: encoded }
    }

    /// The first user property of that name.
    pub fn property(&self, key: &str) -> Option<&'a str> {
        self.properties().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Width and height of an image.
    pub fn size(&self) -> Option<(u32, u32)> {
        if self.kind() != Kind::Snapshot {
            return None;
        }
        let (width, rest) = self.entry.properties.bytes(self.arena).split_first_chunk()?;
        let height = rest.first_chunk()?;
        Some((u32::from_le_bytes(*width), u32::from_le_bytes(*height)))
    }

    /// The message's timestamp.
    pub fn time(&self) -> Time<'a> {
        let Entry { seconds, nanos, counter, node, .. } = *self.entry;
        Time { seconds, nanos, counter, node: utf8(node.bytes(self.arena)) }
    }

    /// The schema that came with the message.
    pub fn schema(&self) -> Option<Schema<'a>> {
        let (tag, rest) = self.entry.schema.get(self.arena)?.split_first()?;
        if *tag == 0 {
            return Some(Schema::Reference(utf8(rest)));
        }
        let (name, content) = take_counted(rest)?;
        Some(Schema::Inline { name: utf8(name), content: utf8(content) })
    }
}

/// The messages that arrived at one logical time, in order.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    pub(crate) entries: &'a [Entry],
    pub(crate) arena: &'a [u8],
}

impl<'a> Messages<'a> {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Message<'a>> + use<'a> {
        let arena = self.arena;
        self.entries.iter().map(move |entry| Message { entry, arena })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What a message is, after AIO's data model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Message,
    /// Bytes alone: only the payload is meant.
    Bytes,
    /// An image.
    Snapshot,
}

/// A hybrid logical clock: wall time, a counter within it, and whose clock it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time<'a> {
    pub seconds: u64,
    pub nanos: u32,
    pub counter: u64,
    pub node: &'a str,
}

impl<'a> Time<'a> {
    pub(crate) fn logical(time: &LogicalTime, arena: &'a [u8]) -> Self {
        let LogicalTime { seconds, nanos, counter, node, .. } = *time;
        Time { seconds, nanos, counter, node: utf8(node.bytes(arena)) }
    }
}

/// A message's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema<'a> {
    /// Its name in the schema registry.
    Reference(&'a str),
    Inline {
        name: &'a str,
        content: &'a str,
    },
}

/// Iterates over user properties.
#[derive(Clone, Debug)]
pub struct Properties<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = take_counted(self.rest)?;
        let (value, rest) = take_counted(rest)?;
        self.rest = rest;
        Some((utf8(key), utf8(value)))
    }
}

/// Appends one user property as the contract encodes it.
pub(crate) fn push_property(encoded: &mut Vec<u8>, key: &str, value: &str) {
    for part in [key, value] {
        encoded.extend_from_slice(&(part.len() as u32).to_le_bytes());
        encoded.extend_from_slice(part.as_bytes());
    }
}

/// The span of `part` within `whole`, if it is a piece of it.
pub(crate) fn span_within(whole: &[u8], part: &[u8]) -> Option<Span> {
    let offset = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (offset + part.len() <= whole.len()).then_some(Span { offset: offset as u32, len: part.len() as u32 })
}

fn take_counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

fn utf8(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("the host hands over these fields as UTF-8")
}

#[cfg(test)]
mod tests;
