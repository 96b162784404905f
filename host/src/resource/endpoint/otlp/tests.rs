use std::sync::Arc;

use super::*;
use crate::resource::{
    diagnostic::SourceFile,
    endpoint::{Endpoint, EndpointKind},
    yaml,
};

/// What is read under Tidegate's own `apiVersion`, or AIO's, and the rules of what is said of it.
fn read(settings: &str, ours: bool) -> (Option<OtlpSettings>, Vec<&'static str>) {
    let text = format!("endpointType: OpenTelemetry\nopenTelemetrySettings: {settings}\n");
    let mut diagnostics = Diagnostics::default();
    let file = Arc::new(SourceFile { path: "e.yaml".into(), text });
    let node = yaml::parse(&file, &mut diagnostics).pop().expect("a document");
    let name = Text { text: "o".into(), place: node.place.clone() };
    let spec = Object::of(&node, "`spec`", Unknown::Warning, &mut diagnostics);
    let endpoint = Endpoint::read(name, spec, ours, &mut diagnostics);
    let settings = endpoint.and_then(|endpoint| match endpoint.kind {
        EndpointKind::Otlp(settings) => Some(settings),
        _ => None,
    });
    (settings, diagnostics.iter().map(|it| it.rule).collect())
}

fn export(settings: &str, ours: bool) -> ExportSettings {
    match read(settings, ours) {
        (Some(OtlpSettings::Export(export)), rules) if rules.is_empty() => export,
        other => panic!("{other:?}"),
    }
}

#[test]
fn aios_settings_are_read_unchanged() {
    let least = export("{ host: \"c:4317\" }", false);
    let expected = ExportSettings {
        address: "c:4317".into(),
        tls: None,
        payload: Payload::Telemetry,
        latency: None,
        messages_max: 100_000,
        timeout: Duration::from_secs(30),
    };
    assert_eq!(least, expected);
    let all = export(
        "{ host: \"c:4317\", batching: { latencySeconds: 5, maxMessages: 10 }, \
         tls: { mode: Enabled, trustedCaCertificateFile: ca }, authentication: { method: X509Certificate, \
         x509CertificateSettings: { certificateFile: cert, keyFile: key } } }",
        false,
    );
    assert_eq!((all.latency, all.messages_max), (Some(Duration::from_secs(5)), 10));
    let tls = all.below(Path::new("/site")).tls.expect("it is enabled");
    assert_eq!(tls.trusted.as_deref(), Some(Path::new("/site/ca")));
    assert_eq!(tls.certificate.expect("it has one").key, Path::new("/site/key"));
}

#[test]
fn what_aio_has_no_word_for_is_ours() {
    let ours = export("{ host: \"c:4317\", payload: Otlp, timeoutSeconds: 3 }", true);
    assert_eq!((ours.payload, ours.timeout), (Payload::Otlp, Duration::from_secs(3)));
    let (settings, rules) = read("{ host: \"c:4317\", payload: Otlp }", false);
    assert!(matches!(settings, Some(OtlpSettings::Export(export)) if export.payload == Payload::Telemetry));
    assert_eq!(rules, ["yaml/unknown-key"], "a warning: AIO's schema grows");
    let (settings, rules) =
        read("{ listen: \"127.0.0.1:4317\", tokenFolder: tokens, unit: Request, encoding: Protobuf }", true);
    assert_eq!(rules, [] as [&str; 0]);
    let Some(OtlpSettings::Listen(listen)) = settings else { panic!("{settings:?}") };
    let form = OtlpForm { unit: Unit::Request, encoding: Encoding::Protobuf };
    assert_eq!(listen.speaks, Speaks::Otlp(form));
    assert_eq!((listen.body_bytes_max, listen.requests_max), (4 << 20, 64));
}

#[test]
fn bad_settings_are_refused() {
    for (settings, ours, expected) in [
        ("{ }", false, "yaml/missing-key"),
        ("{ host: nothing }", false, "endpoint/host"),
        (
            "{ host: \"c:4317\", authentication: { method: ServiceAccountToken } }",
            false,
            "endpoint/authentication",
        ),
        (
            "{ host: \"c:4317\", authentication: { method: X509Certificate } }",
            false,
            "endpoint/authentication",
        ),
        ("{ host: \"c:4317\", batching: { latencySeconds: no } }", false, "yaml/number"),
        ("{ host: \"c:4317\", batching: { maxMessages: 0 } }", false, "yaml/number"),
        ("{ host: \"c:4317\", payload: Raw }", true, "yaml/choice"),
        ("{ listen: \"127.0.0.1:1\", host: \"c:4317\" }", true, "endpoint/otlp"),
        ("{ listen: here }", true, "endpoint/listen"),
        ("{ listen: \"127.0.0.1:1\", unit: Span }", true, "yaml/choice"),
        ("{ listen: \"127.0.0.1:1\", more: 1 }", true, "yaml/unknown-key"),
    ] {
        let (_, rules) = read(settings, ours);
        assert!(rules.contains(&expected), "{settings}: {rules:?}");
    }
}
