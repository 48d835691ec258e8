//! Connections between nodes: TLS 1.3, both sides by certificates of the cluster.
//!
//! The configurations hold what was true when they were made; their owner makes new ones when its certificate, the roots
//! or the list of removed nodes changed, and closes the connections of who was removed. Sessions are never resumed: a
//! resumed one skips the check of the certificate. ALPN is the caller's to set.

use std::sync::Arc;

use ketch_cluster::objects::node::NodeRole;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
};

use crate::identity::{Identity, IdentityError};
use crate::key::NodeKey;
use crate::trust::{Expected, PeerError, Side, Trust, timestamp, unix_time};

/// What a node shows: its certificate, what leads from it to a root, and the key.
#[derive(Debug)]
pub struct Credentials<'a> {
    pub chain: &'a [CertificateDer<'static>],
    pub key: &'a NodeKey,
}

/// Whether a client without a certificate is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    Refused,
    /// As [`Caller::Stranger`], for the two calls of a node that joins: the roots' download, and the request for a
    /// certificate. A certificate that is shown is judged all the same.
    LetIn,
}

/// Who is at the other end of a server's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Showed no certificate.
    Stranger,
    Member(Identity),
}

/// A configuration that rustls refuses: the key is not the certificate's, or its certificate can't be read.
#[derive(Debug, thiserror::Error)]
#[error("making a TLS configuration")]
pub struct TlsError(#[source] rustls::Error);

impl Caller {
    /// Who a finished handshake was with, by the certificates that the connection holds.
    ///
    /// # Errors
    /// The certificate names no node; the handshake would have failed on it.
    pub fn of(certificates: Option<&[CertificateDer<'_>]>) -> Result<Self, IdentityError> {
        match certificates.and_then(<[_]>::first) {
            None => Ok(Self::Stranger),
            Some(leaf) => Identity::read(leaf).map(Self::Member),
        }
    }
}

/// The name that clients give rustls for any node. It is not sent and not looked at: nodes are known by what their
/// certificates say ([`Expected`]), not by where they are.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::from(std::net::Ipv4Addr::UNSPECIFIED)
}

/// The server's side of a node.
///
/// # Errors
/// The key is not the certificate's.
pub fn server(
    own: &Credentials<'_>,
    trust: Arc<Trust>,
    strangers: Strangers,
    clock: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_details(Arc::new(default_provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError)?
        .with_client_cert_verifier(Arc::new(Clients { trust, strangers }))
        .with_single_cert(own.chain.to_vec(), own.key.for_tls())
        .map_err(TlsError)?;
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The client's side of a node of the cluster, to reach this one or that role.
///
/// # Errors
/// The key is not the certificate's.
pub fn client(
    own: &Credentials<'_>,
    trust: Arc<Trust>,
    expected: Expected,
    clock: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, TlsError> {
    let servers = Servers::Known { trust, expected };
    let config = client_builder(servers, clock)?.with_client_auth_cert(own.chain.to_vec(), own.key.for_tls());
    config.map(without_resumption).map_err(TlsError)
}

/// The client's side of a node that joins: it has checked the roots and has no certificate yet. It reaches managers only.
///
/// # Errors
/// None that is known: rustls could refuse the protocol version.
pub fn joining_client(trust: Arc<Trust>, clock: Arc<dyn TimeProvider>) -> Result<ClientConfig, TlsError> {
    let servers = Servers::Known { trust, expected: Expected::Role(NodeRole::Manager) };
    client_builder(servers, clock).map(|builder| without_resumption(builder.with_no_client_auth()))
}

/// The client's side of a node that knows nothing but a join token: **it believes any server**. It is for the download of
/// the roots and nothing else: those are public, and are checked against the token's digest.
///
/// # Errors
/// None that is known: rustls could refuse the protocol version.
pub fn unverified_client(clock: Arc<dyn TimeProvider>) -> Result<ClientConfig, TlsError> {
    let servers = Servers::Any(default_provider().signature_verification_algorithms);
    client_builder(servers, clock).map(|builder| without_resumption(builder.with_no_client_auth()))
}

fn client_builder(
    servers: Servers,
    clock: Arc<dyn TimeProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_details(Arc::new(default_provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers)))
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

impl PeerError {
    /// The reason behind a handshake that failed on this side; none when it failed for another cause.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(Self::Foreign),
            rustls::Error::InvalidCertificate(CertificateError::Revoked) => Some(Self::ShutOut),
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                Some(Self::Expired { at: timestamp(*not_after) })
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before, ..
            }) => Some(Self::NotYetValid { from: timestamp(*not_before) }),
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => {
                error.downcast_ref().cloned()
            }
            _ => None,
        }
    }

    /// What rustls has a kind for is told as that kind, so that the peer gets the alert that names it.
    fn into_rustls(self, now: UnixTime) -> rustls::Error {
        let reason = match self {
            Self::Foreign => CertificateError::UnknownIssuer,
            // A node that was removed while it was away learns it by this alert.
            Self::ShutOut => CertificateError::Revoked,
            Self::Expired { at } => CertificateError::ExpiredContext { time: now, not_after: unix_time(at) },
            Self::NotYetValid { from } => {
                CertificateError::NotValidYetContext { time: now, not_before: unix_time(from) }
            }
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        reason.into()
    }
}

fn chain_of<'a>(leaf: &CertificateDer<'a>, intermediates: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(intermediates).cloned().collect()
}

/// TLS 1.2 is never offered.
fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 between nodes".to_owned())
}

#[derive(Debug)]
struct Clients {
    trust: Arc<Trust>,
    strangers: Strangers,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.strangers == Strangers::Refused
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trust.root_names()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.trust
            .check(&chain_of(leaf, intermediates), Side::Client, timestamp(now))
            .map(|_| ClientCertVerified::assertion())
            .map_err(|error| error.into_rustls(now))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, self.trust.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms().supported_schemes()
    }
}

#[derive(Debug)]
enum Servers {
    Known { trust: Arc<Trust>, expected: Expected },
    Any(WebPkiSupportedAlgorithms),
}

impl Servers {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        match self {
            Self::Known { trust, .. } => trust.algorithms(),
            Self::Any(algorithms) => algorithms,
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Self::Known { trust, expected } = self {
            trust
                .check(&chain_of(leaf, intermediates), Side::Server, timestamp(now))
                .and_then(|peer| expected.check(peer))
                .map_err(|error| error.into_rustls(now))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

#[cfg(test)]
mod handshakes;
