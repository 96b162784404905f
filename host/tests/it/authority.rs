//! Whoever signs certificates, for a test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Files in PEM.
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        Authority { issuer: issuer.expect("a certificate") }
    }

    /// What makes it trusted.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For `name` on this machine, in `folder`.
    pub fn issue(&self, name: &str, folder: &Path) -> Issued {
        let key_pair = KeyPair::generate().expect("a key");
        let signed = params(name).signed_by(&key_pair, &self.issuer).expect("it may sign");
        let (certificate, key) =
            (folder.join(format!("{name}.certificate")), folder.join(format!("{name}.key")));
        fs::create_dir_all(folder).expect("a folder");
        fs::write(&certificate, signed.pem()).expect("a file");
        fs::write(&key, key_pair.serialize_pem()).expect("a file");
        Issued { certificate, key }
    }
}

fn params(name: &str) -> CertificateParams {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
