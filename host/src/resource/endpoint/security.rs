//! What endpoints of all kinds say of encryption and of certificates: AIO's `tls` and
//! `X509Certificate`, with files where AIO names objects of Kubernetes.

use std::path::{Path, PathBuf};

use crate::resource::{
    diagnostic::{Diagnostics, Place},
    yaml::Object,
};

/// An encrypted connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// PEM: whose certificates are trusted. `None` for those that the system trusts.
    pub trusted: Option<PathBuf>,
    /// Whom the client says it is.
    pub certificate: Option<Certificate>,
}

/// A client's certificate, read anew for each connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// PEM: the certificate, and those between it and one that is trusted.
    pub chain: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Tls {
    /// The same, with its files looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        let certificate = self
            .certificate
            .as_ref()
            .map(|Certificate { chain, key }| Certificate { chain: home.join(chain), key: home.join(key) });
        Tls { trusted: self.trusted.as_ref().map(|it| home.join(it)), certificate }
    }

    /// Reads `tls` of an endpoint's settings; `None` for a connection in the clear.
    pub fn read(settings: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut tls = settings.object("tls", diagnostics)?;
        let modes = [("Enabled", true), ("Disabled", false)];
        let is_enabled = tls.choice("mode", &modes, diagnostics).unwrap_or(true);
        let trusted = tls.text("trustedCaCertificateFile", diagnostics).map(|it| it.text.into());
        if let Some(reference) = tls.get("trustedCaCertificateConfigMapRef")
            && is_enabled
            && trusted.is_none()
        {
            let message = "there are no ConfigMaps here".to_owned();
            let label = "write `trustedCaCertificateFile`: a PEM file";
            diagnostics.error("endpoint/tls", reference.place.clone(), message, label);
        }
        tls.finish(diagnostics);
        is_enabled.then_some(Tls { trusted, certificate: None })
    }
}

impl Certificate {
    /// Reads what the method `X509Certificate`, which stands at `method`, takes.
    pub fn read(
        authentication: &mut Object<'_>,
        method: &Place,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let Some(mut settings) = authentication.object("x509CertificateSettings", diagnostics) else {
            let message = "`X509Certificate` takes `x509CertificateSettings`";
            let label = "with `certificateFile` and `keyFile`, both PEM";
            diagnostics.error("endpoint/authentication", method.clone(), message, label);
            return None;
        };
        refuse_secret_ref(&mut settings, "`certificateFile` and `keyFile`", diagnostics);
        let chain = settings.need_text("certificateFile", diagnostics);
        let key = settings.need_text("keyFile", diagnostics);
        settings.finish(diagnostics);
        Some(Certificate { chain: chain?.text.into(), key: key?.text.into() })
    }
}

/// Says what takes the place of a secret of Kubernetes.
pub fn refuse_secret_ref(settings: &mut Object<'_>, instead: &str, diagnostics: &mut Diagnostics) {
    if let Some(reference) = settings.get("secretRef") {
        let message = "there are no secrets of Kubernetes here".to_owned();
        let label = format!("write {instead}");
        diagnostics.error("endpoint/secret", reference.place.clone(), message, label);
    }
}

/// Whether `address` is `host:port`.
pub fn is_address(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}
