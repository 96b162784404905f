//! A Kafka record as a message, and a message as a record: key, headers and timestamp,
//! after AIO. Knows neither clients nor doors; what a record holds is anything at all.

use std::{borrow::Cow, time::Duration};

use crate::{
    batch::{Batch, BatchBuilder, Entry, Properties},
    cloud_events,
    connector::carried::{self, Carried, Extras},
    hlc,
    resource::endpoint::{Copying, Partition},
    topic::is_text,
};

/// The user property that a record's key becomes, and that becomes a record's key.
pub const KEY: &str = "__key";
/// Headers that carry what MQTT has properties of its own for, as AIO names them.
pub mod header {
    pub const CONTENT_TYPE: &str = "Content Type";
    pub const PAYLOAD_FORMAT: &str = "Payload Format Indicator";
    pub const EXPIRY: &str = "Message Expiry Interval";
    pub const RESPONSE_TOPIC: &str = "Response Topic";
    pub const CORRELATION_DATA: &str = "Correlation Data";
}

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
    pub fn push(&self, copying: Copying, builder: &mut BatchBuilder) -> u64 {
        let mut left_out = 0;
        let mut content_type = None;
        let mut extras = Extras::default();
        let mut properties: Vec<(&[u8], &[u8])> = Vec::new();
        for (key, value) in self.headers.iter().filter(|_| copying != Copying::Nothing) {
            let attribute = (copying == Copying::CloudEvents).then(|| cloud_events::of_header(key)).flatten();
            let key = attribute.as_ref().unwrap_or(key);
            if key.len() + value.len() >= HEADER_BYTES_MAX {
                left_out += 1;
            } else if *key == header::CORRELATION_DATA {
                extras.correlation = Some(value);
            } else if !is_text(key.as_bytes()) || !is_text(value) || carried::is_reserved(key.as_bytes()) {
                left_out += 1;
            } else if !take_known(key, value, &mut content_type, &mut extras) {
                properties.push((key.as_bytes(), value));
            }
        }
        match self.key {
            Some(key) if key.len() < HEADER_BYTES_MAX && is_text(key) => {
                properties.push((KEY.as_bytes(), key));
            }
            Some(_) => left_out += 1,
            None => {}
        }
        builder.push(self.topic.as_bytes(), content_type, self.value, properties);
        if let Some(ms) = self.timestamp.and_then(|ms| u64::try_from(ms).ok()) {
            builder.date_last(ms);
        }
        // It expires so long after it was written.
        let written =
            Duration::from_millis(self.timestamp.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default());
        carried::keep(&extras, || written, builder);
        left_out
    }
}

/// Takes a header that is no user property; `false` if it is one.
fn take_known<'r>(
    key: &str,
    value: &'r [u8],
    content_type: &mut Option<&'r str>,
    extras: &mut Extras<'r>,
) -> bool {
    let text = str::from_utf8(value).unwrap_or_default();
    match key {
        header::CONTENT_TYPE if content_type.is_none() => *content_type = Some(text),
        header::PAYLOAD_FORMAT => extras.is_text = text == "1",
        header::RESPONSE_TOPIC if carried::is_topic(value) => extras.response_topic = Some(value),
        header::EXPIRY => match text.parse() {
            Ok(seconds) => extras.expiry_s = Some(seconds),
            Err(_) => return false,
        },
        _ => return false,
    }
    true
}

/// What a sink makes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing<'m> {
    pub key: Option<&'m [u8]>,
    pub value: &'m [u8],
    /// In ms since the Unix epoch.
    pub timestamp: Option<i64>,
    pub headers: Vec<(Cow<'m, str>, Cow<'m, [u8]>)>,
}

impl<'m> Outgoing<'m> {
    /// `host` is the node that writes, `wall` the time since the Unix epoch. Nothing for a
    /// message whose time is over; refuses what no record can carry.
    pub fn of(
        entry: &Entry,
        batch: &'m Batch,
        partition: &Partition,
        copying: Copying,
        host: &'m str,
        wall: impl FnOnce() -> Duration,
    ) -> Result<Option<Self>, String> {
        let arena = &batch.arena[..];
        let encoded = entry.user_properties(arena);
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
        if copying != Copying::Nothing {
            let keys = Properties::of(encoded).map(|(key, _)| key);
            let is_event = copying == Copying::CloudEvents && cloud_events::is_event(keys);
            if let Some(content_type) = entry.content_type.get(arena) {
                headers.push((header::CONTENT_TYPE.into(), Cow::Borrowed(content_type)));
            }
            let Some(()) = add_carried(encoded, wall, &mut headers)? else { return Ok(None) };
            for (key, value) in Properties::of(encoded) {
                // The record has a key and a timestamp of its own.
                let is_own = key == KEY.as_bytes() || key == hlc::PROPERTY.as_bytes();
                if is_own || carried::is_reserved(key) {
                    continue;
                }
                let name = std::str::from_utf8(key).ok().filter(|name| !name.contains('\0'));
                let name = name.ok_or("the name of a user property is no text that a header can have")?;
                let attribute = is_event.then(|| cloud_events::header(key)).flatten();
                headers.push((attribute.map_or(Cow::Borrowed(name), Cow::Owned), Cow::Borrowed(value)));
            }
        }
        let timestamp = i64::try_from(entry.ms()).ok().filter(|ms| *ms > 0);
        Ok(Some(Outgoing { key, value: entry.payload.bytes(arena), timestamp, headers }))
    }
}

/// Adds the headers of what MQTT has properties of its own for; nothing for a message whose
/// time is over.
fn add_carried(
    properties: &[u8],
    wall: impl FnOnce() -> Duration,
    headers: &mut Vec<(Cow<'_, str>, Cow<'_, [u8]>)>,
) -> Result<Option<()>, String> {
    let carried = Carried::read(properties)?;
    let Some(extras) = carried.extras(wall) else { return Ok(None) };
    let Extras { retain: _, is_text, expiry_s, response_topic, correlation } = extras;
    let seconds = expiry_s.map(|seconds| seconds.to_string().into_bytes());
    let all = [
        (header::PAYLOAD_FORMAT, is_text.then(|| b"1".to_vec())),
        (header::EXPIRY, seconds),
        (header::RESPONSE_TOPIC, response_topic.map(<[u8]>::to_vec)),
        (header::CORRELATION_DATA, correlation.map(<[u8]>::to_vec)),
    ];
    headers.extend(all.into_iter().filter_map(|(name, value)| Some((name.into(), Cow::Owned(value?)))));
    Ok(Some(()))
}

#[cfg(test)]
mod tests;
