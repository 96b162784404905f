//! Endpoints: connections that the platform owns. AIO's `DataflowEndpoint` for MQTT and
//! Kafka, and our own kinds of it for HTTP, memory and files.

mod http;
mod kafka;
mod security;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::resource::{
    diagnostic::Diagnostics,
    host::number,
    secret::Secret,
    yaml::{Object, Text, Unknown},
};

pub use self::{
    http::{HttpSettings, ListenSettings, WebhookSettings},
    kafka::{
        Acks, Batching, Compression, KafkaSettings, Mechanism, Partition, Reset, Sasl,
        is_topic as is_kafka_topic,
    },
    security::{Certificate, Tls},
};

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub name: Text,
    pub kind: EndpointKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    Mqtt(MqttSettings),
    Kafka(KafkaSettings),
    Http(HttpSettings),
    /// JSON lines; the path is below the site folder unless absolute.
    File {
        path: PathBuf,
    },
    /// Nothing comes from it, and what is written to it is confirmed and forgotten.
    Memory,
}

/// AIO's `mqttSettings`, as far as they are done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MqttSettings {
    /// `host:port`.
    pub address: String,
    pub login: Option<Login>,
    /// 0 or 1.
    pub qos: u8,
    pub keep_alive: Duration,
    pub session_expiry: Duration,
    /// Unacknowledged messages at once, either way.
    pub inflight_max: u16,
}

/// Whom a client says it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

impl Login {
    /// The same, with the password's file looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        Login { user: self.user.clone(), password: self.password.below(home) }
    }
}

/// In-flight windows beyond these bounds cost more than they give: below 64 a round
/// trip limits the rate, and 65,535 allocates megabytes for each connection.
const INFLIGHT: (u16, u16) = (64, 1024);

impl EndpointKind {
    /// Whether each of its ends is a connection that policy counts.
    pub fn is_connection(&self) -> bool {
        matches!(self, EndpointKind::Mqtt(_) | EndpointKind::Kafka(_) | EndpointKind::Http(_))
    }
}

impl Endpoint {
    /// Reads a DataflowEndpoint's `spec`; `ours` if the apiVersion is Tidegate's.
    pub fn read(name: Text, mut spec: Object<'_>, ours: bool, diagnostics: &mut Diagnostics) -> Option<Self> {
        let kind = spec.need_text("endpointType", diagnostics)?;
        let kind = match (kind.text.as_str(), ours) {
            ("Mqtt", _) => EndpointKind::Mqtt(read_mqtt(&mut spec, diagnostics)?),
            ("Kafka", _) => EndpointKind::Kafka(KafkaSettings::read(&mut spec, diagnostics)?),
            ("Http", true) => EndpointKind::Http(HttpSettings::read(&mut spec, diagnostics)?),
            ("Memory", true) => EndpointKind::Memory,
            ("File", true) => {
                let mut file = Object::of(
                    spec.need("fileSettings", diagnostics)?,
                    "`fileSettings`",
                    Unknown::Error,
                    diagnostics,
                );
                let path = file.need_text("path", diagnostics);
                file.finish(diagnostics);
                EndpointKind::File { path: path?.text.into() }
            }
            ("Http" | "Memory" | "File", false) => {
                let message = format!("endpoint type `{}` is Tidegate's own", kind.text);
                diagnostics.error(
                    "endpoint/type",
                    kind.place,
                    message,
                    "write `apiVersion: tidegate.dev/v1`",
                );
                return None;
            }
            ("OpenTelemetry", _) => {
                let message = format!("endpoint type `{}` is not there yet", kind.text);
                diagnostics.error(
                    "endpoint/type",
                    kind.place,
                    message,
                    "`Mqtt`, `Kafka`, `Http`, `File` and `Memory` are",
                );
                return None;
            }
            _ => {
                let message = format!("unknown endpoint type `{}`", kind.text);
                diagnostics.error(
                    "endpoint/type",
                    kind.place,
                    message,
                    "one of `Mqtt`, `Kafka`, `Http`, `File`, `Memory`",
                );
                return None;
            }
        };
        spec.finish(diagnostics);
        Some(Endpoint { name, kind })
    }
}

fn read_mqtt(spec: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Option<MqttSettings> {
    let mut mqtt =
        Object::of(spec.need("mqttSettings", diagnostics)?, "`mqttSettings`", Unknown::Warning, diagnostics);
    let host = mqtt.need_text("host", diagnostics)?;
    if !security::is_address(&host.text) {
        let message = format!("`{}` is no address", host.text);
        diagnostics.error("endpoint/host", host.place, message, "write `host:port`");
        return None;
    }
    let address = host.text;
    if let Some(protocol) = mqtt.text("protocol", diagnostics)
        && protocol.text != "Mqtt"
    {
        let message = format!("protocol `{}` is not there yet", protocol.text);
        diagnostics.error("endpoint/protocol", protocol.place, message, "use `Mqtt`");
    }
    let login = mqtt.object("authentication", diagnostics).and_then(|it| read_login(it, diagnostics));
    if let Some(mut tls) = mqtt.object("tls", diagnostics) {
        if let Some(mode) = tls.text("mode", diagnostics)
            && mode.text != "Disabled"
        {
            diagnostics.error("endpoint/tls", mode.place, "TLS is not there yet", "write `Disabled`");
        }
        tls.get("trustedCaCertificateConfigMapRef");
        tls.finish(diagnostics);
    }
    let mut get = |key, range| number(&mut mqtt, key, range, diagnostics);
    let qos = get("qos", 0..=1).unwrap_or(1) as u8;
    let keep_alive = Duration::from_secs(get("keepAliveSeconds", 1..=65_535).unwrap_or(60));
    let session_expiry =
        Duration::from_secs(get("sessionExpirySeconds", 0..=u64::from(u32::MAX)).unwrap_or(3600));
    let asked = get("maxInflightMessages", 1..=65_535).unwrap_or(100) as u16;
    let inflight_max = asked.clamp(INFLIGHT.0, INFLIGHT.1);
    if asked != inflight_max {
        let place = mqtt.get("maxInflightMessages").map(|node| node.place.clone());
        let message = format!("`maxInflightMessages` is taken as {inflight_max}");
        let label = format!("{} to {} messages can be in flight", INFLIGHT.0, INFLIGHT.1);
        diagnostics.warning("endpoint/inflight", place, message, label);
    }
    for ignored in ["retain", "clientIdPrefix", "cloudEventAttributes"] {
        if let Some(node) = mqtt.get(ignored) {
            let message = format!("`{ignored}` has no effect yet");
            diagnostics.warning("endpoint/not-yet", node.place.clone(), message, "");
        }
    }
    mqtt.finish(diagnostics);
    Some(MqttSettings { address, login, qos, keep_alive, session_expiry, inflight_max })
}

/// `None` for a client that says nothing of itself.
fn read_login(mut authentication: Object<'_>, diagnostics: &mut Diagnostics) -> Option<Login> {
    let method = authentication.need_text("method", diagnostics)?;
    let login = match method.text.as_str() {
        "Anonymous" => None,
        // AIO has no such method; brokers outside Azure do.
        "UserPassword" => {
            let mut settings =
                authentication.object("userPasswordSettings", diagnostics).unwrap_or_else(|| {
                    let message = "`UserPassword` takes `userPasswordSettings`";
                    let label = "with `user`, and `passwordFile` or `passwordVariable`";
                    diagnostics.error("endpoint/authentication", method.place, message, label);
                    Object::absent("userPasswordSettings")
                });
            if !settings.is_there() {
                return None;
            }
            let user = settings.need_text("user", diagnostics);
            let password =
                Secret::read_keys(&mut settings, ["passwordFile", "passwordVariable"], diagnostics);
            settings.finish(diagnostics);
            Some(Login { user: user?.text, password: password? })
        }
        other => {
            let message = format!("authentication `{other}` is not there yet");
            let label = "use `Anonymous` or `UserPassword`";
            diagnostics.error("endpoint/authentication", method.place, message, label);
            return None;
        }
    };
    authentication.finish(diagnostics);
    login
}
