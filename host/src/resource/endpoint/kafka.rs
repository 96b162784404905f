//! AIO's `kafkaSettings`.

use std::{path::Path, time::Duration};

use crate::{
    cloud_events::Attributes,
    resource::{
        diagnostic::Diagnostics,
        endpoint::{
            Login,
            security::{Certificate, Tls, is_address, refuse_secret_ref},
        },
        host::number,
        yaml::{Object, Unknown},
    },
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KafkaSettings {
    /// `host:port`, one or several with commas.
    pub address: String,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    /// AIO's `consumerGroupId`; needed by sources alone.
    pub group: Option<String>,
    pub reset: Reset,
    pub compression: Compression,
    pub batching: Batching,
    pub acks: Acks,
    pub partition: Partition,
    /// Whether user properties become headers, and headers user properties.
    pub copying: Copying,
    pub cloud_events: Option<Attributes>,
    /// Whether results and what they were made of are committed together.
    pub transactions: bool,
}

/// Whom a client says it is, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub login: Login,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// As the protocol names it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Where a group begins that has read nothing of a partition yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    Earliest,
    Latest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// As the library names it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Which user properties become headers, and headers user properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copying {
    Nothing,
    /// Each under its own name.
    AsTheyAre,
    /// The same, but for the attributes of CloudEvents, which have other names in Kafka.
    CloudEvents,
}

/// How long records wait for others to be sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batching {
    pub latency: Duration,
    pub bytes_max: u32,
    pub messages_max: u32,
}

/// Who has a record when it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acks {
    All,
    One,
    Zero,
}

/// What decides the partition of a record: the key that it gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Partition {
    /// The message's key, if it has one; any partition otherwise.
    Default,
    /// One for all that this host writes.
    Static,
    /// The topic that the message came from.
    Topic,
    /// The user property of this name.
    Property(String),
}

impl KafkaSettings {
    /// The same, with its files looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        let sasl = self.sasl.as_ref().map(|it| Sasl { login: it.login.below(home), ..it.clone() });
        KafkaSettings { tls: self.tls.as_ref().map(|it| it.below(home)), sasl, ..self.clone() }
    }

    pub fn read(spec: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut kafka = Object::of(
            spec.need("kafkaSettings", diagnostics)?,
            "`kafkaSettings`",
            Unknown::Warning,
            diagnostics,
        );
        let host = kafka.need_text("host", diagnostics)?;
        if !host.text.split(',').all(|address| is_address(address.trim())) {
            let message = format!("`{}` is no address", host.text);
            diagnostics.error("endpoint/host", host.place.clone(), message, "write `host:port`");
            return None;
        }
        let (sasl, certificate) = read_authentication(&mut kafka, diagnostics);
        let mut tls = Tls::read(&mut kafka, diagnostics);
        if let Some(certificate) = certificate {
            tls.get_or_insert_default().certificate = Some(certificate);
        }
        let group = kafka.text("consumerGroupId", diagnostics).map(|it| it.text);
        let resets = [("Earliest", Reset::Earliest), ("Latest", Reset::Latest)];
        let reset = kafka.choice("autoOffsetReset", &resets, diagnostics).unwrap_or(Reset::Earliest);
        let compressions = [
            ("None", Compression::None),
            ("Gzip", Compression::Gzip),
            ("Snappy", Compression::Snappy),
            ("Lz4", Compression::Lz4),
            ("Zstd", Compression::Zstd),
        ];
        let compression =
            kafka.choice("compression", &compressions, diagnostics).unwrap_or(Compression::None);
        let batching = read_batching(&mut kafka, diagnostics);
        let acks = [("All", Acks::All), ("One", Acks::One), ("Zero", Acks::Zero), ("None", Acks::Zero)];
        let acks = kafka.choice("kafkaAcks", &acks, diagnostics).unwrap_or(Acks::All);
        let partition = read_partition(&mut kafka, diagnostics);
        let copies = [("Enabled", true), ("Disabled", false)];
        let copies_properties = kafka.choice("copyMqttProperties", &copies, diagnostics).unwrap_or(true);
        let switches = [("true", true), ("false", false)];
        let transactions = kafka.choice_at("transactions", &switches, diagnostics);
        if let Some((true, place)) = &transactions
            && acks != Acks::All
        {
            let message = "`transactions` take `kafkaAcks: All`";
            diagnostics.error("endpoint/transactions", place.clone(), message, "anything less may lose them");
        }
        let events = kafka.choice_at("cloudEventAttributes", &Attributes::CHOICES, diagnostics);
        if let (Some((_, place)), false) = (&events, copies_properties) {
            let message = "`cloudEventAttributes` has no effect while `copyMqttProperties` is `Disabled`";
            diagnostics.warning(
                "endpoint/cloud-events",
                place.clone(),
                message,
                "no property becomes a header",
            );
        }
        let cloud_events = events.map(|(attributes, _)| attributes);
        let copying = match (copies_properties, cloud_events) {
            (false, _) => Copying::Nothing,
            (true, None) => Copying::AsTheyAre,
            (true, Some(_)) => Copying::CloudEvents,
        };
        kafka.finish(diagnostics);
        Some(KafkaSettings {
            address: host.text,
            tls,
            sasl,
            group,
            reset,
            compression,
            batching,
            acks,
            partition,
            copying,
            cloud_events,
            transactions: transactions.is_some_and(|(is_on, _)| is_on),
        })
    }
}

fn read_authentication(
    kafka: &mut Object<'_>,
    diagnostics: &mut Diagnostics,
) -> (Option<Sasl>, Option<Certificate>) {
    let Some(mut authentication) = kafka.object("authentication", diagnostics) else { return (None, None) };
    let Some(method) = authentication.need_text("method", diagnostics) else { return (None, None) };
    let read = match method.text.as_str() {
        "Anonymous" => (None, None),
        "X509Certificate" => (None, Certificate::read(&mut authentication, &method.place, diagnostics)),
        "Sasl" => {
            let Some(mut settings) = authentication.object("saslSettings", diagnostics) else {
                let message = "`Sasl` takes `saslSettings`";
                let label = "with `saslType`, `user`, and `passwordFile` or `passwordVariable`";
                diagnostics.error("endpoint/authentication", method.place, message, label);
                return (None, None);
            };
            let mechanisms = [
                ("Plain", Mechanism::Plain),
                ("ScramSha256", Mechanism::ScramSha256),
                ("ScramSha512", Mechanism::ScramSha512),
            ];
            settings.need("saslType", diagnostics);
            let mechanism = settings.choice("saslType", &mechanisms, diagnostics);
            let instead = "`user`, and `passwordFile` or `passwordVariable`";
            refuse_secret_ref(&mut settings, instead, diagnostics);
            let login = Login::read(&mut settings, diagnostics);
            settings.finish(diagnostics);
            (mechanism.zip(login).map(|(mechanism, login)| Sasl { mechanism, login }), None)
        }
        other => {
            let message = format!("authentication `{other}` is not there");
            let label = "use `Anonymous`, `Sasl` or `X509Certificate`";
            diagnostics.error("endpoint/authentication", method.place, message, label);
            return (None, None);
        }
    };
    authentication.finish(diagnostics);
    read
}

/// AIO's defaults, where nothing is said.
fn read_batching(kafka: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Batching {
    let mut batching =
        Batching { latency: Duration::from_millis(5), bytes_max: 1_000_000, messages_max: 100_000 };
    let Some(mut settings) = kafka.object("batching", diagnostics) else { return batching };
    let modes = [("Enabled", true), ("Disabled", false)];
    let is_enabled = settings.choice("mode", &modes, diagnostics).unwrap_or(true);
    if let Some(latency) = number(&mut settings, "latencyMs", 0..=65_535, diagnostics) {
        batching.latency = Duration::from_millis(latency);
    }
    if let Some(bytes) = number(&mut settings, "maxBytes", 1..=100_000_000, diagnostics) {
        batching.bytes_max = bytes as u32;
    }
    if let Some(messages) = number(&mut settings, "maxMessages", 1..=1_000_000, diagnostics) {
        batching.messages_max = messages as u32;
    }
    settings.finish(diagnostics);
    if !is_enabled {
        batching.latency = Duration::ZERO;
    }
    batching
}

fn read_partition(kafka: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Partition {
    let property = kafka.text("partitionKeyProperty", diagnostics);
    let by_property = property.as_ref().map_or(Partition::Default, |it| Partition::Property(it.text.clone()));
    let Some(strategy) = kafka.text("partitionStrategy", diagnostics) else { return Partition::Default };
    match strategy.text.as_str() {
        "Default" => Partition::Default,
        "Static" => Partition::Static,
        "Topic" => Partition::Topic,
        "Property" if property.is_some() => by_property,
        "Property" => {
            let message = "`Property` takes `partitionKeyProperty`";
            let label = "the name of the user property that is the key";
            diagnostics.error("endpoint/partition", strategy.place, message, label);
            Partition::Default
        }
        other => {
            let message = format!("`{other}` is no value of `partitionStrategy`");
            let label = "one of `Default`, `Static`, `Topic`, `Property`";
            diagnostics.error("yaml/choice", strategy.place, message, label);
            Partition::Default
        }
    }
}

/// Whether Kafka lets a topic have this name.
pub fn is_topic(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(is_plain) && name != "." && name != ".."
}

#[cfg(test)]
mod tests;
