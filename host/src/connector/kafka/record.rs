//! A Kafka record as a message, and a message as a record: key, headers and timestamp,
//! after AIO. Knows neither clients nor doors; what a record holds is anything at all.

use crate::{
    batch::{Batch, BatchBuilder, Entry, Kind, Properties},
    hlc,
    resource::endpoint::Partition,
    topic::is_text,
};

/// The user property that a record's key becomes, and that becomes a record's key.
pub const KEY: &str = "__key";
/// The header that carries the content type, as AIO names it.
pub const CONTENT_TYPE: &str = "Content Type";
/// From here on AIO takes a header away.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// What a source read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<'r> {
    pub topic: &'r str,
    pub key: Option<&'r [u8]>,
    /// A null value is taken as an empty one.
    pub value: &'r [u8],
    /// In ms since the Unix epoch, if it has one.
    pub timestamp: Option<i64>,
    /// Those without a value have an empty one.
    pub headers: Vec<(&'r str, &'r [u8])>,
}

impl Record<'_> {
    /// Adds it to a batch, and says how many headers were left out: those that are no text,
    /// or too long. A key that is no text is left out with them.
    pub fn push(&self, copies_properties: bool, builder: &mut BatchBuilder) -> u64 {
        let mut left_out = 0;
        let mut content_type = None;
        let mut properties: Vec<(&[u8], &[u8])> = Vec::new();
        let mut add = |key: &'_ str, value: &'_ [u8]| {
            let fits = key.len() + value.len() < HEADER_BYTES_MAX;
            if !fits || !is_text(key.as_bytes()) || !is_text(value) {
                left_out += 1;
                return false;
            }
            true
        };
        if copies_properties {
            for (key, value) in &self.headers {
                if !add(key, value) {
                    continue;
                }
                match std::str::from_utf8(value) {
                    Ok(text) if *key == CONTENT_TYPE && content_type.is_none() => content_type = Some(text),
                    _ => properties.push((key.as_bytes(), value)),
                }
            }
        }
        if let Some(key) = self.key
            && add(KEY, key)
        {
            properties.push((KEY.as_bytes(), key));
        }
        builder.push(self.topic.as_bytes(), content_type, self.value, properties);
        if let Some(ms) = self.timestamp.and_then(|ms| u64::try_from(ms).ok()) {
            builder.date_last(ms);
        }
        left_out
    }
}

/// What a sink makes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing<'m> {
    pub key: Option<&'m [u8]>,
    pub value: &'m [u8],
    /// In ms since the Unix epoch.
    pub timestamp: Option<i64>,
    pub headers: Vec<(&'m str, &'m [u8])>,
}

impl<'m> Outgoing<'m> {
    /// `host` is the node that writes. Refuses what no record can carry.
    pub fn of(
        entry: &Entry,
        batch: &'m Batch,
        partition: &Partition,
        copies_properties: bool,
        host: &'m str,
    ) -> Result<Self, String> {
        let arena = &batch.arena[..];
        // The properties of an image are its size, not text.
        let encoded = if entry.kind == Kind::MESSAGE { entry.properties.bytes(arena) } else { &[] };
        let property = |name: &str| {
            Properties::of(encoded).find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
        };
        let key = match partition {
            Partition::Default => property(KEY),
            Partition::Static => Some(host.as_bytes()),
            Partition::Topic => Some(entry.topic.bytes(arena)),
            Partition::Property(name) => property(name),
        };
        let mut headers = Vec::new();
        if copies_properties {
            if let Some(content_type) = entry.content_type.get(arena) {
                headers.push((CONTENT_TYPE, content_type));
            }
            for (key, value) in Properties::of(encoded) {
                // The record has a key and a timestamp of its own.
                if key == KEY.as_bytes() || key == hlc::PROPERTY.as_bytes() {
                    continue;
                }
                let name = std::str::from_utf8(key).ok().filter(|name| !name.contains('\0'));
                let name = name.ok_or("the name of a user property is no text that a header can have")?;
                headers.push((name, value));
            }
        }
        let ms = entry.seconds.saturating_mul(1000).saturating_add(u64::from(entry.nanos / 1_000_000));
        let timestamp = i64::try_from(ms).ok().filter(|ms| *ms > 0);
        Ok(Outgoing { key, value: entry.payload.bytes(arena), timestamp, headers })
    }
}

#[cfg(test)]
mod tests;
