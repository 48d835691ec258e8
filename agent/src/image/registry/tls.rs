//! Whom we believe to be a registry: the roots of the web, those of this host, and those of `certs.d/<registry>`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use tracing::warn;

use crate::error::{Error, Result};

/// Where distributions have the host's roots; a host may have none.
const HOST_ROOTS: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// By roots.
    Verified,
    /// Not at all: an insecure registry.
    Anyone,
}

/// The settings of connections to a registry, whose own folder of certificates may not be there.
pub(super) fn config(folder: &Path, trust: Trust) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let key_provider = provider.key_provider;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("setting up TLS", &error))?;
    let builder = match trust {
        Trust::Verified => builder.with_root_certificates(roots(folder)?),
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
    };
    let config = match own_certificate(folder)? {
        Some((chain, key)) => {
            let key = key_provider.load_private_key(key).map_err(|error| {
                Error::internal(format_args!("the certificate in {}", folder.display()), &error)
            })?;
            // Not looked into: it is the registry's to judge, and what `openssl x509 -req` makes without more is of X.509's
            // first version, which rustls would not read.
            let own = SingleCertAndKey::from(CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(own))
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn roots(folder: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(host) = HOST_ROOTS.iter().find_map(|path| CertificateDer::pem_file_iter(path).ok()) {
        let _counts = roots.add_parsable_certificates(host.flatten());
    }
    for path in files(folder, "crt") {
        let read =
            |error: &dyn std::error::Error| Error::invalid(format!("reading {}: {error}", path.display()));
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| read(&error))? {
            let certificate = certificate.map_err(|error| read(&error))?;
            roots.add(certificate).map_err(|error| read(&error))?;
        }
    }
    Ok(roots)
}

/// `NAME.cert` with `NAME.key`.
/// Whether this node says who it is to a registry.
pub(super) fn has_own_certificate(folder: &Path) -> bool {
    !files(folder, "cert").is_empty()
}

fn own_certificate(folder: &Path) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let Some(path) = files(folder, "cert").into_iter().next() else { return Ok(None) };
    let key = path.with_extension("key");
    let read = |path: &Path, error: &dyn std::error::Error| {
        Error::invalid(format!("reading {}: {error}", path.display()))
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&path).map_err(|error| read(&path, &error))?.collect();
    let chain = chain.map_err(|error| read(&path, &error))?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| read(&key, &error))?;
    Ok(Some((chain, key)))
}

fn files(folder: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!("reading {}: {error}", folder.display());
            return Vec::new();
        }
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == extension)).collect();
    found.sort();
    found
}

/// Believes everyone.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
