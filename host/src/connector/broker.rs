//! The embedded broker: MQTT on loopback ports inside the host's process, so that a
//! demo runs with nothing installed. It serves no step of the path; the connector
//! reaches it over a socket like any other broker.
//!
//! rumqttd, because it is small and already speaks the two versions that the host
//! does. It keeps messages in memory only, drops its oldest segment when a
//! subscriber falls far behind, and cannot be stopped: loss and backpressure are
//! shown on a real broker, not on this one.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Largest message: what the MQTT connector takes in.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Most that is kept of one topic filter for subscribers that fall behind: segments
/// and bytes of each.
const SEGMENTS_MAX: usize = 16;
const SEGMENT_BYTES: usize = 4 << 20;
const CONNECTIONS_MAX: usize = 4096;
/// How long it may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Ports on loopback; 0 for one that is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    pub v5: u16,
    pub v311: u16,
}

/// Why there is no embedded broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("port {port} of the embedded broker cannot be used")]
    Port {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the embedded broker")]
    Start(#[source] io::Error),
    #[error("the embedded broker does not listen on port {port} after {READY_WITHIN:?}")]
    NotReady { port: u16 },
}

/// Starts the broker and gives the ports that it listens on. It runs until the
/// process ends.
pub fn start(ports: Ports) -> Result<Ports, BrokerError> {
    let ports = free_ports(ports)?;
    let config = Config {
        id: 0,
        router: RouterConfig {
            max_connections: CONNECTIONS_MAX,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS_MAX,
            ..RouterConfig::default()
        },
        v4: Some(server("v311", ports.v311)),
        v5: Some(server("v5", ports.v5)),
        ..Config::default()
    };
    let mut broker = Broker::new(config);
    let serve = move || {
        if let Err(error) = broker.start() {
            tracing::error!(%error, "the embedded broker has ended");
        }
    };
    thread::Builder::new().name("broker".into()).spawn(serve).map_err(BrokerError::Start)?;
    for port in [ports.v5, ports.v311] {
        wait_until_ready(port)?;
    }
    Ok(ports)
}

/// A filter of log lines: the broker calls it an error when a client of its goes,
/// whichever way, which says nothing about the host. Its other errors stay.
pub struct PeersLeave;

impl<S> tracing_subscriber::layer::Filter<S> for PeersLeave {
    fn enabled(&self, _: &tracing::Metadata<'_>, _: &tracing_subscriber::layer::Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(
        &self,
        event: &tracing::Event<'_>,
        _: &tracing_subscriber::layer::Context<'_, S>,
    ) -> bool {
        if !event.metadata().target().starts_with("rumqttd::") {
            return true;
        }
        let mut message = Message::default();
        event.record(&mut message);
        !OF_PEERS.iter().any(|beginning| message.0.starts_with(beginning))
    }
}

/// How begins what the broker says of one client's connection.
const OF_PEERS: [&str; 7] = [
    "disconnected",
    "connection-stop",
    "router-drop",
    "Remote link error",
    "no-connection id",
    "Connection is already disconnected",
    "Error while handling MQTT connect packet",
];

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// `client_id` as this broker takes it: it refuses `/`, `+`, `#` and `$`. Different
/// ids stay different.
pub fn client_id(client_id: &str) -> String {
    let mut taken = String::with_capacity(client_id.len());
    for c in client_id.chars() {
        match c {
            '/' => taken.push(':'),
            ':' | '%' | '+' | '#' | '$' => taken.push_str(&format!("%{:02x}", c as u32)),
            _ => taken.push(c),
        }
    }
    taken
}

fn server(name: &str, port: u16) -> HashMap<String, ServerSettings> {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: PAYLOAD_BYTES_MAX,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let settings = ServerSettings {
        name: name.into(),
        listen: address(port),
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    HashMap::from([(name.to_owned(), settings)])
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The broker reports neither a port that is taken nor one that it chose itself, so
/// both are tried before. Both listeners are held until both ports are known.
fn free_ports(ports: Ports) -> Result<Ports, BrokerError> {
    let bind = |port| TcpListener::bind(address(port)).map_err(|source| BrokerError::Port { port, source });
    let port_of = |listener: &TcpListener, port: u16| match listener.local_addr() {
        Ok(address) => Ok(address.port()),
        Err(source) => Err(BrokerError::Port { port, source }),
    };
    let (v5, v311) = (bind(ports.v5)?, bind(ports.v311)?);
    Ok(Ports { v5: port_of(&v5, ports.v5)?, v311: port_of(&v311, ports.v311)? })
}

fn wait_until_ready(port: u16) -> Result<(), BrokerError> {
    let until = Instant::now() + READY_WITHIN;
    while TcpStream::connect(address(port)).is_err() {
        if Instant::now() > until {
            return Err(BrokerError::NotReady { port });
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
