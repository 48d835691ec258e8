//! TLS for `tcp://`: the daemon's certificate, and which clients are let in.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::config::Tls;

/// What a connection's handshake is made with; `None`: there is no TLS.
///
/// # Errors
/// A file that is missing, unreadable, or no PEM of its kind.
pub fn acceptor(tls: &Tls) -> Result<Option<TlsAcceptor>, String> {
    if tls.enabled != Some(true) {
        return Ok(None);
    }
    let invalid = |why: String| format!("invalid TLS configuration: {why}");
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
        return Err(invalid(
            "could not load X509 key pair: --tlscert and --tlskey must name files".to_owned(),
        ));
    };
    let chain = certificates(cert).map_err(&invalid)?;
    let key = open(key)
        .and_then(|file| {
            PrivateKeyDer::from_pem_reader(file).map_err(|error| format!("{}: {error}", key.display()))
        })
        .map_err(|error| invalid(format!("could not load X509 key pair: {error}")))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.to_string()))?;
    let builder = if tls.verify == Some(false) {
        builder.with_no_client_auth()
    } else {
        let ca = tls.ca.as_deref().ok_or_else(|| {
            invalid(
                "clients are to be verified, and --tlscacert names no file of those who vouch for them"
                    .to_owned(),
            )
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca).map_err(&invalid)? {
            roots.add(certificate).map_err(|error| invalid(format!("{}: {error}", ca.display())))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| invalid(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| format!("open {}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(path)?).collect();
    let all = all.map_err(|error| format!("{}: {error}", path.display()))?;
    if all.is_empty() {
        return Err(format!("{}: no certificate", path.display()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_its_files_it_says_what_is_missing() {
        let mut tls = Tls::default();
        assert!(acceptor(&tls).is_ok_and(|acceptor| acceptor.is_none()));
        tls.enabled = Some(true);
        let refused = |tls: &Tls| acceptor(tls).map(|_| ()).unwrap_err();
        assert!(refused(&tls).starts_with("invalid TLS configuration: could not load X509 key pair"));
        tls.cert = Some("/nonexistent.pem".into());
        tls.key = tls.cert.clone();
        assert!(refused(&tls).starts_with("invalid TLS configuration: open /nonexistent.pem: "));
    }
}
