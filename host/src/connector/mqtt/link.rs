//! `Link`: what source and sink sessions have in common: CONNECT and its answer,
//! pings, backoff, the farewell, and the write buffer. Knows neither doors nor
//! messages.
//!
//! ```text
//! Offline ──connected──► Connecting ──CONNACK──► Online ──farewell──► Ended
//!    ▲                        │                     │
//!    └──────disconnected──────┴─────────────────────┘
//! ```

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{Disconnect, DisconnectProperties, DisconnectReasonCode, Packet, PingReq};

use super::{
    SessionError, Settings, Version,
    packets::{ConnAck, Connect, decode},
};
use crate::{
    clock::Instant,
    connector::{backoff::Backoff, status::Status, stop::Farewell},
};

/// How long a broker may take for its CONNACK.
const CONNACK_WITHIN: Duration = Duration::from_secs(10);
/// Largest packet that we tell the broker to send. With a smaller limit it would
/// drop a larger message unseen; so our own `payload` limit can dead-letter it.
pub(super) const PACKET_BYTES_MAX: usize = 16 << 20;
/// A connection that held this long was a good one: the next failure is tried again
/// soon.
const GOOD_AFTER: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// A write buffer that a burst made larger than this is let go in a quiet moment.
const OUTGOING_KEPT_BYTES: usize = 4 << 10;

pub(super) struct Link {
    settings: Settings,
    /// What the write side is to send next.
    pub(super) outgoing: BytesMut,
    phase: Phase,
    backoff: Backoff,
    pub(super) status: Arc<Status>,
}

enum Phase {
    Offline { retry_at: Instant },
    Connecting { until: Instant },
    Online(Online),
    Ended,
}

struct Online {
    since: Instant,
    /// When to look whether a ping is due. It moves by half a keep-alive, not with
    /// every packet.
    look_at: Instant,
    look_every: Duration,
    heard: bool,
    spoke: bool,
    pinged: bool,
    pings: u64,
    pings_answered: u64,
}

/// What the broker said in its CONNACK; by default nothing is let through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Greeting {
    /// The broker goes on with an earlier session.
    pub session_present: bool,
    pub receive_max: u16,
    pub packet_bytes_max: usize,
    /// Topics that it keeps numbers of.
    pub topic_alias_max: u16,
}

impl Link {
    pub(super) fn new(settings: Settings) -> Self {
        Link {
            backoff: Backoff::seeded(RETRY_AFTER, RETRY_AFTER_MAX, settings.seed),
            settings,
            outgoing: BytesMut::new(),
            phase: Phase::Offline { retry_at: Instant(0) },
            status: Status::new(),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it is time to open a transport and call [`Self::connected`].
    pub(super) fn wants_connection(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Offline { retry_at } if retry_at <= now)
    }

    pub(super) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    pub(super) fn is_offline(&self) -> bool {
        matches!(self.phase, Phase::Offline { .. })
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// A transport is open: says CONNECT. `receive_max` is for those who subscribe.
    pub(super) fn connected(&mut self, now: Instant, receive_max: Option<u16>) -> Result<(), SessionError> {
        self.outgoing.clear();
        let login = match &self.settings.login {
            Some(login) => Some((login.user.as_str(), login.password.reveal()?)),
            None => None,
        };
        let connect = Connect {
            client_id: &self.settings.client_id,
            keep_alive: self.settings.keep_alive,
            login,
            session_expiry: self.settings.session_expiry,
            receive_max,
            // A sink's end is no news of its own: nothing of it is lost.
            last_will: self.settings.last_will.as_ref().filter(|_| receive_max.is_some()),
        };
        connect.write(self.settings.version, &mut self.outgoing)?;
        self.phase = Phase::Connecting { until: now.plus(CONNACK_WITHIN) };
        Ok(())
    }

    /// The transport is gone or never came: waits before the next attempt.
    pub(super) fn disconnected(&mut self, now: Instant, error: &SessionError) {
        match &self.phase {
            Phase::Ended => return,
            Phase::Online(online) if now.since(online.since) >= GOOD_AFTER => self.backoff.reset(),
            _ => {}
        }
        self.outgoing = BytesMut::new();
        self.phase = Phase::Offline { retry_at: now.plus(self.backoff.next()) };
        self.status.set_degraded(now, describe(error));
    }

    /// Ends without a farewell, there being no one to say it to.
    pub(super) fn end_offline(&mut self) {
        self.phase = Phase::Ended;
        self.status.set_closed();
    }

    /// Says DISCONNECT; nothing follows.
    pub(super) fn end(&mut self, farewell: Farewell) {
        if self.is_online() {
            let properties = match farewell {
                Farewell::ForGood if self.settings.version == Version::V5 => Some(DisconnectProperties {
                    session_expiry_interval: Some(0),
                    reason_string: None,
                    user_properties: Vec::new(),
                    server_reference: None,
                }),
                _ => None,
            };
            let disconnect =
                Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection, properties };
            disconnect.write(&mut self.outgoing).expect("a DISCONNECT is never too long");
        }
        self.end_offline();
    }

    /// Something came in.
    pub(super) fn heard(&mut self) {
        if let Phase::Online(online) = &mut self.phase {
            online.heard = true;
        }
    }

    /// Takes a packet that is neither PUBLISH nor PUBACK nor a SUBACK.
    pub(super) fn take_packet(
        &mut self,
        first: u8,
        body: &[u8],
        now: Instant,
    ) -> Result<Option<Greeting>, SessionError> {
        const CONNACK: u8 = 2;
        const PINGRESP: u8 = 13;
        const DISCONNECT: u8 = 14;
        match first >> 4 {
            CONNACK => {
                let answer = ConnAck::read(self.settings.version, first, body)?;
                self.take_connack(answer, now).map(Some)
            }
            PINGRESP => {
                if let Phase::Online(online) = &mut self.phase {
                    online.pings_answered += 1;
                }
                Ok(None)
            }
            DISCONNECT if self.settings.version == Version::V5 => Err(ended(first, body)),
            kind => Err(SessionError::Unexpected { packet: packet_name(kind) }),
        }
    }

    fn take_connack(&mut self, answer: ConnAck, now: Instant) -> Result<Greeting, SessionError> {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return Err(SessionError::Unexpected { packet: "CONNACK" });
        }
        if let Some(reason) = answer.refusal {
            return Err(SessionError::Refused { reason });
        }
        let keep_alive = answer.keep_alive.unwrap_or(self.settings.keep_alive);
        // Without a keep-alive nobody asks for pings.
        let look_every = if keep_alive.is_zero() { Duration::MAX } else { keep_alive / 2 };
        self.phase = Phase::Online(Online {
            since: now,
            look_at: now.plus(look_every),
            look_every,
            heard: false,
            spoke: false,
            pinged: false,
            pings: 0,
            pings_answered: 0,
        });
        Ok(Greeting {
            session_present: answer.session_present,
            receive_max: answer.receive_max,
            packet_bytes_max: answer.packet_bytes_max,
            topic_alias_max: answer.topic_alias_max,
        })
    }

    /// Pings when it is time, and notices a broker that fell silent. `reads` is
    /// whether the session lets itself be read: an answer that it does not read is
    /// not missed.
    pub(super) fn keep_alive(&mut self, reads: bool, now: Instant) -> Result<(), SessionError> {
        let online = match &mut self.phase {
            Phase::Connecting { until } if *until <= now => {
                return Err(SessionError::Silent { question: "CONNECT", within: CONNACK_WITHIN });
            }
            Phase::Online(online) => online,
            _ => return Ok(()),
        };
        online.heard |= !reads;
        online.spoke |= !self.outgoing.is_empty();
        if now < online.look_at {
            return Ok(());
        }
        if online.pinged && !online.heard {
            return Err(SessionError::Silent { question: "PINGREQ", within: online.look_every });
        }
        online.pinged = !(online.heard && online.spoke);
        if online.pinged {
            online.ping(&mut self.outgoing);
        }
        online.heard = false;
        online.spoke = false;
        if self.outgoing.is_empty() && self.outgoing.capacity() > OUTGOING_KEPT_BYTES {
            self.outgoing = BytesMut::new();
        }
        online.look_at = now.plus(online.look_every);
        Ok(())
    }

    /// Writes a PINGREQ behind all that is to be sent; gives its number on this connection.
    /// To be called online.
    pub(super) fn ping(&mut self) -> u64 {
        match &mut self.phase {
            Phase::Online(online) => online.ping(&mut self.outgoing),
            _ => unreachable!("nobody can be asked offline"),
        }
    }

    /// How many PINGREQs of this connection the broker has answered, in their order.
    pub(super) fn pings_answered(&self) -> u64 {
        match &self.phase {
            Phase::Online(online) => online.pings_answered,
            _ => 0,
        }
    }

    /// When the session must be polled though nothing happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Offline { retry_at } => Some(*retry_at),
            Phase::Connecting { until } => Some(*until),
            Phase::Online(online) => Some(online.look_at),
            Phase::Ended => None,
        }
    }
}

impl Online {
    fn ping(&mut self, outgoing: &mut BytesMut) -> u64 {
        PingReq::write(outgoing).expect("a PINGREQ is never too long");
        self.pings += 1;
        self.pings
    }
}

/// What a DISCONNECT says. rumqttc's codec takes none without properties, though
/// they may be left out.
fn ended(first: u8, body: &[u8]) -> SessionError {
    let code = body.first().copied().unwrap_or(0);
    let name =
        DisconnectReasonCode::try_from(code).map_or("unknown reason".to_owned(), |code| format!("{code:?}"));
    let text = match decode("DISCONNECT", first, body) {
        Ok(Packet::Disconnect(Disconnect { properties: Some(properties), .. })) => properties.reason_string,
        _ => None,
    };
    let reason = text.map_or(format!("{name} ({code:#04x})"), |text| format!("{name} ({code:#04x}): {text}"));
    SessionError::Ended { reason, blames_packet: blames_packet(code) }
}

/// Reasons that lie in a packet of ours and would come again with it.
fn blames_packet(code: u8) -> bool {
    use DisconnectReasonCode as Code;
    let Ok(code) = Code::try_from(code) else { return false };
    matches!(
        code,
        Code::MalformedPacket
            | Code::ProtocolError
            | Code::TopicNameInvalid
            | Code::PacketTooLarge
            | Code::PayloadFormatInvalid
    )
}

fn packet_name(kind: u8) -> &'static str {
    const NAMES: [&str; 16] = [
        "packet of type 0",
        "CONNECT",
        "CONNACK",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "SUBACK",
        "UNSUBSCRIBE",
        "UNSUBACK",
        "PINGREQ",
        "PINGRESP",
        "DISCONNECT",
        "AUTH",
    ];
    NAMES[usize::from(kind & 0xf)]
}

/// An error and all its sources in one line.
fn describe(error: &SessionError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
