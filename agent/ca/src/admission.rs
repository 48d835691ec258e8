//! A manager's side of a join: which role a token gives, and the certificate for it.
//!
//! The caller has the connection ([`Caller::Stranger`](crate::tls::Caller)), makes the new node's id, and writes the node
//! into the store before it answers.

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::Cluster;
use ketch_cluster::objects::cluster::JoinTokens;
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::time::Timestamp;
use ketch_cluster::token::JoinToken;
use subtle::{Choice, ConstantTimeEq};

use crate::authority::{Authority, AuthorityError};
use crate::compat;
use crate::root;

/// Why a node is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The client's fault, in Docker's words: `InvalidArgument`.
    #[error("{}", compat::TOKEN_NEEDED)]
    Token,
    /// The client's fault, too: its request is none.
    #[error("the node's certificate request is refused")]
    Request(#[source] AuthorityError),
    /// This cluster's own.
    #[error("the cluster's authority can't sign")]
    Authority(#[source] AuthorityError),
}

/// What a joining node sends.
#[derive(Clone, Copy)]
pub struct JoinRequest<'a> {
    pub token: &'a str,
    /// PEM of PKCS #10.
    pub certificate_request: &'a str,
}

/// Without the token, so that no log line can have it.
impl std::fmt::Debug for JoinRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinRequest")
    }
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    pub role: NodeRole,
    /// The node's certificate and what leads from it to the root; PEM.
    pub chain: String,
    /// All roots that the node is to trust from now on; PEM.
    pub roots: String,
}

/// Lets a node in, as `node`, in the role that its token gives.
///
/// # Errors
/// The token is not one of the cluster's present ones, the request is refused, or the cluster's own authority is broken.
pub fn admit(
    cluster: &Cluster,
    request: JoinRequest<'_>,
    node: NodeId,
    now: Timestamp,
) -> Result<Admission, AdmissionError> {
    let role = role_of(&cluster.root_ca.join_tokens, request.token).ok_or(AdmissionError::Token)?;
    let authority = Authority::of(cluster).map_err(AdmissionError::Authority)?;
    let chain =
        authority.issue(request.certificate_request, (node, role), now).map_err(AdmissionError::Request)?;
    Ok(Admission { role, chain, roots: root::trusted(&cluster.root_ca) })
}

/// The role that a token gives; none when it is not one of the cluster's present ones. The time that it takes tells nothing
/// of the secrets: both are compared, and all of both.
#[must_use]
pub fn role_of(tokens: &JoinTokens, given: &str) -> Option<NodeRole> {
    let given = given.parse::<JoinToken>().ok()?;
    let manager = same_secret(&tokens.manager, given);
    let worker = same_secret(&tokens.worker, given);
    match (bool::from(manager), bool::from(worker)) {
        (true, _) => Some(NodeRole::Manager),
        (false, true) => Some(NodeRole::Worker),
        (false, false) => None,
    }
}

/// The digest is the joining node's to check: a token of another root has another secret.
fn same_secret(token: &str, given: JoinToken) -> Choice {
    match token.parse::<JoinToken>() {
        Ok(token) => token.secret.to_be_bytes().ct_eq(&given.secret.to_be_bytes()),
        Err(_) => Choice::from(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{NOW, cluster, token};
    use crate::key::NodeKey;

    fn with_tokens() -> Cluster {
        let mut cluster = cluster(1);
        cluster.root_ca.join_tokens =
            JoinTokens { worker: token(&cluster, 100), manager: token(&cluster, 200) };
        cluster
    }

    #[test]
    fn a_token_gives_its_role() {
        let cluster = with_tokens();
        let tokens = &cluster.root_ca.join_tokens;
        assert_eq!(role_of(tokens, &tokens.worker), Some(NodeRole::Worker));
        assert_eq!(role_of(tokens, &tokens.manager), Some(NodeRole::Manager));
    }

    #[test]
    fn a_wrong_or_rotated_token_is_refused_in_dockers_words() {
        let mut cluster = with_tokens();
        let next = token(&cluster, 101);
        let rotated = std::mem::replace(&mut cluster.root_ca.join_tokens.worker, next);
        let request = NodeKey::generate().unwrap().request().unwrap();
        for token in [rotated.as_str(), "", "SWMTKN-1-abc", &token(&cluster, 0)] {
            let request = JoinRequest { token, certificate_request: &request };
            let error = admit(&cluster, request, NodeId::of(5), NOW).unwrap_err();
            assert_eq!(error.to_string(), "A valid join token is necessary to join this cluster");
        }
        cluster.root_ca.join_tokens = JoinTokens::default();
        assert_eq!(role_of(&cluster.root_ca.join_tokens, &token(&cluster, 0)), None, "no token is no secret");
    }

    #[test]
    fn a_bad_request_is_the_clients_fault_and_a_bad_authority_is_not() {
        let mut cluster = with_tokens();
        let token = cluster.root_ca.join_tokens.worker.clone();
        let request = JoinRequest { token: &token, certificate_request: "none" };
        assert!(matches!(admit(&cluster, request, NodeId::of(5), NOW), Err(AdmissionError::Request(_))));
        cluster.root_ca.key.0.clear();
        assert!(matches!(admit(&cluster, request, NodeId::of(5), NOW), Err(AdmissionError::Authority(_))));
        assert_eq!(format!("{request:?}"), "JoinRequest");
    }
}
