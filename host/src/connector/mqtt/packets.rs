//! The rare packets of a session in both versions of MQTT, by rumqttc's codecs: what a
//! version does not have is left out, or has its default. Knows neither doors nor phases.

use std::{error::Error, time::Duration};

use bytes::BytesMut;
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::{QoS, v5},
};

use super::{Qos, SessionError, Version, frame, link::PACKET_BYTES_MAX};
use crate::resource::endpoint::LastWill;

/// What a client says first.
#[derive(Debug)]
pub(super) struct Connect<'a> {
    pub client_id: &'a str,
    pub keep_alive: Duration,
    /// User and password.
    pub login: Option<(&'a str, String)>,
    pub session_expiry: Duration,
    /// For those who subscribe: messages that may wait for their PUBACK.
    pub receive_max: Option<u16>,
    pub last_will: Option<&'a LastWill>,
}

impl Connect<'_> {
    pub(super) fn write(self, version: Version, out: &mut BytesMut) -> Result<(), SessionError> {
        match version {
            Version::V5 => self.write_v5(out),
            Version::V311 => self.write_v311(out),
        }
    }

    fn write_v5(self, out: &mut BytesMut) -> Result<(), SessionError> {
        let properties = v5::ConnectProperties {
            session_expiry_interval: Some(u32::try_from(self.session_expiry.as_secs()).unwrap_or(u32::MAX)),
            receive_maximum: self.receive_max,
            max_packet_size: Some(PACKET_BYTES_MAX as u32),
            ..v5::ConnectProperties::new()
        };
        let connect = v5::Connect {
            keep_alive: self.keep_alive_s(),
            client_id: self.client_id.to_owned(),
            clean_start: false,
            properties: Some(properties),
        };
        let will = self.last_will.map(|LastWill { topic, payload }| {
            v5::LastWill::new(self.will_topic(topic), payload.as_str(), QoS::AtLeastOnce, false, None)
        });
        let login = self.login.map(|(user, password)| v5::Login::new(user, password));
        written("CONNECT", connect.write(&will, &login, out))
    }

    /// A session has no end there but the broker's: only those who subscribe leave one.
    fn write_v311(self, out: &mut BytesMut) -> Result<(), SessionError> {
        let will = self.last_will.map(|LastWill { topic, payload }| {
            v4::LastWill::new(self.will_topic(topic), payload.as_str(), rumqttc::QoS::AtLeastOnce, false)
        });
        let connect = v4::Connect {
            keep_alive: self.keep_alive_s(),
            clean_session: self.receive_max.is_none() || self.session_expiry.is_zero(),
            last_will: will,
            login: self.login.map(|(user, password)| v4::Login::new(user, password)),
            ..v4::Connect::new(self.client_id)
        };
        written("CONNECT", connect.write(out))
    }

    fn will_topic(&self, topic: &str) -> String {
        topic.replace(LastWill::CLIENT_ID, self.client_id)
    }

    fn keep_alive_s(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }
}

/// The broker's answer to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConnAck {
    pub session_present: bool,
    /// Why it wants no connection.
    pub refusal: Option<String>,
    /// If it wants another one than it was told.
    pub keep_alive: Option<Duration>,
    pub receive_max: u16,
    pub packet_bytes_max: usize,
    pub topic_alias_max: u16,
}

impl ConnAck {
    pub(super) fn read(version: Version, first: u8, body: &[u8]) -> Result<Self, SessionError> {
        const UNEXPECTED: SessionError = SessionError::Unexpected { packet: "CONNACK" };
        let unbounded = |session_present, refusal| ConnAck {
            session_present,
            refusal,
            keep_alive: None,
            receive_max: u16::MAX,
            packet_bytes_max: frame::REMAINING_BYTES_MAX,
            topic_alias_max: 0,
        };
        if version == Version::V311 {
            let v4::Packet::ConnAck(v4::ConnAck { session_present, code }) =
                decode_v311("CONNACK", first, body)?
            else {
                return Err(UNEXPECTED);
            };
            let refusal = (code != v4::ConnectReturnCode::Success).then(|| format!("{code:?}"));
            return Ok(unbounded(session_present, refusal));
        }
        if let [_, 1] = body {
            // That is how one of 3.1.1 says that it knows no other version.
            let refusal = "it does not speak MQTT v5; the endpoint may say `version: \"3.1.1\"`";
            return Ok(unbounded(false, Some(refusal.to_owned())));
        }
        let v5::Packet::ConnAck(answer) = decode("CONNACK", first, body)? else { return Err(UNEXPECTED) };
        let code = answer.code;
        let Some(properties) = answer.properties else {
            let refusal = (code != v5::ConnectReturnCode::Success).then(|| format!("{code:?}"));
            return Ok(unbounded(answer.session_present, refusal));
        };
        let refusal = (code != v5::ConnectReturnCode::Success).then(|| match &properties.reason_string {
            Some(text) => format!("{code:?}: {text}"),
            None => format!("{code:?}"),
        });
        let bytes_max = properties.max_packet_size.map(|bytes| bytes as usize);
        Ok(ConnAck {
            session_present: answer.session_present,
            refusal,
            keep_alive: properties.server_keep_alive.map(|seconds| Duration::from_secs(seconds.into())),
            receive_max: properties.receive_max.unwrap_or(u16::MAX).max(1),
            packet_bytes_max: bytes_max.unwrap_or(frame::REMAINING_BYTES_MAX),
            topic_alias_max: properties.topic_alias_max.unwrap_or(0),
        })
    }
}

/// Appends a SUBSCRIBE. In v5 what is retained comes with the first subscription of a session
/// alone, and messages may say that they are retained; in 3.1.1 it comes with every one, and
/// only what comes so says it.
pub(super) fn write_subscribe<'a>(
    version: Version,
    packet_id: u16,
    filters: impl Iterator<Item = &'a str>,
    qos: Qos,
    keeps_retain: bool,
    out: &mut BytesMut,
) -> Result<(), SessionError> {
    if version == Version::V311 {
        let qos = match qos {
            Qos::AtMostOnce => rumqttc::QoS::AtMostOnce,
            Qos::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
        };
        let filters = filters.map(|filter| v4::SubscribeFilter::new(filter.to_owned(), qos));
        let mut subscribe = v4::Subscribe::new_many(filters);
        subscribe.pkid = packet_id;
        return written("SUBSCRIBE", subscribe.write(out));
    }
    let qos = match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    };
    let filters = filters.map(|filter| v5::Filter {
        preserve_retain: keeps_retain,
        retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
        ..v5::Filter::new(filter, qos)
    });
    let mut subscribe = v5::Subscribe::new_many(filters, None);
    subscribe.pkid = packet_id;
    written("SUBSCRIBE", subscribe.write(out))
}

/// The broker's answer to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubAck {
    pub packet_id: u16,
    /// For each filter the QoS that is granted, or why none is.
    pub answers: Vec<Result<u8, String>>,
}

impl SubAck {
    pub(super) fn read(version: Version, first: u8, body: &[u8]) -> Result<Self, SessionError> {
        const UNEXPECTED: SessionError = SessionError::Unexpected { packet: "SUBACK" };
        if version == Version::V311 {
            let v4::Packet::SubAck(answer) = decode_v311("SUBACK", first, body)? else {
                return Err(UNEXPECTED);
            };
            let answers = answer.return_codes.into_iter().map(|code| match code {
                v4::SubscribeReasonCode::Success(granted) => Ok(granted as u8),
                v4::SubscribeReasonCode::Failure => Err("Failure".to_owned()),
            });
            return Ok(SubAck { packet_id: answer.pkid, answers: answers.collect() });
        }
        let v5::Packet::SubAck(answer) = decode("SUBACK", first, body)? else { return Err(UNEXPECTED) };
        let answers = answer.return_codes.into_iter().map(|code| match code {
            v5::SubscribeReasonCode::Success(granted) => Ok(granted as u8),
            refused => Err(format!("{refused:?}")),
        });
        Ok(SubAck { packet_id: answer.pkid, answers: answers.collect() })
    }
}

/// Appends an UNSUBSCRIBE of 3.1.1: in v5 a session is ended with what it is subscribed to.
pub(super) fn write_unsubscribe_v311<'a>(
    packet_id: u16,
    filters: impl Iterator<Item = &'a str>,
    out: &mut BytesMut,
) -> Result<(), SessionError> {
    let unsubscribe = v4::Unsubscribe { pkid: packet_id, topics: filters.map(str::to_owned).collect() };
    written("UNSUBSCRIBE", unsubscribe.write(out))
}

/// Decodes one packet of v5.
pub(super) fn decode(packet: &'static str, first: u8, body: &[u8]) -> Result<v5::Packet, SessionError> {
    v5::Packet::read(&mut whole(first, body), None).map_err(|error| codec(packet, error))
}

fn decode_v311(packet: &'static str, first: u8, body: &[u8]) -> Result<v4::Packet, SessionError> {
    v4::Packet::read(&mut whole(first, body), frame::REMAINING_BYTES_MAX)
        .map_err(|error| codec(packet, error))
}

/// The packet as it came.
fn whole(first: u8, body: &[u8]) -> BytesMut {
    let mut whole = BytesMut::with_capacity(5 + body.len());
    whole.extend_from_slice(&[first]);
    frame::push_variable_length(&mut whole, body.len());
    whole.extend_from_slice(body);
    whole
}

fn written<E: Error + Send + Sync + 'static>(
    packet: &'static str,
    result: Result<usize, E>,
) -> Result<(), SessionError> {
    result.map(drop).map_err(|error| codec(packet, error))
}

/// A packet that a codec did not read or write.
pub(super) fn codec(packet: &'static str, error: impl Error + Send + Sync + 'static) -> SessionError {
    SessionError::Codec { packet, source: Box::new(error) }
}

#[cfg(test)]
mod tests;
