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
    #[error("the peer was removed from this cluster")]
    ShutOut,
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
    /// One node, as a manager: another one's certificate, which holds for months after a demotion, is of no use there.
    Manager(NodeId),
}

impl Expected {
    /// Whether the peer is the one that was wanted.
    ///
    /// # Errors
    /// It is another.
    pub fn check(self, peer: Identity) -> Result<(), PeerError> {
        let (node, role) = match self {
            Self::Role(role) => (peer.node, role),
            Self::Node(node) => (node, peer.role),
            Self::Manager(node) => (node, NodeRole::Manager),
        };
        if node != peer.node {
            return Err(PeerError::Node { found: peer.node, wanted: node });
        }
        if role != peer.role {
            return Err(PeerError::Role { found: peer.role, wanted: role });
        }
        Ok(())
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
            _ if self.shut_out.get(&peer.node).is_some_and(|until| now <= *until) => Err(PeerError::ShutOut),
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::fixture::{NOW, Node, cluster};
    use crate::root::Validity;
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    };

    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| cluster(1));
    static WORKER: LazyLock<Node> = LazyLock::new(|| Node::new(&CLUSTER, 10, NodeRole::Worker, NOW));

    fn check(chain: &[CertificateDer<'_>], side: Side) -> Result<Identity, PeerError> {
        Trust::of(&CLUSTER).unwrap().check(chain, side, NOW)
    }

    /// What would be a manager's certificate if the right one had signed it.
    fn managers() -> CertificateParams {
        let mut params = Validity::from(NOW, Duration::from_secs(3600)).params().unwrap();
        params.distinguished_name.push(DnType::OrganizationName, CLUSTER.id.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit_of(NodeRole::Manager));
        params.distinguished_name.push(DnType::CommonName, NodeId::of(66).to_string());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn new_key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    #[test]
    fn a_node_is_no_authority() {
        let key = KeyPair::try_from(WORKER.key.pkcs8()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&WORKER.chain[0], key).unwrap();
        let forged = managers().signed_by(&new_key(), &issuer).unwrap();
        let chain = [forged.der().clone(), WORKER.chain[0].clone()];
        for side in [Side::Client, Side::Server] {
            let refused = check(&chain, side).unwrap_err();
            assert!(matches!(refused, PeerError::Unusable(_)), "{refused}");
        }
    }

    #[test]
    fn nobody_signs_for_itself() {
        let key = new_key();
        let own = managers().self_signed(&key).unwrap();
        assert_eq!(check(&[own.der().clone()], Side::Client), Err(PeerError::Foreign));
        let root = pem::certificates(&CLUSTER.root_ca.certificate).unwrap().remove(0);
        let refused = check(&[own.der().clone(), root], Side::Server);
        assert_eq!(
            refused,
            Err(PeerError::Foreign),
            "the root's certificate is public: to show it is no proof"
        );
    }

    #[test]
    fn an_authority_is_no_node() {
        let root = pem::certificates(&CLUSTER.root_ca.certificate).unwrap();
        for side in [Side::Client, Side::Server] {
            let refused = check(&root, side).unwrap_err();
            assert!(matches!(refused, PeerError::Unusable(_)), "{refused}");
        }
    }

    #[test]
    fn a_certificate_serves_its_side_only() {
        let root = &CLUSTER.root_ca;
        let root = crate::root::Root { certificate: root.certificate.clone(), key: root.key.clone() };
        let issue = |usage| {
            let mut params = managers();
            params.extended_key_usages = vec![usage];
            [params.signed_by(&new_key(), &root.issuer().unwrap()).unwrap().der().clone()]
        };
        let (client, server) =
            (issue(ExtendedKeyUsagePurpose::ClientAuth), issue(ExtendedKeyUsagePurpose::ServerAuth));
        assert!(check(&client, Side::Client).is_ok() && check(&server, Side::Server).is_ok());
        assert!(matches!(check(&client, Side::Server), Err(PeerError::Unusable(_))));
        assert!(matches!(check(&server, Side::Client), Err(PeerError::Unusable(_))));
    }

    #[test]
    fn nothing_is_not_believed() {
        assert_eq!(check(&[], Side::Client), Err(IdentityError::Unreadable.into()));
        assert!(matches!(Trust::in_roots(""), Err(TrustError::Pem(PemError::Empty))));
        let junk = pem::write(pem::CERTIFICATE, b"junk");
        assert!(matches!(Trust::in_roots(&junk), Err(TrustError::Root(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever is changed in a certificate, its holder is refused or is who it was.
        #[test]
        fn a_changed_certificate_makes_nobody_else(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = WORKER.chain[0].to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let honest = Identity::read(&WORKER.chain[0]).unwrap();
            for side in [Side::Client, Side::Server] {
                if let Ok(identity) = check(&[CertificateDer::from(bytes.clone())], side) {
                    prop_assert_eq!(identity, honest);
                }
                let part = &bytes[..cut.index(bytes.len())];
                prop_assert!(check(&[CertificateDer::from(part)], side).is_err());
            }
        }
    }
}
