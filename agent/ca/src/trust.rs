//! Whom a node believes: the roots of its cluster, the cluster's name, and who was shut out.
//!
//! [`Trust::check`] is the one place where a peer's certificate is judged; the TLS configurations call it in each
//! handshake, and a joining node calls it on what it was issued.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::Cluster;
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::time::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};

use crate::identity::{Identity, IdentityError, unit_of};
use crate::pem::{self, PemError};
use crate::root;

/// Why a peer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("reading the peer's certificate")]
    Identity(#[from] IdentityError),
    #[error("the peer's certificate is of another cluster: no root of this one signed it")]
    Foreign,
    #[error("the peer's certificate expired at second {}", seconds(*at))]
    Expired { at: Timestamp },
    #[error("the peer's certificate is valid only from second {}: one of both clocks is wrong", seconds(*from))]
    NotYetValid { from: Timestamp },
    #[error("the peer's certificate can't be used: {0}")]
    Unusable(String),
    #[error("the peer is of the organisation {found}, not of {wanted}")]
    Organisation { found: ClusterId, wanted: ClusterId },
    #[error("node {0} was removed from this cluster")]
    ShutOut(NodeId),
    #[error("the peer is a {}, not a {}", unit_of(*found), unit_of(*wanted))]
    Role { found: NodeRole, wanted: NodeRole },
    #[error("the peer is node {found}, not node {wanted}")]
    Node { found: NodeId, wanted: NodeId },
}

/// Why there is nothing to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("reading the cluster's roots")]
    Pem(#[from] PemError),
    #[error("taking a root in")]
    Root(#[source] rustls::Error),
    #[error("checking by the roots")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// On which side of a connection a certificate is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Whom a client wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Any node in that role.
    Role(NodeRole),
    /// One node, in any role.
    Node(NodeId),
}

impl Expected {
    /// Whether the peer is the one that was wanted.
    ///
    /// # Errors
    /// It is another.
    pub fn check(self, peer: Identity) -> Result<(), PeerError> {
        match self {
            Self::Role(wanted) if wanted != peer.role => Err(PeerError::Role { found: peer.role, wanted }),
            Self::Node(wanted) if wanted != peer.node => Err(PeerError::Node { found: peer.node, wanted }),
            _ => Ok(()),
        }
    }
}

/// What certificates are judged by. It is of one moment: whoever holds one makes another when the cluster's roots or its
/// list of removed nodes changed.
#[derive(Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    cluster: Option<ClusterId>,
    shut_out: BTreeMap<NodeId, Timestamp>,
}

impl Trust {
    /// What a node of the cluster believes.
    ///
    /// # Errors
    /// The cluster's roots can't be read.
    pub fn of(cluster: &Cluster) -> Result<Self, TrustError> {
        let trust = Self::in_roots(&root::trusted(&cluster.root_ca))?;
        Ok(Self { cluster: Some(cluster.id), shut_out: cluster.shut_out.clone(), ..trust })
    }

    /// What a node believes that knows no more than the roots (PEM): it joins, and does not know the cluster's name yet.
    ///
    /// # Errors
    /// The text is no certificates.
    pub fn in_roots(roots: &str) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        for certificate in pem::certificates(roots)? {
            store.add(certificate).map_err(TrustError::Root)?;
        }
        let roots = Arc::new(store);
        let provider = Arc::new(default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider)
            .build()
            .map_err(TrustError::Verifier)?;
        Ok(Self { roots, clients, algorithms, cluster: None, shut_out: BTreeMap::new() })
    }

    /// The same, and peers must be of this cluster.
    #[must_use]
    pub fn in_cluster(self, cluster: ClusterId) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// Judges what a peer shows on its side of a connection: its own certificate first, then what leads to a root.
    ///
    /// # Errors
    /// When the peer is not believed; why.
    pub fn check(
        &self,
        chain: &[CertificateDer<'_>],
        side: Side,
        now: Timestamp,
    ) -> Result<Identity, PeerError> {
        let (leaf, intermediates) = chain.split_first().ok_or(IdentityError::Unreadable)?;
        self.check_chain(leaf, intermediates, side, now).map_err(named)?;
        let peer = Identity::read(leaf)?;
        match self.cluster {
            Some(wanted) if wanted != peer.cluster => {
                Err(PeerError::Organisation { found: peer.cluster, wanted })
            }
            _ if self.shut_out.get(&peer.node).is_some_and(|until| now <= *until) => {
                Err(PeerError::ShutOut(peer.node))
            }
            _ => Ok(peer),
        }
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: Timestamp,
    ) -> Result<(), rustls::Error> {
        let now = unix_time(now);
        match side {
            Side::Client => self.clients.verify_client_cert(leaf, intermediates, now).map(drop),
            Side::Server => {
                let parsed = ParsedCertificate::try_from(leaf)?;
                let algorithms = self.algorithms.all;
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &self.roots,
                    intermediates,
                    now,
                    algorithms,
                )
            }
        }
    }

    pub(crate) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    pub(crate) fn root_names(&self) -> &[rustls::DistinguishedName] {
        self.clients.root_hint_subjects()
    }
}

/// All roots are named `swarm-ca`, so that another cluster's certificate is found as one with a wrong signature.
fn named(error: rustls::Error) -> PeerError {
    let rustls::Error::InvalidCertificate(reason) = error else {
        return PeerError::Unusable(error.to_string());
    };
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => PeerError::Foreign,
        CertificateError::ExpiredContext { not_after, .. } => PeerError::Expired { at: timestamp(not_after) },
        CertificateError::NotValidYetContext { not_before, .. } => {
            PeerError::NotYetValid { from: timestamp(not_before) }
        }
        CertificateError::BadEncoding => IdentityError::Unreadable.into(),
        other => PeerError::Unusable(other.to_string()),
    }
}

pub(crate) fn timestamp(moment: UnixTime) -> Timestamp {
    Timestamp::default().after(Duration::from_secs(moment.as_secs()))
}

pub(crate) fn unix_time(moment: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(moment.since(Timestamp::default()))
}

fn seconds(moment: Timestamp) -> u64 {
    moment.since(Timestamp::default()).as_secs()
}
