//! Brokers that are spoken to over TLS, with and without certificates of their clients.

use std::fs;

use tidegate::resource::endpoint::Tls;

use crate::{
    authority::Authority,
    mosquitto::{Mosquitto, eventually, free_port},
    outside::{Subscriber, numbers, publish_all},
    site::{Flow, Site},
};

/// A broker with a listener for TLS besides the one for those outside.
pub struct Encrypted {
    pub broker: Mosquitto,
    pub port: u16,
    pub tls: Tls,
    authority: Authority,
    /// Of the broker's files.
    _folder: tempfile::TempDir,
}

impl Encrypted {
    pub fn start(options: &[&str]) -> Option<Self> {
        let authority = Authority::new("one that is trusted");
        let folder = tempfile::tempdir().expect("a folder");
        let issued = authority.issue("broker", folder.path());
        let trusted = folder.path().join("trusted");
        fs::write(&trusted, authority.pem()).expect("a file");
        let port = free_port();
        let mut lines = vec![
            format!("listener {port} 127.0.0.1"),
            format!("cafile {}", trusted.display()),
            format!("certfile {}", issued.certificate.display()),
            format!("keyfile {}", issued.key.display()),
        ];
        lines.extend(options.iter().map(|option| option.to_string()));
        let broker = Mosquitto::start(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
        let tls = Tls { trusted: Some(trusted), certificate: None };
        Some(Encrypted { broker, port, tls, authority, _folder: folder })
    }

    /// A site whose endpoint has these settings as well.
    fn site(&self, settings: &str) -> Site {
        let spec = format!(
            "{{ endpointType: Mqtt, mqttSettings: {{ host: \"127.0.0.1:{}\", {settings} }} }}",
            self.port
        );
        let site = Site::new("{ shards: 1 }", &[("local", &spec)]);
        site.flow(&Flow::passing(("local", "a/in"), ("local", "a/out")));
        site
    }

    fn passes(&self, from: u64, to: u64) {
        let subscriber = Subscriber::new(self.broker.port, "a/out/#");
        publish_all(self.broker.port, numbers("a/in", from..to));
        eventually("they come", || subscriber.numbers() == (from..to).collect::<Vec<_>>());
    }
}

/// How source and sink are connected.
fn connections(site: &Site) -> [String; 2] {
    let status = site.status();
    let tenant = &status["tenants"][0];
    let said = |it: &serde_json::Value| it["connection"].as_str().unwrap_or("").to_owned();
    [said(&tenant["dataflows"][0]["sources"][0]), said(&tenant["sinks"][0])]
}

fn eventually_all(site: &Site, what: &str) {
    eventually(what, || connections(site).iter().all(|it| it.contains(what)));
}

#[test]
fn mqtt_tls_trusts_whom_the_file_names_as_it_is_now() {
    let Some(encrypted) = Encrypted::start(&[]) else { return };
    let site = encrypted.site("tls: { mode: Enabled, trustedCaCertificateFile: secrets/trusted }");
    let host = site.up();
    eventually_all(&site, "no encrypted connection: cannot read");
    site.write("secrets/trusted", &Authority::new("another").pem());
    eventually_all(&site, "the handshake failed: invalid peer certificate: UnknownIssuer");
    site.write("secrets/trusted", &encrypted.authority.pem());
    eventually_all(&site, "connected");
    encrypted.passes(0, 1000);
    host.stop();
}

#[test]
fn mqtt_tls_without_a_file_trusts_what_the_system_does() {
    let Some(encrypted) = Encrypted::start(&[]) else { return };
    let site = encrypted.site("tls: { mode: Enabled }");
    let host = site.up();
    let all = |what: &str| connections(&site).iter().all(|it| it.contains(what));
    // A machine may trust nobody.
    eventually("the broker is not trusted", || all("UnknownIssuer") || all("the system trusts nobody"));
    host.stop();
}

#[test]
fn mqtt_clients_show_their_certificate_as_it_is_now() {
    let options = ["require_certificate true", "use_identity_as_username true"];
    let Some(encrypted) = Encrypted::start(&options) else { return };
    let without = encrypted.site("tls: { trustedCaCertificateFile: secrets/trusted }");
    without.write("secrets/trusted", &encrypted.authority.pem());
    let host = without.up();
    eventually("a certificate is asked for", || {
        connections(&without).iter().any(|it| it.contains("CertificateRequired"))
    });
    host.stop();

    let site = encrypted.site(
        "tls: { trustedCaCertificateFile: secrets/trusted }, authentication: { method: X509Certificate, \
         x509CertificateSettings: { certificateFile: secrets/edge.certificate, keyFile: secrets/edge.key } }",
    );
    let secrets = site.dir().join("secrets");
    site.write("secrets/trusted", &encrypted.authority.pem());
    let host = site.up();
    eventually_all(&site, "secrets/edge.certificate");
    Authority::new("another").issue("edge", &secrets);
    eventually("the broker does not trust it", || {
        connections(&site).iter().any(|it| it.contains("received fatal alert: UnknownCA"))
    });
    encrypted.authority.issue("edge", &secrets);
    eventually_all(&site, "connected");
    encrypted.passes(0, 1000);
    assert!(!host.log().contains("PRIVATE KEY"));
    host.stop();
}

#[test]
fn mqtt_in_websockets_over_tls_is_an_endpoint_as_any_other() {
    let Some(encrypted) = Encrypted::start(&["protocol websockets"]) else { return };
    let site = encrypted.site("protocol: WebSockets, tls: { trustedCaCertificateFile: secrets/trusted }");
    site.write("secrets/trusted", &encrypted.authority.pem());
    let host = site.up();
    eventually_all(&site, "connected");
    encrypted.passes(0, 1000);
    host.stop();
}

#[test]
fn mqtt_where_nobody_speaks_websockets_is_no_websocket() {
    let Some(encrypted) = Encrypted::start(&[]) else { return };
    let site = encrypted.site("protocol: WebSockets, tls: { trustedCaCertificateFile: secrets/trusted }");
    site.write("secrets/trusted", &encrypted.authority.pem());
    let host = site.up();
    eventually_all(&site, "degraded: no WebSocket: the broker did not agree to it: ");
    host.stop();
}
