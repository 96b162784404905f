//! `openTelemetrySettings`: AIO's, of a Collector that messages are exported to; and, under
//! Tidegate's own `apiVersion`, a server that takes OTLP.

use std::{path::Path, time::Duration};

use crate::resource::{
    diagnostic::Diagnostics,
    endpoint::{
        http::{Defaults, ListenSettings, Speaks},
        security::{Certificate, Tls, is_address},
    },
    host::number,
    yaml::{Object, Text, Unknown},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OtlpSettings {
    Listen(ListenSettings),
    Export(ExportSettings),
}

/// What one message of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A request as it came.
    Request,
    /// A span, a data point or a log record, with all that encloses it.
    Item,
}

/// How a message's payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Protobuf,
    Json,
}

/// What requests of OTLP become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OtlpForm {
    pub unit: Unit,
    pub encoding: Encoding,
}

/// What a destination's payloads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// AIO's form, of metrics and logs.
    Telemetry,
    /// Requests of OTLP.
    Otlp,
}

/// A Collector, for destinations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExportSettings {
    /// `host:port`.
    pub address: String,
    pub tls: Option<Tls>,
    pub payload: Payload,
    /// So long messages wait for others to be sent with; `None` for no longer than for the
    /// answer to those before.
    pub latency: Option<Duration>,
    pub messages_max: u32,
    /// For one request, answer included.
    pub timeout: Duration,
}

/// AIO's, and a request may have as many messages.
const MESSAGES_MAX: u64 = 100_000;
const LISTENING: Defaults = Defaults { body_bytes_max: 4 << 20, requests_max: 64 };

impl OtlpSettings {
    /// `ours` if the apiVersion is Tidegate's.
    pub fn read(spec: &mut Object<'_>, ours: bool, diagnostics: &mut Diagnostics) -> Option<Self> {
        let unknown = if ours { Unknown::Error } else { Unknown::Warning };
        let node = spec.need("openTelemetrySettings", diagnostics)?;
        let mut settings = Object::of(node, "`openTelemetrySettings`", unknown, diagnostics);
        let read = match settings.text("listen", diagnostics).filter(|_| ours) {
            Some(listen) => read_listen(&mut settings, &listen, diagnostics).map(OtlpSettings::Listen),
            None => ExportSettings::read(&mut settings, ours, diagnostics).map(OtlpSettings::Export),
        };
        settings.finish(diagnostics);
        read
    }
}

fn read_listen(
    settings: &mut Object<'_>,
    listen: &Text,
    diagnostics: &mut Diagnostics,
) -> Option<ListenSettings> {
    if let Some(host) = settings.text("host", diagnostics) {
        let message = "`openTelemetrySettings` takes one of `listen` and `host`";
        let label = "a server listens at `HOST:PORT`, a Collector is at `host`";
        diagnostics.error("endpoint/otlp", host.place, message, label);
    }
    let units = [("Request", Unit::Request), ("Item", Unit::Item)];
    let unit = settings.choice("unit", &units, diagnostics).unwrap_or(Unit::Item);
    let encodings = [("Protobuf", Encoding::Protobuf), ("Json", Encoding::Json)];
    let encoding = settings.choice("encoding", &encodings, diagnostics).unwrap_or(Encoding::Json);
    let speaks = Speaks::Otlp(OtlpForm { unit, encoding });
    ListenSettings::read(settings, listen, speaks, LISTENING, diagnostics)
}

impl ExportSettings {
    /// The same, with its files looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        ExportSettings { tls: self.tls.as_ref().map(|it| it.below(home)), ..self.clone() }
    }

    fn read(settings: &mut Object<'_>, ours: bool, diagnostics: &mut Diagnostics) -> Option<Self> {
        let host = settings.need_text("host", diagnostics);
        let certificate = read_authentication(settings, diagnostics);
        let mut tls = Tls::read(settings, diagnostics);
        if let Some(certificate) = certificate {
            tls.get_or_insert_default().certificate = Some(certificate);
        }
        let (mut latency, mut messages_max) = (None, MESSAGES_MAX);
        if let Some(mut batching) = settings.object("batching", diagnostics) {
            latency = number(&mut batching, "latencySeconds", 0..=3_600, diagnostics);
            let messages = number(&mut batching, "maxMessages", 1..=MESSAGES_MAX, diagnostics);
            messages_max = messages.unwrap_or(MESSAGES_MAX);
            batching.finish(diagnostics);
        }
        let (mut payload, mut timeout) = (Payload::Telemetry, 30);
        if ours {
            let payloads = [("Telemetry", Payload::Telemetry), ("Otlp", Payload::Otlp)];
            payload = settings.choice("payload", &payloads, diagnostics).unwrap_or(payload);
            timeout = number(settings, "timeoutSeconds", 1..=3_600, diagnostics).unwrap_or(timeout);
        }
        let host = host?;
        if !is_address(&host.text) {
            let message = format!("`{}` is no address", host.text);
            diagnostics.error("endpoint/host", host.place.clone(), message, "write `host:port`");
            return None;
        }
        Some(ExportSettings {
            address: host.text,
            tls,
            payload,
            latency: latency.map(Duration::from_secs),
            messages_max: messages_max as u32,
            timeout: Duration::from_secs(timeout),
        })
    }
}

fn read_authentication(settings: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Option<Certificate> {
    let mut authentication = settings.object("authentication", diagnostics)?;
    let method = authentication.need_text("method", diagnostics)?;
    let certificate = match method.text.as_str() {
        "Anonymous" => None,
        "X509Certificate" => Certificate::read(&mut authentication, &method.place, diagnostics),
        other => {
            let message = format!("authentication `{other}` is not there");
            let label = "use `Anonymous` or `X509Certificate`";
            diagnostics.error("endpoint/authentication", method.place, message, label);
            return None;
        }
    };
    authentication.finish(diagnostics);
    certificate
}

#[cfg(test)]
mod tests;
