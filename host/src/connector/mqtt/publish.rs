//! PUBLISH and PUBACK, the packets of the hot path: read from the bytes of a read
//! and written into the write buffer without an allocation. All other packets go
//! through rumqttc's codec. Knows nothing of sessions.

use bytes::BytesMut;
use sha2::{Digest as _, Sha256};

use super::{
    SessionError, Version,
    frame::{push_variable_length, variable_length, variable_length_len},
};
use crate::{
    batch::{Entry, Properties},
    connector::carried::{self, Extras},
    hlc,
};

/// The type of a PUBLISH in the upper half of a packet's first byte.
pub(super) const PACKET_TYPE: u8 = 3;

/// Identifiers of the properties that this file knows by name (MQTT 5.0, 2.2.2.2).
mod property {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_ID: u8 = 11;
    pub const REASON_STRING: u8 = 31;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const USER_PROPERTY: u8 = 38;
}

/// A PUBLISH that came in, borrowed from the bytes of a read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub dup: bool,
    /// 0 or 1: we never subscribe with 2.
    pub qos: u8,
    /// 0 for QoS 0.
    pub packet_id: u16,
    pub topic: &'a str,
    pub content_type: Option<&'a str>,
    pub extras: Extras<'a>,
    /// The checked bytes of the packet's properties.
    properties: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Incoming<'a> {
    /// Reads the packet with the given first byte; `body` is what follows its length.
    pub(super) fn read(version: Version, first: u8, body: &'a [u8]) -> Result<Self, SessionError> {
        let mut publish = Self::read_fixed(first, body)?;
        if version == Version::V311 {
            return Ok(publish);
        }
        let rest = publish.payload;
        let (len_len, len) =
            variable_length(rest)?.ok_or(SessionError::Malformed("PUBLISH ends before its properties"))?;
        let (properties, payload) = rest[len_len..]
            .split_at_checked(len)
            .ok_or(SessionError::Malformed("PUBLISH ends within its properties"))?;
        publish.properties = properties;
        publish.payload = payload;
        let mut rest = properties;
        while !rest.is_empty() {
            match take_property(&mut rest)? {
                Property::ContentType(text) => publish.content_type = Some(text),
                Property::Format(format) => publish.extras.is_text = format == 1,
                Property::Expiry(seconds) => publish.extras.expiry_s = Some(seconds),
                Property::ResponseTopic(topic) => publish.extras.response_topic = Some(topic.as_bytes()),
                Property::Correlation(data) => publish.extras.correlation = Some(data),
                Property::User(..) | Property::Reason(_) | Property::Other => {}
            }
        }
        Ok(publish)
    }

    /// Of what the message says, whenever it is sent: a broker counts its expiry down and
    /// may give its topic an alias.
    pub(super) fn digest(&self) -> u64 {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        add(self.topic.as_bytes());
        add(self.content_type.unwrap_or_default().as_bytes());
        add(self.payload);
        for (key, value) in self.user_properties() {
            add(key);
            add(value);
        }
        let digest: [u8; 32] = hash.finalize().into();
        u64::from_be_bytes(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
    }

    /// Reads the beginning of a packet that is not kept whole. Properties that do
    /// not end within it are left out, and the payload with them.
    pub(super) fn read_head(version: Version, first: u8, head: &'a [u8]) -> Result<Self, SessionError> {
        let fixed = Self::read_fixed(first, head)?;
        if version == Version::V311 {
            return Ok(fixed);
        }
        match variable_length(fixed.payload) {
            Ok(Some((len_len, len))) if fixed.payload.len() - len_len >= len => {
                Self::read(version, first, head)
            }
            _ => Ok(Incoming { payload: &[], ..fixed }),
        }
    }

    /// What stands before the properties; `payload` is all the rest.
    fn read_fixed(first: u8, body: &'a [u8]) -> Result<Self, SessionError> {
        let malformed = SessionError::Malformed;
        let qos = (first >> 1) & 0b11;
        if qos > 1 {
            return Err(malformed("PUBLISH of a QoS that was not asked for"));
        }
        let (topic, rest) = take_bytes(body).ok_or(malformed("PUBLISH ends within its topic"))?;
        let topic = std::str::from_utf8(topic).map_err(|_| malformed("topic that is not UTF-8"))?;
        if topic.is_empty() {
            // An alias, which we never allow, would come without a topic.
            return Err(malformed("PUBLISH without a topic"));
        }
        let (packet_id, payload) = match qos {
            0 => (0, rest),
            _ => {
                let (id, rest) =
                    rest.split_first_chunk().ok_or(malformed("PUBLISH ends within its packet id"))?;
                (u16::from_be_bytes(*id), rest)
            }
        };
        if qos == 1 && packet_id == 0 {
            return Err(malformed("packet id 0"));
        }
        let dup = first & 0b1000 != 0;
        let extras = Extras { retain: first & 1 != 0, ..Extras::default() };
        Ok(Incoming { dup, qos, packet_id, topic, content_type: None, extras, properties: &[], payload })
    }

    /// The user properties in order, without those that are not for senders to give.
    pub(super) fn user_properties(&self) -> UserProperties<'a> {
        UserProperties { rest: self.properties }
    }

    /// All of them as text.
    pub(super) fn user_texts(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.properties;
        // They were checked when the packet was read.
        let each =
            std::iter::from_fn(move || if rest.is_empty() { None } else { take_property(&mut rest).ok() });
        each.filter_map(|property| match property {
            Property::User(key, value) => Some((key, value)),
            _ => None,
        })
    }

    /// Upper bound for what the message takes in a batch's arena.
    pub(super) fn bytes_len(&self) -> usize {
        // A user property costs five bytes in the packet and eight in the arena.
        self.topic.len() + self.payload.len() + self.properties.len() * 8 / 5 + carried::BYTES_MAX
    }
}

/// User properties of a packet whose properties were checked when it was read.
#[derive(Clone, Debug)]
pub(super) struct UserProperties<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for UserProperties<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match take_property(&mut self.rest) {
                Ok(Property::User(key, value)) if !carried::is_reserved(key.as_bytes()) => {
                    return Some((key.as_bytes(), value.as_bytes()));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// A property as far as the path keeps it.
enum Property<'a> {
    ContentType(&'a str),
    User(&'a str, &'a str),
    Reason(&'a str),
    Format(u8),
    /// In seconds.
    Expiry(u32),
    ResponseTopic(&'a str),
    Correlation(&'a [u8]),
    Other,
}

/// Takes one property off `rest`.
fn take_property<'a>(rest: &mut &'a [u8]) -> Result<Property<'a>, SessionError> {
    const CUT: SessionError = SessionError::Malformed("property that ends too early");
    let bytes = *rest;
    let (id, bytes) = bytes.split_first().ok_or(CUT)?;
    let text = |bytes: &'a [u8]| -> Result<(&'a str, &'a [u8]), SessionError> {
        let (text, rest) = take_bytes(bytes).ok_or(CUT)?;
        let text =
            std::str::from_utf8(text).map_err(|_| SessionError::Malformed("property that is not UTF-8"))?;
        Ok((text, rest))
    };
    let skip = |len: usize| bytes.get(len..).ok_or(CUT);
    let (property, left) = match *id {
        property::USER_PROPERTY => {
            let (key, left) = text(bytes)?;
            let (value, left) = text(left)?;
            (Property::User(key, value), left)
        }
        property::CONTENT_TYPE => {
            let (content_type, left) = text(bytes)?;
            (Property::ContentType(content_type), left)
        }
        property::REASON_STRING => {
            let (reason, left) = text(bytes)?;
            (Property::Reason(reason), left)
        }
        property::PAYLOAD_FORMAT => {
            let (format, left) = bytes.split_first().ok_or(CUT)?;
            (Property::Format(*format), left)
        }
        property::MESSAGE_EXPIRY => {
            let (seconds, left) = bytes.split_first_chunk().ok_or(CUT)?;
            (Property::Expiry(u32::from_be_bytes(*seconds)), left)
        }
        property::RESPONSE_TOPIC => {
            let (topic, left) = text(bytes)?;
            (Property::ResponseTopic(topic), left)
        }
        property::CORRELATION_DATA => {
            let (data, left) = take_bytes(bytes).ok_or(CUT)?;
            (Property::Correlation(data), left)
        }
        property::SUBSCRIPTION_ID => (Property::Other, skip(variable_length(bytes)?.ok_or(CUT)?.0)?),
        property::TOPIC_ALIAS => return Err(SessionError::Malformed("topic alias that was not allowed")),
        _ => return Err(SessionError::Malformed("unknown property")),
    };
    *rest = left;
    Ok(property)
}

/// Takes bytes that follow their length of two bytes.
fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// A PUBLISH to go out, borrowed from a batch. Texts are checked beforehand, by
/// [`is_text`](crate::topic::is_text).
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    /// Before v5 there are no properties.
    pub version: Version,
    pub dup: bool,
    pub qos: u8,
    pub packet_id: u16,
    /// Empty if its alias says it.
    pub topic: &'a [u8],
    pub alias: Option<u16>,
    pub content_type: Option<&'a [u8]>,
    /// User properties in a batch's encoding. Those that are [`carried`] are left out.
    pub properties: &'a [u8],
    /// Takes the place of any `__ts` among the properties.
    pub stamp: Option<Stamp<'a>>,
    pub extras: Extras<'a>,
    pub payload: &'a [u8],
}

impl Extras<'_> {
    fn bytes_len(&self) -> usize {
        let counted = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| 3 + bytes.len());
        let expiry = if self.expiry_s.is_some() { 5 } else { 0 };
        2 * usize::from(self.is_text) + expiry + counted(self.response_topic) + counted(self.correlation)
    }

    fn write(&self, out: &mut BytesMut) {
        if self.is_text {
            out.extend_from_slice(&[property::PAYLOAD_FORMAT, 1]);
        }
        if let Some(seconds) = self.expiry_s {
            out.extend_from_slice(&[property::MESSAGE_EXPIRY]);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        if let Some(topic) = self.response_topic {
            out.extend_from_slice(&[property::RESPONSE_TOPIC]);
            push_bytes(out, topic);
        }
        if let Some(data) = self.correlation {
            out.extend_from_slice(&[property::CORRELATION_DATA]);
            push_bytes(out, data);
        }
    }
}

const STAMP_KEY: &[u8] = hlc::PROPERTY.as_bytes();

impl Outgoing<'_> {
    /// Bytes of the whole packet.
    pub(super) fn packet_bytes(&self) -> usize {
        let body = self.body_bytes();
        1 + variable_length_len(body) + body
    }

    fn body_bytes(&self) -> usize {
        let packet_id = if self.qos == 0 { 0 } else { 2 };
        let properties = match self.version {
            Version::V5 => {
                let bytes = self.properties_bytes();
                variable_length_len(bytes) + bytes
            }
            Version::V311 => 0,
        };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }

    fn properties_bytes(&self) -> usize {
        let user: usize = self.kept_properties().map(|(key, value)| 5 + key.len() + value.len()).sum();
        let stamp = self.stamp.map_or(0, |stamp| 5 + STAMP_KEY.len() + stamp.bytes_len());
        let alias = if self.alias.is_some() { 3 } else { 0 };
        user + stamp + alias + self.extras.bytes_len() + self.content_type.map_or(0, |text| 3 + text.len())
    }

    fn kept_properties(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let stamped = self.stamp.is_some();
        Properties::of(self.properties)
            .filter(move |(key, _)| (!stamped || *key != STAMP_KEY) && !carried::is_reserved(key))
    }

    /// Appends the packet.
    pub(super) fn write(&self, out: &mut BytesMut) {
        out.reserve(self.packet_bytes());
        let flags = u8::from(self.dup && self.qos > 0) << 3 | self.qos << 1 | u8::from(self.extras.retain);
        out.extend_from_slice(&[PACKET_TYPE << 4 | flags]);
        push_variable_length(out, self.body_bytes());
        push_bytes(out, self.topic);
        if self.qos > 0 {
            out.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if self.version == Version::V5 {
            self.write_properties(out);
        }
        out.extend_from_slice(self.payload);
    }

    fn write_properties(&self, out: &mut BytesMut) {
        push_variable_length(out, self.properties_bytes());
        if let Some(alias) = self.alias {
            out.extend_from_slice(&[property::TOPIC_ALIAS]);
            out.extend_from_slice(&alias.to_be_bytes());
        }
        self.extras.write(out);
        if let Some(content_type) = self.content_type {
            out.extend_from_slice(&[property::CONTENT_TYPE]);
            push_bytes(out, content_type);
        }
        for (key, value) in self.kept_properties() {
            out.extend_from_slice(&[property::USER_PROPERTY]);
            push_bytes(out, key);
            push_bytes(out, value);
        }
        if let Some(stamp) = self.stamp {
            out.extend_from_slice(&[property::USER_PROPERTY]);
            push_bytes(out, STAMP_KEY);
            stamp.write(out);
        }
    }
}

fn push_bytes(out: &mut BytesMut, bytes: &[u8]) {
    // Longer texts were refused with `is_text`.
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The entry whose time goes out with a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp<'a> {
    pub entry: &'a Entry,
    pub arena: &'a [u8],
}

impl Stamp<'_> {
    fn bytes_len(&self) -> usize {
        hlc::formatted_len(self.entry)
    }

    /// Appends the text after its length.
    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&(self.bytes_len() as u16).to_be_bytes());
        hlc::format(self.entry, self.arena, out);
    }
}

/// A PUBACK that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PubAck<'a> {
    pub packet_id: u16,
    /// From 0x80 on the broker will never take the message.
    pub reason: u8,
    pub reason_text: Option<&'a str>,
}

impl<'a> PubAck<'a> {
    const FIRST: u8 = 0x40;

    /// Reads what follows the packet's length.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, SessionError> {
        let (id, rest) =
            body.split_first_chunk().ok_or(SessionError::Malformed("PUBACK without a packet id"))?;
        let packet_id = u16::from_be_bytes(*id);
        let mut ack = PubAck { packet_id, reason: 0, reason_text: None };
        let Some((reason, rest)) = rest.split_first() else { return Ok(ack) };
        ack.reason = *reason;
        if rest.is_empty() {
            return Ok(ack);
        }
        const CUT: SessionError = SessionError::Malformed("PUBACK ends within its properties");
        let (len_len, len) = variable_length(rest)?.ok_or(CUT)?;
        let mut rest = rest[len_len..].get(..len).ok_or(CUT)?;
        while !rest.is_empty() {
            if let Property::Reason(text) = take_property(&mut rest)? {
                ack.reason_text = Some(text);
            }
        }
        Ok(ack)
    }

    /// Appends an acknowledgement of success.
    pub(super) fn write(packet_id: u16, out: &mut BytesMut) {
        let [high, low] = packet_id.to_be_bytes();
        out.extend_from_slice(&[Self::FIRST, 2, high, low]);
    }

    /// Why the broker will never take the message, if so.
    pub(super) fn refusal(&self) -> Option<String> {
        if self.reason < 0x80 {
            return None;
        }
        let name = match self.reason {
            0x80 => "unspecified error",
            0x83 => "implementation specific error",
            0x87 => "not authorized",
            0x90 => "topic name invalid",
            0x91 => "packet identifier in use",
            0x97 => "quota exceeded",
            0x99 => "payload format invalid",
            _ => "unknown reason",
        };
        let code = self.reason;
        Some(match self.reason_text {
            Some(text) => format!("broker refused it: {name} ({code:#04x}): {text}"),
            None => format!("broker refused it: {name} ({code:#04x})"),
        })
    }
}

#[cfg(test)]
mod tests;
