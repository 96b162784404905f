//! Endpoints: connections that the platform owns. AIO's `DataflowEndpoint` for MQTT, Kafka
//! and OpenTelemetry, and our own kinds of it for HTTP, OTLP that comes, memory and files.

mod http;
mod kafka;
mod mqtt;
mod otlp;
mod security;

use std::path::{Path, PathBuf};

use crate::{
    cloud_events::Attributes,
    resource::{
        diagnostic::Diagnostics,
        secret::Secret,
        yaml::{Object, Text, Unknown},
    },
};

pub use self::{
    http::{HttpSettings, ListenSettings, Speaks, WebhookSettings},
    kafka::{
        Acks, Batching, Compression, Copying, KafkaSettings, Mechanism, Partition, Reset, Sasl,
        is_topic as is_kafka_topic,
    },
    mqtt::{LastWill, MqttSettings, Protocol, Version},
    otlp::{Encoding, ExportSettings, OtlpForm, OtlpSettings, Payload, Unit},
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
    Otlp(OtlpSettings),
    /// JSON lines; the path is below the site folder unless absolute.
    File {
        path: PathBuf,
    },
    /// Nothing comes from it, and what is written to it is confirmed and forgotten.
    Memory,
}

/// Whom a client says it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

impl Login {
    /// Reads the keys that say whom, and where the password is.
    fn read(settings: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let user = settings.need_text("user", diagnostics);
        let password = Secret::read_keys(settings, ["passwordFile", "passwordVariable"], diagnostics);
        Some(Login { user: user?.text, password: password? })
    }

    /// The same, with the password's file looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        Login { user: self.user.clone(), password: self.password.below(home) }
    }
}

impl EndpointKind {
    /// Whether each of its ends is a connection that policy counts.
    pub fn is_connection(&self) -> bool {
        match self {
            EndpointKind::Mqtt(_)
            | EndpointKind::Kafka(_)
            | EndpointKind::Http(_)
            | EndpointKind::Otlp(_) => true,
            EndpointKind::File { .. } | EndpointKind::Memory => false,
        }
    }

    /// What listens, for an endpoint that does.
    pub fn listens(&self) -> Option<&ListenSettings> {
        match self {
            EndpointKind::Http(HttpSettings::Listen(settings))
            | EndpointKind::Otlp(OtlpSettings::Listen(settings)) => Some(settings),
            _ => None,
        }
    }

    /// What becomes of the attributes of CloudEvents, if that is said.
    pub fn cloud_events(&self) -> Option<Attributes> {
        match self {
            EndpointKind::Mqtt(settings) => settings.cloud_events,
            EndpointKind::Kafka(settings) => settings.cloud_events,
            EndpointKind::Http(_)
            | EndpointKind::Otlp(_)
            | EndpointKind::File { .. }
            | EndpointKind::Memory => None,
        }
    }

    /// Whether what comes from it must come through, and be settled, in the order in which it
    /// came. Requests are answered each on its own.
    pub fn has_order(&self) -> bool {
        !matches!(self, EndpointKind::Http(_) | EndpointKind::Otlp(_))
    }

    /// Whether what is written to it can be kept on disk while it cannot take it: what
    /// replies, and what is part of a transaction, is for now or for nobody.
    pub fn is_bufferable(&self) -> bool {
        match self {
            EndpointKind::Mqtt(_)
            | EndpointKind::Http(HttpSettings::Webhook(_))
            | EndpointKind::Otlp(OtlpSettings::Export(_)) => true,
            EndpointKind::Kafka(settings) => !settings.transactions,
            EndpointKind::Http(HttpSettings::Listen(_))
            | EndpointKind::Otlp(OtlpSettings::Listen(_))
            | EndpointKind::File { .. }
            | EndpointKind::Memory => false,
        }
    }

    /// Whether requests and their answers, which are told apart by properties, can go over it.
    pub fn carries_commands(&self) -> bool {
        matches!(self, EndpointKind::Mqtt(settings) if settings.version == Version::V5)
    }
}

impl Endpoint {
    /// Reads a DataflowEndpoint's `spec`; `ours` if the apiVersion is Tidegate's.
    pub fn read(name: Text, mut spec: Object<'_>, ours: bool, diagnostics: &mut Diagnostics) -> Option<Self> {
        let kind = spec.need_text("endpointType", diagnostics)?;
        let kind = match (kind.text.as_str(), ours) {
            ("Mqtt", _) => EndpointKind::Mqtt(MqttSettings::read(&mut spec, diagnostics)?),
            ("Kafka", _) => EndpointKind::Kafka(KafkaSettings::read(&mut spec, diagnostics)?),
            ("Http", true) => EndpointKind::Http(HttpSettings::read(&mut spec, diagnostics)?),
            ("OpenTelemetry", _) => EndpointKind::Otlp(OtlpSettings::read(&mut spec, ours, diagnostics)?),
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
            _ => {
                let message = format!("unknown endpoint type `{}`", kind.text);
                diagnostics.error(
                    "endpoint/type",
                    kind.place,
                    message,
                    "one of `Mqtt`, `Kafka`, `OpenTelemetry`, `Http`, `File`, `Memory`",
                );
                return None;
            }
        };
        spec.finish(diagnostics);
        Some(Endpoint { name, kind })
    }
}
