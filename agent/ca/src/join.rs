//! A joining node's side: from a token to a certificate. Each step is a type that the next one is made of, so that no step
//! can be left out; the messages are the caller's to carry.
//!
//! ```text
//! Joining --download of the root, unverified--> check_root --> RootChecked
//! RootChecked --request(), over a connection that is verified by that root--> Requested
//! Requested --the manager's answer--> accept --> Joined
//! ```

use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::time::Timestamp;
use ketch_cluster::token::{JoinToken, JoinTokenError};
use rustls::pki_types::CertificateDer;
use subtle::ConstantTimeEq;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::admission::Admission;
use crate::authority::AuthorityError;
use crate::compat;
use crate::identity::{Identity, IdentityError};
use crate::key::{KeyError, NodeKey};
use crate::pem::{self, PemError};
use crate::root;
use crate::trust::{PeerError, Side, Trust, TrustError};

/// Why a node can't join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    /// Docker's words: the manager is of another cluster than the token, or somebody is in between.
    #[error("{} {expected}", compat::FINGERPRINT)]
    Fingerprint { expected: String },
    #[error("the cluster's root can't be used")]
    Root(#[source] AuthorityError),
    #[error("the cluster's root expired at second {}", at.since(Timestamp::default()).as_secs())]
    RootExpired { at: Timestamp },
    #[error("the cluster's roots can't be trusted")]
    Trust(#[from] TrustError),
    #[error("the node's key")]
    Key(#[from] KeyError),
    #[error("reading the certificate that the manager issued")]
    Pem(#[from] PemError),
    #[error("the certificate that the manager issued is not believed")]
    Issued(#[from] PeerError),
    #[error("the certificate that the manager issued is of another key")]
    OtherKey,
    #[error("the certificate that the manager issued is of another role than it says")]
    OtherRole,
    #[error("the certificate that the manager issued is of another node")]
    OtherNode,
}

/// Knows the token.
pub struct Joining {
    text: String,
    token: JoinToken,
}

/// Knows the root that the token names.
pub struct RootChecked {
    text: String,
    roots: String,
}

/// Waits for the certificate.
#[derive(Debug)]
pub struct Requested {
    key: NodeKey,
    roots: String,
    /// Of a node that renews: who it is and stays.
    present: Option<(ClusterId, NodeId)>,
}

/// Is a node of the cluster: what it keeps in its [`folder`](crate::folder).
#[derive(Debug)]
pub struct Joined {
    pub identity: Identity,
    pub key: NodeKey,
    /// Its certificate and what leads to a root; PEM.
    pub chain: String,
    /// All roots of the cluster; PEM.
    pub roots: String,
}

impl Joining {
    /// With the token that `docker swarm join` was given.
    ///
    /// # Errors
    /// It is none.
    pub fn new(token: &str) -> Result<Self, JoinError> {
        Ok(Self { text: token.to_owned(), token: token.parse()? })
    }

    /// Takes the root that a manager was asked for, if it is the one that the token names.
    ///
    /// # Errors
    /// It is another, none, or has expired.
    pub fn check_root(self, downloaded: &str, now: Timestamp) -> Result<RootChecked, JoinError> {
        let expected = self.token.root_digest;
        if !bool::from(root::digest(downloaded).ct_eq(&expected)) {
            return Err(JoinError::Fingerprint { expected: hex(&expected) });
        }
        let described = root::describe(downloaded).map_err(JoinError::Root)?;
        if described.expires < now {
            return Err(JoinError::RootExpired { at: described.expires });
        }
        Ok(RootChecked { text: self.text, roots: downloaded.to_owned() })
    }
}

impl RootChecked {
    /// What the connection to the manager is verified by: [`joining_client`](crate::tls::joining_client).
    ///
    /// # Errors
    /// The root can't be a trust anchor.
    pub fn trust(&self) -> Result<Trust, JoinError> {
        Ok(Trust::in_roots(&self.roots)?)
    }

    /// Makes the node's key. What to send: the token and the request for a certificate (PEM).
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn request(self) -> Result<(Requested, String, String), JoinError> {
        let key = NodeKey::generate()?;
        let request = key.request()?;
        Ok((Requested { key, roots: self.roots, present: None }, self.text, request))
    }
}

impl Requested {
    /// Of a node that renews its certificate: who it is, and all roots that it trusts now (PEM). What to send over a
    /// connection of its present certificate: the request for the next one. Its role may change.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn renewal(present: Identity, roots: &str) -> Result<(Self, String), JoinError> {
        let key = NodeKey::generate()?;
        let request = key.request()?;
        let present = Some((present.cluster, present.node));
        Ok((Self { key, roots: roots.to_owned(), present }, request))
    }

    /// Takes what the manager issued. It is checked by the roots that the node knows already, not by those that came with
    /// it.
    ///
    /// # Errors
    /// The certificate is not one of this cluster for this node, this key and that role.
    pub fn accept(self, admission: Admission, now: Timestamp) -> Result<Joined, JoinError> {
        let chain = pem::certificates(&admission.chain)?;
        let identity = Trust::in_roots(&self.roots)?.check(&chain, Side::Client, now)?;
        check_key(&chain, &self.key)?;
        if identity.role != admission.role {
            return Err(JoinError::OtherRole);
        }
        if self.present.is_some_and(|present| present != (identity.cluster, identity.node)) {
            return Err(JoinError::OtherNode);
        }
        Trust::in_roots(&admission.roots)?.check(&chain, Side::Client, now)?;
        Ok(Joined { identity, key: self.key, chain: admission.chain, roots: admission.roots })
    }
}

/// Whether a chain's own certificate is of that key.
pub(crate) fn check_key(chain: &[CertificateDer<'_>], key: &NodeKey) -> Result<(), JoinError> {
    let unreadable = || JoinError::Issued(IdentityError::Unreadable.into());
    let leaf = chain.first().ok_or_else(unreadable)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    if parsed.public_key().subject_public_key.data.as_ref() == key.public() {
        Ok(())
    } else {
        Err(JoinError::OtherKey)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without the token, so that no log line can have it.
impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Joining")
    }
}

impl std::fmt::Debug for RootChecked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootChecked")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::{JoinRequest, admit};
    use crate::fixture::{NOW, cluster, token};
    use ketch_cluster::objects::Cluster;
    use ketch_cluster::objects::node::NodeRole;

    fn with_token() -> (Cluster, String) {
        let mut cluster = cluster(1);
        let token = token(&cluster, 100);
        cluster.root_ca.join_tokens.manager = token.clone();
        (cluster, token)
    }

    fn requested(cluster: &Cluster, token: &str) -> (Requested, Admission) {
        let joining = Joining::new(token).unwrap();
        let checked = joining.check_root(&cluster.root_ca.certificate, NOW).unwrap();
        let (requested, token, request) = checked.request().unwrap();
        let request = JoinRequest { token: &token, certificate_request: &request };
        let admission = admit(cluster, request, NodeId::of(5), NOW).unwrap();
        (requested, admission)
    }

    #[test]
    fn a_token_leads_to_a_certificate() {
        let (cluster, token) = with_token();
        let (requested, admission) = requested(&cluster, &token);
        let joined = requested.accept(admission, NOW).unwrap();
        assert_eq!(joined.identity.node, NodeId::of(5));
        assert_eq!((joined.identity.role, joined.identity.cluster), (NodeRole::Manager, cluster.id));
        let leaf = &pem::certificates(&joined.chain).unwrap()[0];
        assert_eq!(Identity::read(leaf), Ok(joined.identity));
        assert_eq!(joined.roots, cluster.root_ca.certificate);
    }

    #[test]
    fn another_root_is_refused_in_dockers_words() {
        let (cluster, token) = with_token();
        let other = crate::fixture::cluster(2).root_ca.certificate;
        for wrong in [other.as_str(), "", &format!("{}\n", cluster.root_ca.certificate)] {
            let error = Joining::new(&token).unwrap().check_root(wrong, NOW).unwrap_err();
            let digest = hex(&root::digest(&cluster.root_ca.certificate));
            assert_eq!(
                error.to_string(),
                format!("remote CA does not match fingerprint. Expected: {digest}")
            );
        }
        assert_eq!(hex(&[0, 171]), "00ab");
    }

    #[test]
    fn a_root_must_be_one_and_must_not_have_expired() {
        let (cluster, token) = with_token();
        let late = NOW.after(root::ROOT_LIFE + Duration::from_secs(1));
        let error = Joining::new(&token).unwrap().check_root(&cluster.root_ca.certificate, late);
        assert!(matches!(error, Err(JoinError::RootExpired { .. })));
        let no_root = "no PEM";
        let token = JoinToken { root_digest: root::digest(no_root), secret: 1 }.to_string();
        assert!(matches!(Joining::new(&token).unwrap().check_root(no_root, NOW), Err(JoinError::Root(_))));
        assert!(matches!(Joining::new("SWMTKN"), Err(JoinError::Token(_))));
    }

    #[test]
    fn an_issued_certificate_is_checked() {
        let (cluster, token) = with_token();
        let other = crate::fixture::cluster(1);

        let (waiting, admission) = requested(&cluster, &token);
        let foreign = crate::fixture::Node::new(&other, 5, NodeRole::Manager, NOW);
        let answer = Admission { chain: foreign.pem, ..admission.clone() };
        let refused = waiting.accept(answer, NOW);
        assert!(matches!(refused, Err(JoinError::Issued(PeerError::Foreign))), "{refused:?}");

        let (waiting, _) = requested(&cluster, &token);
        assert!(matches!(waiting.accept(admission.clone(), NOW), Err(JoinError::OtherKey)), "another's");

        let (waiting, admission) = requested(&cluster, &token);
        let answer = Admission { role: NodeRole::Worker, ..admission };
        assert!(matches!(waiting.accept(answer, NOW), Err(JoinError::OtherRole)));

        let (waiting, admission) = requested(&cluster, &token);
        let late = NOW.after(Duration::from_secs(91 * 24 * 3600));
        assert!(matches!(waiting.accept(admission, late), Err(JoinError::Issued(PeerError::Expired { .. }))));

        let (waiting, admission) = requested(&cluster, &token);
        let answer = Admission { roots: other.root_ca.certificate, ..admission };
        assert!(matches!(waiting.accept(answer, NOW), Err(JoinError::Issued(PeerError::Foreign))));

        let (waiting, admission) = requested(&cluster, &token);
        let answer = Admission { chain: String::new(), ..admission };
        assert!(matches!(waiting.accept(answer, NOW), Err(JoinError::Pem(PemError::Empty))));
    }

    #[test]
    fn a_node_renews_with_a_new_key() {
        let (cluster, token) = with_token();
        let (waiting, admission) = requested(&cluster, &token);
        let joined = waiting.accept(admission, NOW).unwrap();
        let later = NOW.after(Duration::from_secs(50 * 24 * 3600));
        let authority = crate::authority::Authority::of(&cluster).unwrap();
        let renew = |node| {
            let (waiting, request) = Requested::renewal(joined.identity, &joined.roots).unwrap();
            let chain = authority.issue(&request, (node, NodeRole::Worker), later).unwrap();
            let answer = Admission { role: NodeRole::Worker, chain, roots: joined.roots.clone() };
            waiting.accept(answer, later)
        };
        let renewed = renew(joined.identity.node).unwrap();
        assert_eq!((renewed.identity.node, renewed.identity.role), (joined.identity.node, NodeRole::Worker));
        assert_ne!(renewed.key.public(), joined.key.public());
        assert!(matches!(renew(NodeId::of(6)), Err(JoinError::OtherNode)));
    }

    #[test]
    fn the_token_is_not_in_debug_texts() {
        let (cluster, token) = with_token();
        let joining = Joining::new(&token).unwrap();
        assert_eq!(format!("{joining:?}"), "Joining");
        let checked = joining.check_root(&cluster.root_ca.certificate, NOW).unwrap();
        assert_eq!(format!("{checked:?}"), "RootChecked");
    }
}
