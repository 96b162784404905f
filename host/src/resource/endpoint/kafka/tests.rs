use std::sync::Arc;

use super::*;
use crate::resource::{
    diagnostic::SourceFile,
    endpoint::{Endpoint, EndpointKind},
    secret::Secret,
    yaml::{self, Text},
};

fn read(settings: &str) -> (Option<KafkaSettings>, Vec<(&'static str, String)>) {
    let text = format!("endpointType: Kafka\nkafkaSettings: {{ host: \"k:9092\"{settings} }}\n");
    let mut diagnostics = Diagnostics::default();
    let file = Arc::new(SourceFile { path: "e.yaml".into(), text });
    let node = yaml::parse(&file, &mut diagnostics).pop().expect("a document");
    let name = Text { text: "k".into(), place: node.place.clone() };
    let spec = Object::of(&node, "`spec`", Unknown::Warning, &mut diagnostics);
    let endpoint = Endpoint::read(name, spec, false, &mut diagnostics);
    let settings = endpoint.and_then(|endpoint| match endpoint.kind {
        EndpointKind::Kafka(settings) => Some(settings),
        _ => None,
    });
    let rules = diagnostics.iter().map(|it| (it.rule, it.message.clone())).collect();
    (settings, rules)
}

#[test]
fn what_is_not_said_is_as_aio_has_it() {
    let (settings, rules) = read("");
    let settings = settings.expect("nothing else is needed");
    assert_eq!(rules, []);
    assert_eq!(settings.address, "k:9092");
    assert_eq!((settings.tls, settings.sasl, settings.group), (None, None, None));
    assert_eq!((settings.reset, settings.compression), (Reset::Earliest, Compression::None));
    let latency = Duration::from_millis(5);
    assert_eq!(settings.batching, Batching { latency, bytes_max: 1_000_000, messages_max: 100_000 });
    assert_eq!((settings.acks, settings.partition), (Acks::All, Partition::Default));
    assert_eq!((settings.copying, settings.cloud_events), (Copying::AsTheyAre, None));
    assert!(!settings.transactions);
}

#[test]
fn all_of_aios_settings_are_read() {
    let (settings, rules) = read(
        ", consumerGroupId: g, autoOffsetReset: Latest, compression: Lz4, kafkaAcks: One, \
         copyMqttProperties: Disabled, partitionStrategy: Property, partitionKeyProperty: device, \
         batching: { mode: Enabled, latencyMs: 7, maxBytes: 1000, maxMessages: 10 }, \
         tls: { mode: Enabled, trustedCaCertificateFile: ca }, \
         authentication: { method: Sasl, saslSettings: { saslType: ScramSha512, user: u, passwordVariable: P } }",
    );
    assert_eq!(rules, []);
    let settings = settings.expect("it is valid");
    assert_eq!(settings.group.as_deref(), Some("g"));
    assert_eq!((settings.reset, settings.compression), (Reset::Latest, Compression::Lz4));
    assert_eq!((settings.acks, settings.copying), (Acks::One, Copying::Nothing));
    assert_eq!(settings.partition, Partition::Property("device".into()));
    let latency = Duration::from_millis(7);
    assert_eq!(settings.batching, Batching { latency, bytes_max: 1000, messages_max: 10 });
    let login = Login { user: "u".into(), password: Secret::Variable("P".into()) };
    assert_eq!(settings.sasl, Some(Sasl { mechanism: Mechanism::ScramSha512, login }));
    let below =
        KafkaSettings { tls: Some(Tls { trusted: Some("ca".into()), certificate: None }), ..settings };
    let tls = below.below(Path::new("/site")).tls.expect("it is encrypted");
    assert_eq!(tls.trusted.as_deref(), Some(Path::new("/site/ca")));
}

#[test]
fn what_is_wrong_is_said_once() {
    for (settings, rule) in [
        (", compression: Zip", "yaml/choice"),
        (", kafkaAcks: Some", "yaml/choice"),
        (", partitionStrategy: Random", "yaml/choice"),
        (", partitionStrategy: Property", "endpoint/partition"),
        (", batching: { latencyMs: -1 }", "yaml/number"),
        (", autoOffsetReset: Middle", "yaml/choice"),
        (", consumerGroup: x", "yaml/unknown-key"),
        (", authentication: { method: SystemAssignedManagedIdentity }", "endpoint/authentication"),
        (", authentication: { method: Sasl }", "endpoint/authentication"),
        (
            ", authentication: { method: Sasl, saslSettings: { saslType: Plain, user: u, passwordFile: f, secretRef: s } }",
            "endpoint/secret",
        ),
        (", authentication: { method: Sasl, saslSettings: { saslType: Plain, user: u } }", "endpoint/secret"),
        (", authentication: { method: X509Certificate }", "endpoint/authentication"),
        (", tls: { mode: Enabled, trustedCaCertificateConfigMapRef: c }", "endpoint/tls"),
        (", transactions: true, kafkaAcks: One", "endpoint/transactions"),
        (", transactions: yes", "yaml/choice"),
        (", cloudEventAttributes: Create", "yaml/choice"),
        (", cloudEventAttributes: Propagate, copyMqttProperties: Disabled", "endpoint/cloud-events"),
    ] {
        let (_, rules) = read(settings);
        assert_eq!(rules.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), [rule], "{settings}: {rules:?}");
    }
}

#[test]
fn topics_are_what_kafka_takes() {
    let long = "x".repeat(250);
    for (name, is_one) in [
        ("orders", true),
        ("a.b_c-9", true),
        ("", false),
        (".", false),
        ("..", false),
        ("a/b", false),
        ("+", false),
        ("#", false),
        ("ü", false),
        (&long, false),
        (&long[..249], true),
    ] {
        assert_eq!(is_topic(name), is_one, "{name}");
    }
}
