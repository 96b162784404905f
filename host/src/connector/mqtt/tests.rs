//! What the tests of all sessions need: packets by rumqttc's codec, and a session
//! stepped by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use bytes::BytesMut;
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::{
        QoS,
        v5::{
            ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet, PubAck,
            Publish, PublishProperties,
        },
    },
};

use super::{
    frame::{Deframer, Piece},
    *,
};

/// First byte and body of the one packet in `bytes`.
pub(super) fn unframe(bytes: &[u8]) -> (u8, Vec<u8>) {
    let mut packet = None;
    let take = |piece: Piece<'_>| {
        let Piece::Packet { first, body } = piece else { panic!("{piece:?}") };
        packet = Some((first, body.to_vec()));
        Ok(())
    };
    Deframer::new(1 << 20, 1 << 20).feed(bytes, take).expect("one packet");
    packet.expect("a whole packet")
}

pub(super) fn encode(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).expect("a test packet can be written");
    bytes.to_vec()
}

/// Takes every packet off the session's write buffer.
pub(super) fn sent(session: &mut impl Session) -> Vec<Packet> {
    let outgoing = session.outgoing();
    let mut packets = Vec::new();
    while !outgoing.is_empty() {
        if outgoing[..] == [0xe0, 0] {
            // rumqttc's codec writes the short form and does not read it.
            packets.push(Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection)));
            outgoing.clear();
            break;
        }
        packets.push(Packet::read(outgoing, None).expect("what we send is valid"));
    }
    packets
}

/// The same for a session of 3.1.1.
fn sent_v311(session: &mut impl Session) -> Vec<v4::Packet> {
    let outgoing = session.outgoing();
    let mut packets = Vec::new();
    while !outgoing.is_empty() {
        packets.push(v4::Packet::read(outgoing, 1 << 20).expect("what we send is valid"));
    }
    packets
}

pub(super) fn connack(receive_max: Option<u16>, max_packet_size: Option<u32>) -> Vec<u8> {
    let properties = ConnAckProperties {
        session_expiry_interval: None,
        receive_max,
        max_qos: None,
        retain_available: None,
        max_packet_size,
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
    };
    let code = ConnectReturnCode::Success;
    encode(&Packet::ConnAck(ConnAck { session_present: false, code, properties: Some(properties) }))
}

pub(super) fn publish(topic: &str, payload: &str, packet_id: u16, dup: bool) -> Vec<u8> {
    let qos = if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    let mut publish = Publish::new(topic, qos, payload.as_bytes().to_vec(), None);
    publish.pkid = packet_id;
    publish.dup = dup;
    encode(&Packet::Publish(publish))
}

pub(super) fn publish_v311(topic: &str, payload: &str, packet_id: u16) -> Vec<u8> {
    let mut publish = v4::Publish::new(topic, rumqttc::QoS::AtLeastOnce, payload);
    publish.pkid = packet_id;
    let mut bytes = BytesMut::new();
    publish.write(&mut bytes).expect("a test packet can be written");
    bytes.to_vec()
}

pub(super) fn publish_with(
    topic: &str,
    payload: &str,
    packet_id: u16,
    properties: PublishProperties,
) -> Vec<u8> {
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload.as_bytes().to_vec(), Some(properties));
    publish.pkid = packet_id;
    encode(&Packet::Publish(publish))
}

pub(super) fn puback(packet_id: u16) -> Vec<u8> {
    encode(&Packet::PubAck(PubAck::new(packet_id, None)))
}

/// Counts its wake-ups.
#[derive(Debug, Default)]
pub(super) struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Steps a session at instants that the test gives.
pub(super) struct Stepper<S> {
    pub session: S,
    pub now: Instant,
    woken: Arc<Woken>,
    waker: Waker,
}

impl<S: Session> Stepper<S> {
    pub(super) fn new(session: S) -> Self {
        let woken = Arc::new(Woken::default());
        Stepper { session, now: Instant(1), waker: Waker::from(woken.clone()), woken }
    }

    /// Opens a connection that the broker greets with `connack`; gives what was
    /// sent after CONNECT.
    pub(super) fn connect(&mut self, connack: &[u8]) -> Vec<Packet> {
        self.session.connected(self.now).expect("CONNECT can be written");
        let connect = sent(&mut self.session);
        assert!(matches!(connect[..], [Packet::Connect(..)]), "{connect:?}");
        self.give(connack)
    }

    /// Gives `bytes` to the session and polls it; gives what it sends.
    pub(super) fn give(&mut self, bytes: &[u8]) -> Vec<Packet> {
        self.session.received(bytes, self.now).expect("the broker behaves");
        self.poll()
    }

    /// The same for a session of 3.1.1; nothing but CONNECT may have been sent before.
    pub(super) fn connect_v311(&mut self, is_present: bool) -> Vec<v4::Packet> {
        self.session.connected(self.now).expect("CONNECT can be written");
        let connect = sent_v311(&mut self.session);
        assert!(matches!(connect[..], [v4::Packet::Connect(..)]), "{connect:?}");
        self.give_v311(&[0x20, 2, is_present.into(), 0])
    }

    pub(super) fn give_v311(&mut self, bytes: &[u8]) -> Vec<v4::Packet> {
        self.session.received(bytes, self.now).expect("the broker behaves");
        self.poll_v311()
    }

    pub(super) fn poll_v311(&mut self) -> Vec<v4::Packet> {
        self.try_poll().expect("nothing is wrong");
        sent_v311(&mut self.session)
    }

    pub(super) fn poll(&mut self) -> Vec<Packet> {
        self.try_poll().expect("nothing is wrong");
        sent(&mut self.session)
    }

    pub(super) fn try_poll(&mut self) -> Result<(), SessionError> {
        self.session.poll(&mut Context::from_waker(&self.waker), self.now)
    }

    pub(super) fn lose(&mut self) {
        self.session.disconnected(self.now, &SessionError::Closed);
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
    }

    /// Wake-ups since the last call.
    pub(super) fn take_woken(&self) -> usize {
        self.woken.0.swap(0, Ordering::SeqCst)
    }
}

pub(super) fn puback_ids(packets: &[Packet]) -> Vec<u16> {
    let id = |packet: &Packet| match packet {
        Packet::PubAck(ack) => Some(ack.pkid),
        _ => None,
    };
    packets.iter().filter_map(id).collect()
}

/// Packet id, whether it was marked as sent before, payload.
pub(super) fn publishes(packets: &[Packet]) -> Vec<(u16, bool, String)> {
    let read = |packet: &Packet| match packet {
        Packet::Publish(publish) => {
            Some((publish.pkid, publish.dup, String::from_utf8_lossy(&publish.payload).into_owned()))
        }
        _ => None,
    };
    packets.iter().filter_map(read).collect()
}

#[test]
fn the_window_stays_within_what_a_connection_may_hold() {
    for (asked, given) in
        [(0, 64), (1, 64), (64, 64), (100, 100), (1024, 1024), (65_535, 1024), (1 << 20, 1024)]
    {
        assert_eq!(InflightMax::nearest(asked).get(), given, "asked {asked}");
    }
}
