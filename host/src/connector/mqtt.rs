//! The MQTT connector, v5 and 3.1.1: sessions that turn bytes into deliveries and writes into
//! bytes, and the connection that moves those bytes. A session has no socket, no
//! task and no clock of its own, so that a simulation steps the same code over
//! pipes.
//!
//! The one who drives a session, real or simulated, repeats: read and give it what
//! was read (`received`), `poll`, write what stands in `outgoing`, and come back at
//! the latest at `deadline`. rumqttc's codec encodes and decodes the rare packets;
//! PUBLISH and PUBACK are our own (`publish`), because they must not allocate.

mod commands;
mod connection;
mod frame;
mod link;
mod packets;
mod patience;
mod publish;
mod sink;
mod source;

use std::{sync::Arc, task::Context, time::Duration};

use bytes::BytesMut;

use super::status::Status;
use crate::{
    clock::{Clock, Instant},
    resource::{
        endpoint::{LastWill, Login, Version},
        secret::SecretError,
    },
};

pub use self::{
    commands::{CommandOptions, CommandSession},
    connection::{Remote, TlsError, WebError, run},
    sink::SinkSession,
    source::{Oversize, SourceOptions, SourceSession},
};

/// How a client connects. AIO's `mqttSettings`, parsed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Stable, so that the broker keeps the session: see [`client_id`](super::client_id).
    pub client_id: String,
    pub version: Version,
    /// Its password is read anew for each connection.
    pub login: Option<Login>,
    /// What the broker says of a source whose connection is lost.
    pub last_will: Option<LastWill>,
    pub keep_alive: Duration,
    /// How long the broker keeps the session of a client that is gone.
    pub session_expiry: Duration,
    pub qos: Qos,
    /// Whether messages that are retained where they come from are where they go.
    pub keeps_retain: bool,
    pub inflight_max: InflightMax,
    /// Seeds the jitter of reconnects.
    pub seed: u64,
    /// What messages expire by: in days that no process outlives, on disk among them, only
    /// the wall's time counts.
    pub clock: Clock,
}

impl Settings {
    /// With AIO's defaults.
    pub fn new(client_id: String) -> Self {
        Settings {
            client_id,
            version: Version::V5,
            login: None,
            last_will: None,
            keep_alive: Duration::from_secs(60),
            session_expiry: Duration::from_secs(3600),
            qos: Qos::AtLeastOnce,
            keeps_retain: true,
            inflight_max: InflightMax::default(),
            seed: 0,
            clock: Clock::System,
        }
    }
}

/// Most messages of a client that may wait for their PUBACK. AIO's
/// `maxInflightMessages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightMax(u16);

impl InflightMax {
    /// Less stalls on every PUBACK; more would hold much memory per connection.
    pub const RANGE: std::ops::RangeInclusive<u16> = 64..=1024;

    /// `messages`, or the nearest that [`Self::RANGE`] allows.
    pub fn nearest(messages: u32) -> Self {
        let messages = u16::try_from(messages).unwrap_or(u16::MAX);
        InflightMax(messages.clamp(*Self::RANGE.start(), *Self::RANGE.end()))
    }

    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for InflightMax {
    /// AIO's.
    fn default() -> Self {
        InflightMax(100)
    }
}

/// One end of the connector, to be driven over a transport.
pub trait Session {
    /// Whether it is time to open a transport; then `connected` or `disconnected`.
    fn wants_connection(&self, now: Instant) -> bool;
    /// A transport is open. What it brings belongs to a new generation: nothing
    /// that was to be acknowledged on an older one will be.
    fn connected(&mut self, now: Instant) -> Result<(), SessionError>;
    /// The transport is gone, or could not be opened.
    fn disconnected(&mut self, now: Instant, error: &SessionError);
    /// Whether to read at all: a source that holds too much lets the broker wait.
    fn wants_read(&self) -> bool;
    /// Takes what a read brought. After an error the transport is to be closed.
    fn received(&mut self, bytes: &[u8], now: Instant) -> Result<(), SessionError>;
    /// Does all that can be done now at the door, and puts what follows into
    /// `outgoing`; `ctx` is woken when the door has more.
    fn poll(&mut self, ctx: &mut Context<'_>, now: Instant) -> Result<(), SessionError>;
    /// What to write next. Taken off the front as far as it was written.
    fn outgoing(&mut self) -> &mut BytesMut;
    /// When to poll again though nothing happened. It may move with every poll; to
    /// come back at an earlier one that it gave is never wrong.
    fn deadline(&self) -> Option<Instant>;
    /// Nothing will be done any more: write what is left and close the transport.
    fn is_finished(&self) -> bool;
    /// State and counters.
    fn status(&self) -> &Arc<Status>;
}

/// How often a message may come: at most once, or at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
}

impl Qos {
    fn level(self) -> u8 {
        match self {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => 1,
        }
    }
}

/// Why a connection cannot go on. It is closed and made anew with backoff.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the broker refused the connection: {reason}")]
    Refused { reason: String },
    #[error("the broker refused the subscription to `{filter}`: {reason}")]
    SubscriptionRefused { filter: String, reason: String },
    #[error("the broker ended the connection: {reason}")]
    Ended {
        reason: String,
        /// The broker did not like what we sent, and would not like it again.
        blames_packet: bool,
    },
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    #[error("malformed {packet}")]
    Codec { packet: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("packet of {bytes} bytes where at most {bytes_max} are taken")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("unexpected {packet}")]
    Unexpected { packet: &'static str },
    #[error("no answer to {question} within {within:?}")]
    Silent { question: &'static str, within: Duration },
    #[error("connection closed by the broker")]
    Closed,
    #[error("the password is not known")]
    Secret(#[from] SecretError),
    #[error("no encrypted connection")]
    Tls(#[from] TlsError),
    #[error("no WebSocket")]
    Web(#[from] WebError),
    #[error("connection failed")]
    Io(#[source] std::io::Error),
}

#[cfg(test)]
mod tests;
