//! AIO's `mqttSettings`.

use std::time::Duration;

use crate::{
    cloud_events::Attributes,
    resource::{
        diagnostic::Diagnostics,
        endpoint::{
            Login,
            security::{Certificate, Tls, is_address},
        },
        host::number,
        yaml::{Object, Text, Unknown},
    },
    topic::{self, is_text},
};

/// AIO's `mqttSettings`, as far as they are done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MqttSettings {
    /// `host:port`.
    pub address: String,
    pub tls: Option<Tls>,
    pub protocol: Protocol,
    /// What the ids of all clients begin with.
    pub client_id_prefix: String,
    pub last_will: Option<LastWill>,
    pub version: Version,
    pub login: Option<Login>,
    /// 0 or 1.
    pub qos: u8,
    /// Whether messages that are retained where they come from are where they go.
    pub keeps_retain: bool,
    pub keep_alive: Duration,
    pub session_expiry: Duration,
    /// Unacknowledged messages at once, either way.
    pub inflight_max: u16,
    /// What becomes of the attributes of CloudEvents that are sent, if that is said.
    pub cloud_events: Option<Attributes>,
}

/// What MQTT is carried in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A connection of its own.
    Mqtt,
    WebSockets,
}

/// Which MQTT is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    V5,
    V311,
}

/// In-flight windows beyond these bounds cost more than they give: below 64 a round
/// trip limits the rate, and 65,535 allocates megabytes for each connection.
const INFLIGHT: (u16, u16) = (64, 1024);

const CLIENT_ID_PREFIX_BYTES_MAX: usize = 128;

impl MqttSettings {
    pub fn read(spec: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut mqtt = Object::of(
            spec.need("mqttSettings", diagnostics)?,
            "`mqttSettings`",
            Unknown::Warning,
            diagnostics,
        );
        let host = mqtt.need_text("host", diagnostics)?;
        if !is_address(&host.text) {
            let message = format!("`{}` is no address", host.text);
            diagnostics.error("endpoint/host", host.place, message, "write `host:port`");
            return None;
        }
        let address = host.text;
        let protocols = [("Mqtt", Protocol::Mqtt), ("WebSockets", Protocol::WebSockets)];
        let protocol = mqtt.choice("protocol", &protocols, diagnostics).unwrap_or(Protocol::Mqtt);
        let version = read_version(&mut mqtt, diagnostics);
        let (login, certificate) = read_authentication(&mut mqtt, diagnostics);
        let mut tls = Tls::read(&mut mqtt, diagnostics);
        if let Some(certificate) = certificate {
            if let (None, Some(disabled)) = (&tls, mqtt.get("tls")) {
                let message = "a certificate cannot be shown without TLS";
                diagnostics.error("endpoint/tls", disabled.place.clone(), message, "write `mode: Enabled`");
            }
            tls.get_or_insert_default().certificate = Some(certificate);
        }
        let qos = read_qos(&mut mqtt, diagnostics);
        let mut get = |key, range| number(&mut mqtt, key, range, diagnostics);
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
        let retains = [("Keep", true), ("Never", false)];
        let keeps_retain = mqtt.choice("retain", &retains, diagnostics).unwrap_or(true);
        let client_id_prefix = read_client_id_prefix(&mut mqtt, diagnostics);
        let last_will = mqtt.object("lastWill", diagnostics).and_then(|it| LastWill::read(it, diagnostics));
        let cloud_events = read_cloud_events(&mut mqtt, version, diagnostics);
        mqtt.finish(diagnostics);
        Some(MqttSettings {
            address,
            tls,
            protocol,
            client_id_prefix,
            last_will,
            version,
            login,
            qos,
            keeps_retain,
            keep_alive,
            session_expiry,
            inflight_max,
            cloud_events,
        })
    }
}

fn read_cloud_events(
    mqtt: &mut Object<'_>,
    version: Version,
    diagnostics: &mut Diagnostics,
) -> Option<Attributes> {
    let (attributes, place) = mqtt.choice_at("cloudEventAttributes", &Attributes::CHOICES, diagnostics)?;
    if version == Version::V311 {
        let message = "`cloudEventAttributes` has no effect in MQTT 3.1.1";
        diagnostics.warning(
            "endpoint/cloud-events",
            place,
            message,
            "it has no user properties to hold them",
        );
    }
    Some(attributes)
}

/// What the broker says of a client whose connection is lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LastWill {
    /// With [`Self::CLIENT_ID`] in the place of the client's id.
    pub topic: String,
    pub payload: String,
}

impl LastWill {
    pub const CLIENT_ID: &str = "${clientId}";

    fn read(mut will: Object<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let topic = will.need_text("topic", diagnostics);
        let payload = will.text("payload", diagnostics).map(|it| it.text).unwrap_or_default();
        will.finish(diagnostics);
        let Text { text, place } = topic?;
        let named = text.replace(Self::CLIENT_ID, "id");
        let error = match topic::check_name(&named) {
            Err(error) => Some(error.to_string()),
            Ok(()) if !is_text(named.as_bytes()) => Some("it is no text that MQTT carries".to_owned()),
            Ok(()) if payload.len() > usize::from(u16::MAX) => {
                Some(format!("its payload has {} bytes and may have {}", payload.len(), u16::MAX))
            }
            Ok(()) => None,
        };
        if let Some(error) = error {
            let message = format!("no last will can go to `{text}`");
            diagnostics.error("endpoint/last-will", place, message, error);
            return None;
        }
        Some(LastWill { topic: text, payload })
    }
}

/// QoS 2 is taken as 1: what comes twice through a host does so for other reasons too.
fn read_qos(mqtt: &mut Object<'_>, diagnostics: &mut Diagnostics) -> u8 {
    let qos = number(mqtt, "qos", 0..=2, diagnostics).unwrap_or(1) as u8;
    if qos < 2 {
        return qos;
    }
    let place = mqtt.get("qos").map(|node| node.place.clone());
    let label = "at least once: a message may come twice, and none is lost";
    diagnostics.warning("endpoint/qos", place, "`qos: 2` is taken as 1", label);
    1
}

/// An id is at most 65,535 bytes, and part of it may stand in a topic.
fn read_client_id_prefix(mqtt: &mut Object<'_>, diagnostics: &mut Diagnostics) -> String {
    let Some(Text { text, place }) = mqtt.text("clientIdPrefix", diagnostics) else { return String::new() };
    if text.len() > CLIENT_ID_PREFIX_BYTES_MAX || text.contains(['+', '#', '$']) || !is_text(text.as_bytes())
    {
        let message = format!("no client's id can begin with `{text}`");
        let label =
            format!("at most {CLIENT_ID_PREFIX_BYTES_MAX} bytes, and no `+`, `#`, `$` or control characters");
        diagnostics.error("endpoint/client-id", place, message, label);
    }
    text
}

/// Ours; AIO speaks v5 alone.
fn read_version(mqtt: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Version {
    let versions = [("5", Version::V5), ("3.1.1", Version::V311)];
    match mqtt.choice_at("version", &versions, diagnostics) {
        Some((Version::V311, place)) => {
            let message = "MQTT 3.1.1 carries topic and payload, and nothing else";
            let label =
                "what comes has no user properties, and what goes loses them, its content type and its time";
            diagnostics.warning("endpoint/version", place, message, label);
            Version::V311
        }
        _ => Version::V5,
    }
}

/// What a client says of itself.
fn read_authentication(
    mqtt: &mut Object<'_>,
    diagnostics: &mut Diagnostics,
) -> (Option<Login>, Option<Certificate>) {
    let Some(mut authentication) = mqtt.object("authentication", diagnostics) else { return (None, None) };
    let Some(method) = authentication.need_text("method", diagnostics) else { return (None, None) };
    let read = match method.text.as_str() {
        "Anonymous" => (None, None),
        "X509Certificate" => (None, Certificate::read(&mut authentication, &method.place, diagnostics)),
        // AIO has no such method; brokers outside Azure do.
        "UserPassword" => {
            let Some(mut settings) = authentication.object("userPasswordSettings", diagnostics) else {
                let message = "`UserPassword` takes `userPasswordSettings`";
                let label = "with `user`, and `passwordFile` or `passwordVariable`";
                diagnostics.error("endpoint/authentication", method.place, message, label);
                return (None, None);
            };
            let login = Login::read(&mut settings, diagnostics);
            settings.finish(diagnostics);
            (login, None)
        }
        other => {
            let message = format!("authentication `{other}` is not there yet");
            let label = "use `Anonymous`, `UserPassword` or `X509Certificate`";
            diagnostics.error("endpoint/authentication", method.place, message, label);
            return (None, None);
        }
    };
    authentication.finish(diagnostics);
    read
}
