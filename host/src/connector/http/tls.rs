//! TLS at both ends: what the server shows, and whom a webhook's client trusts, read from
//! files. Knows no sockets.

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
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
    },
};

use crate::resource::endpoint::{Certificate, Tls};

/// Why nothing can be encrypted.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: pem::Error },
    #[error("there is no certificate in {}", path.display())]
    Empty { path: PathBuf },
    #[error("the system trusts nobody: the endpoint needs a `trustedCaCertificateFile`")]
    NobodyTrusted,
    #[error("a certificate in {} cannot be used", path.display())]
    Unfit { path: PathBuf, source: rustls::Error },
}

/// What a server with this certificate does. Blocks while it reads files.
pub(super) fn acceptor(Certificate { chain, key }: &Certificate) -> Result<TlsAcceptor, TlsError> {
    let certificates = certificates(chain)?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File { path: key.clone(), source })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|source| TlsError::Unfit { path: chain.clone(), source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What a client of this URL does; one that never encrypts trusts nobody. Blocks while it reads files.
pub(super) fn client(url: &str, tls: Option<&Tls>) -> Result<ClientConfig, TlsError> {
    let trusted = match tls.and_then(|tls| tls.trusted.as_deref()) {
        _ if !url.starts_with("https:") => RootCertStore::empty(),
        Some(path) => trusted(path)?,
        None => trusted_by_the_system()?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(config)
}

fn trusted(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Unfit { path: path.to_owned(), source })?;
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
