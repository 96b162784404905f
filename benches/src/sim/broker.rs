//! The simulated MQTT v5 brokers at both far ends: one that publishes to the host's
//! source session, one that takes from its sink session. They encode and decode with
//! rumqttc's codec, not with the host's, and check that the host keeps to the
//! protocol.

mod publisher;
mod taker;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::{
    Error,
    v5::{ConnAck, ConnAckProperties, ConnectReturnCode, Packet},
};
use tidegate::clock::Instant;

pub(super) use self::{publisher::Publisher, taker::Taker};

/// What both brokers are made of: packets, and whether they are there at all.
struct Port {
    incoming: BytesMut,
    outgoing: BytesMut,
    phase: Phase,
    /// Whether the session outlived the last loss.
    has_session: bool,
    /// Nobody answers until then, and nobody reads or writes until then.
    away_until: Instant,
    stalled_until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Offline,
    /// Waits for CONNECT.
    Greeting,
    Online,
    /// It said DISCONNECT, or was refused.
    Ended,
}

impl Port {
    fn new() -> Self {
        Port {
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            phase: Phase::Offline,
            has_session: false,
            away_until: Instant(0),
            stalled_until: Instant(0),
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.incoming.clear();
        self.outgoing.clear();
        self.phase = phase;
    }

    /// The next whole packet.
    fn next_packet(&mut self) -> anyhow::Result<Option<Packet>> {
        if self.incoming.starts_with(&[0xe0, 0]) {
            // The codec does not read the short form of DISCONNECT.
            self.phase = Phase::Ended;
            self.incoming.clear();
        }
        match Packet::read(&mut self.incoming, None) {
            Ok(Packet::Disconnect(_)) => {
                self.phase = Phase::Ended;
                Ok(None)
            }
            Ok(packet) => Ok(Some(packet)),
            Err(Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => bail!("the host sends what is no packet: {error}"),
        }
    }

    fn send(&mut self, packet: Packet) -> anyhow::Result<()> {
        packet.write(&mut self.outgoing, None).context("a broker's packet")?;
        Ok(())
    }

    /// Answers CONNECT: with a session or without one, or not now.
    fn greet(&mut self, is_busy: bool, receive_max: Option<u16>) -> anyhow::Result<()> {
        let code = if is_busy { ConnectReturnCode::ServerBusy } else { ConnectReturnCode::Success };
        let session_present = self.has_session && !is_busy;
        let properties = Some(connack_properties(receive_max));
        self.send(Packet::ConnAck(ConnAck { session_present, code, properties }))?;
        self.phase = if is_busy { Phase::Ended } else { Phase::Online };
        self.has_session |= !is_busy;
        Ok(())
    }

    /// When it comes out of a stall that holds something back.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        (now < self.stalled_until).then_some(self.stalled_until)
    }

    fn is_stalled(&self, now: Instant) -> bool {
        now < self.stalled_until
    }
}

fn connack_properties(receive_max: Option<u16>) -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

#[cfg(test)]
mod tests;
