use std::fs;

use rcgen::{CertificateParams, KeyPair};

use super::*;

#[test]
fn a_broker_s_name_is_its_host_s() {
    for (address, name) in [
        ("broker.example:8883", "broker.example"),
        ("127.0.0.1:8883", "127.0.0.1"),
        ("[::1]:8883", "::1"),
        ("a b:8883", "no certificate can be for `a b`"),
        (":8883", "no certificate can be for ``"),
    ] {
        let said = server_name(address).map_or_else(|error| error.to_string(), |it| it.to_str().into_owned());
        assert_eq!(said, name);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["edge".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(path("good"), certificate.pem()).unwrap();
    fs::write(path("key"), key.serialize_pem()).unwrap();
    fs::write(path("other-key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("cut"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    fs::write(path("nonsense"), "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").unwrap();
    let check = |trusted: &str, chain: &str, key: &str, expected: &str| {
        let certificate = (!chain.is_empty()).then(|| Certificate { chain: path(chain), key: path(key) });
        let tls = Tls { trusted: Some(path(trusted)), certificate };
        let said = client(&tls).map_or_else(|error| error.to_string(), |_| "good".to_owned());
        assert_eq!(said, expected.replace("DIR", &folder.path().display().to_string()));
    };
    check("good", "", "", "good");
    check("good", "good", "key", "good");
    check("missing", "", "", "cannot read DIR/missing");
    check("empty", "", "", "there is no certificate in DIR/empty");
    check("key", "", "", "there is no certificate in DIR/key");
    check("cut", "", "", "cannot read DIR/cut");
    check("nonsense", "", "", "a certificate in DIR/nonsense cannot be used");
    check("good", "empty", "key", "there is no certificate in DIR/empty");
    check("good", "good", "good", "cannot read DIR/good");
    check("good", "good", "other-key", "the certificate in DIR/good cannot be used with its key");
}
