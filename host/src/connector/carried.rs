//! `Carried`: what an MQTT message says besides topic, content type, user properties and
//! payload, on its way through dataflows. There it stands in user properties that no sender
//! can give itself, and that a sink of MQTT makes properties of the packet again, and one of
//! Kafka headers, as AIO names them.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    batch::{BatchBuilder, Properties},
    topic::is_text,
};

/// `1`: the broker is to retain it.
const RETAIN: &str = "__retain";
/// When it expires, in ms since the Unix epoch.
const EXPIRES: &str = "__expires";
const RESPONSE_TOPIC: &str = "__responseTopic";
/// As base64: a property is text.
const CORRELATION_DATA: &str = "__correlationData";
/// `1`: the payload is text.
const PAYLOAD_FORMAT: &str = "__payloadFormat";

/// Upper bound of what they take in a batch more than in a packet.
pub(super) const BYTES_MAX: usize = 160;

/// Whether only a source may give a property of this name.
pub(super) fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(b"__")
        && [RETAIN, EXPIRES, RESPONSE_TOPIC, CORRELATION_DATA, PAYLOAD_FORMAT]
            .iter()
            .any(|name| name.as_bytes() == key)
}

/// Adds to the last message of a batch what came with it; `wall` is the time since the
/// Unix epoch.
pub(super) fn keep(extras: &Extras<'_>, wall: impl FnOnce() -> Duration, builder: &mut BatchBuilder) {
    let Extras { retain, is_text, expiry_s, response_topic, correlation } = *extras;
    let mut push = |key: &str, value: &[u8]| builder.push_property(key.as_bytes(), value);
    if retain {
        push(RETAIN, b"1");
    }
    if is_text {
        push(PAYLOAD_FORMAT, b"1");
    }
    if let Some(seconds) = expiry_s {
        let expires = wall() + Duration::from_secs(seconds.into());
        push(EXPIRES, expires.as_millis().to_string().as_bytes());
    }
    if let Some(topic) = response_topic {
        push(RESPONSE_TOPIC, topic);
    }
    if let Some(data) = correlation {
        push(CORRELATION_DATA, STANDARD.encode(data).as_bytes());
    }
}

/// What a PUBLISH of MQTT may say besides. The topic is text as the message's own is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extras<'a> {
    pub retain: bool,
    /// The payload is UTF-8.
    pub is_text: bool,
    /// Seconds after which nobody wants it.
    pub expiry_s: Option<u32>,
    pub response_topic: Option<&'a [u8]>,
    pub correlation: Option<&'a [u8]>,
}

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Carried<'a> {
    pub retain: bool,
    pub is_text: bool,
    /// Time since the Unix epoch.
    expires: Option<Duration>,
    response_topic: Option<&'a [u8]>,
    correlation: Option<Vec<u8>>,
}

impl<'a> Carried<'a> {
    /// Reads it from a message's user properties; refuses what operators have made
    /// unreadable.
    pub(super) fn read(properties: &'a [u8]) -> Result<Self, String> {
        let mut carried = Carried::default();
        for (key, value) in Properties::of(properties).filter(|(key, _)| is_reserved(key)) {
            let key = str::from_utf8(key).expect("it is one of ours");
            match key {
                RETAIN => carried.retain = value == b"1",
                PAYLOAD_FORMAT => carried.is_text = value == b"1",
                EXPIRES => {
                    let ms = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    carried.expires = Some(Duration::from_millis(ms.ok_or_else(|| unreadable(key))?));
                }
                RESPONSE_TOPIC => {
                    if !is_topic(value) {
                        return Err(unreadable(key));
                    }
                    carried.response_topic = Some(value);
                }
                _ => carried.correlation = Some(STANDARD.decode(value).map_err(|_| unreadable(key))?),
            }
        }
        Ok(carried)
    }

    /// As the packet says it; `None` for a message whose time is over.
    pub(super) fn extras(&self, wall: impl FnOnce() -> Duration) -> Option<Extras<'_>> {
        let expiry_s = match self.expires {
            // At least a second: a broker may take 0 for no expiry at all.
            Some(expires) => match expires.saturating_sub(wall()).as_millis().div_ceil(1000) {
                0 => return None,
                seconds => Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            },
            None => None,
        };
        Some(Extras {
            retain: self.retain,
            is_text: self.is_text,
            expiry_s,
            response_topic: self.response_topic,
            correlation: self.correlation.as_deref(),
        })
    }
}

fn unreadable(key: &str) -> String {
    format!("its property `{key}` cannot be read")
}

pub(super) fn is_topic(topic: &[u8]) -> bool {
    !topic.is_empty()
        && is_text(topic)
        && topic.len() <= usize::from(u16::MAX)
        && !topic.iter().any(|byte| matches!(byte, b'+' | b'#'))
}

#[cfg(test)]
mod tests;
