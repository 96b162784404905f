//! A message as a line of JSON, both ways. What is written reads back as the same
//! message, byte for byte, but for the counter and node of its time.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    batch::{BatchBuilder, Entry, Properties},
    hlc,
};

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("the line holds more than {bytes_max} bytes")]
    TooLong { bytes_max: usize },
    #[error("its payload of {bytes} bytes is over the limit of {bytes_max}")]
    PayloadTooLong { bytes: usize, bytes_max: usize },
    #[error("the line is not UTF-8")]
    NotUtf8,
    #[error("the line is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the line has the keys of a message, but not its form")]
    Form(#[source] serde_json::Error),
    #[error("`payload` and `payloadBase64` exclude each other")]
    TwoPayloads,
    #[error("`payloadBase64` is not base64")]
    Base64(#[source] base64::DecodeError),
    #[error("`timestamp` is neither RFC 3339 nor `<ms>:<counter>:<node>`")]
    Timestamp,
}

/// The keys of a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMessage<'a> {
    #[serde(borrow, default)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "raw_value")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    properties: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    #[serde(borrow, default)]
    timestamp: Option<Cow<'a, str>>,
    /// What an exported dead letter says of itself.
    #[serde(default, rename = "deadLetter")]
    _dead_letter: IgnoredAny,
}

/// Whether an object is meant as a message: it has a payload and nothing that a
/// message has not. Any other object is itself a payload.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Keys {
    #[serde(default, deserialize_with = "present")]
    payload: bool,
    #[serde(default, deserialize_with = "present")]
    payload_base64: bool,
    #[serde(default, rename = "topic")]
    _topic: IgnoredAny,
    #[serde(default, rename = "contentType")]
    _content_type: IgnoredAny,
    #[serde(default, rename = "properties")]
    _properties: IgnoredAny,
    #[serde(default, rename = "timestamp")]
    _timestamp: IgnoredAny,
    #[serde(default, rename = "deadLetter")]
    _dead_letter: IgnoredAny,
}

/// Whatever the value, `null` included.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// Like an `Option`, but `null` is a value.
fn raw_value<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    topic: Option<Cow<'a, str>>,
    payload: Cow<'a, [u8]>,
    content_type: Option<Cow<'a, str>>,
    properties: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// As `__ts` carries it.
    stamp: Option<String>,
}

impl<'a> Message<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let line = std::str::from_utf8(line).map_err(|_| LineError::NotUtf8)?.trim();
        let keys: Option<Keys> = if line.starts_with('{') { serde_json::from_str(line).ok() } else { None };
        if keys.is_some_and(|keys| keys.payload || keys.payload_base64) {
            return Self::parse_message(line);
        }
        let value: &RawValue = serde_json::from_str(line).map_err(LineError::NotJson)?;
        let payload = payload_of(value)?;
        Ok(Message { topic: None, payload, content_type: None, properties: Vec::new(), stamp: None })
    }

    fn parse_message(line: &'a str) -> Result<Self, LineError> {
        let raw: RawMessage<'a> = serde_json::from_str(line).map_err(LineError::Form)?;
        let RawMessage { topic, payload, payload_base64, content_type, properties, timestamp, .. } = raw;
        let payload = match (payload, payload_base64) {
            (Some(_), Some(_)) => return Err(LineError::TwoPayloads),
            (Some(value), None) => payload_of(value)?,
            (None, text) => {
                let text = text.unwrap_or_default();
                Cow::Owned(BASE64.decode(text.as_bytes()).map_err(LineError::Base64)?)
            }
        };
        let stamp = timestamp.map(|text| stamp_of(&text)).transpose()?;
        Ok(Message { topic, payload, content_type, properties, stamp })
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Adds it to a batch; `topic` is for those that name none.
    pub(super) fn push(&self, topic: &str, builder: &mut BatchBuilder) {
        let topic = self.topic.as_deref().unwrap_or(topic);
        let own = self.properties.iter().filter(|(key, _)| self.stamp.is_none() || key != hlc::PROPERTY);
        let own = own.map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        let stamp = self.stamp.iter().map(|stamp| (hlc::PROPERTY.as_bytes(), stamp.as_bytes()));
        builder.push(topic.as_bytes(), self.content_type.as_deref(), &self.payload, own.chain(stamp));
    }
}

/// A string stands for its text, any other value for its JSON.
fn payload_of(value: &RawValue) -> Result<Cow<'_, [u8]>, LineError> {
    if !value.get().starts_with('"') {
        return Ok(Cow::Borrowed(value.get().as_bytes()));
    }
    let text: Cow<'_, str> = serde_json::from_str(value.get()).map_err(LineError::NotJson)?;
    Ok(Cow::Owned(text.into_owned().into_bytes()))
}

fn stamp_of(text: &str) -> Result<String, LineError> {
    if hlc::parse(text.as_bytes()).is_some() {
        return Ok(text.to_owned());
    }
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| LineError::Timestamp)?;
    let ms = u64::try_from(time.timestamp_millis()).map_err(|_| LineError::Timestamp)?;
    Ok(format!("{ms:015}:00000:"))
}

/// The same keys, in the order in which they are written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

/// Appends a message as one line, without its end.
pub(super) fn write_line(entry: &Entry, arena: &[u8], out: &mut BytesMut) {
    // Topics and properties are UTF-8 in the batch; what is not is shown as such.
    let text = |bytes| String::from_utf8_lossy(bytes);
    let bytes = entry.payload.bytes(arena);
    let payload = json_payload(bytes);
    let properties = entry.user_properties(arena);
    let properties = Properties::of(properties).filter(|(key, _)| *key != hlc::PROPERTY.as_bytes());
    let topic = text(entry.topic.bytes(arena));
    let line = Line {
        topic: &topic,
        payload_base64: payload.is_none().then(|| BASE64.encode(bytes)),
        payload,
        content_type: entry.content_type.get(arena).map(text),
        properties: properties.map(|(key, value)| (text(key), text(value))).collect(),
        timestamp: timestamp(entry),
    };
    serde_json::to_writer(out.writer(), &line).expect("a line of strings is JSON");
}

/// As JSON if it is JSON, as a string if it is text.
fn json_payload(bytes: &[u8]) -> Option<Cow<'_, RawValue>> {
    let text = std::str::from_utf8(bytes).ok()?;
    // A JSON string would read back without its quotes, white space not at all, and
    // a line has no ends within it.
    let is_one_line = !text.contains(['\n', '\r']) && text.trim().len() == text.len();
    if is_one_line
        && !text.starts_with('"')
        && let Ok(value) = serde_json::from_str::<&RawValue>(text)
    {
        return Some(Cow::Borrowed(value));
    }
    let quoted = serde_json::to_string(text).ok()?;
    RawValue::from_string(quoted).ok().map(Cow::Owned)
}

/// In UTC, to the millisecond that the clock of messages counts in.
fn timestamp(entry: &Entry) -> Option<String> {
    if entry.seconds == 0 && entry.nanos == 0 {
        return None;
    }
    let time = DateTime::<Utc>::from_timestamp(i64::try_from(entry.seconds).ok()?, entry.nanos)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests;
