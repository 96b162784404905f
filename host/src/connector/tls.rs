//! TLS of a connection: whom it trusts and whom it says it is, read from files. Serves
//! clients of MQTT and HTTP, and the HTTP server; knows no sockets.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName,
            pem::{self, PemObject as _},
        },
    },
};

use crate::resource::endpoint::{Certificate, Tls};

/// Why there is no encrypted connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: pem::Error },
    #[error("there is no certificate in {}", path.display())]
    Empty { path: PathBuf },
    #[error("the system trusts nobody: the endpoint needs a `trustedCaCertificateFile`")]
    NobodyTrusted,
    #[error("a certificate in {} cannot be used", path.display())]
    Trusted { path: PathBuf, source: rustls::Error },
    #[error("the certificate in {} cannot be used with its key", path.display())]
    Own { path: PathBuf, source: rustls::Error },
    #[error("no certificate can be for `{name}`")]
    Name { name: String },
    #[error("the handshake failed")]
    Handshake(#[source] std::io::Error),
}

/// What a client of these settings does. Blocks while it reads files.
pub(super) fn client(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let trusted = match &tls.trusted {
        Some(path) => trusted(path)?,
        None => trusted_by_the_system()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(trusted);
    let Some(certificate) = &tls.certificate else { return Ok(builder.with_no_client_auth()) };
    let (chain, key) = own(certificate)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::Own { path: certificate.chain.clone(), source })
}

/// What a client that never encrypts does: it trusts nobody.
pub(super) fn client_in_the_clear() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// What an HTTP server with this certificate does. Blocks while it reads files.
pub(super) fn acceptor(certificate: &Certificate) -> Result<TlsAcceptor, TlsError> {
    let (chain, key) = own(certificate)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Own { path: certificate.chain.clone(), source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn own(
    Certificate { chain, key }: &Certificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let certificates = certificates(chain)?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File { path: key.clone(), source })?;
    Ok((certificates, key))
}

/// Whom the broker at `address` must be able to show that it is.
pub(super) fn server_name(address: &str) -> Result<ServerName<'static>, TlsError> {
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })
}

fn trusted(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Trusted { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

fn trusted_by_the_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Some of a system's many may be of a kind that is no longer known.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NobodyTrusted) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(error)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(error)?;
    if certificates.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests;
