//! Why a node does not do what another one asked of it.

use ketch_cluster::id::NodeId;
use serde::{Deserialize, Serialize};

/// An answer that is a refusal has this header: those of the Engine API are none, whatever their status.
pub(super) const REFUSED: &str = "ketch-refused";

/// Sent as JSON with a status that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Only the leader does that; who it is, if that is known.
    #[error("this manager does not lead the cluster")]
    NotLeader { leader: Option<(NodeId, String)> },
    /// Fewer than half of the managers can be reached.
    #[error("the managers have lost quorum")]
    NoQuorum,
    /// The caller may not do that: it has no certificate, not that role, a wrong token.
    #[error("{0}")]
    Denied(String),
    /// The node does not know such a call, or can't read it.
    #[error("{0}")]
    Invalid(String),
    /// What the call is about is not there: a container that no task of the cluster has.
    #[error("{0}")]
    NotFound(String),
    /// The session is over, or was never one: the worker begins another.
    #[error("there is no such session")]
    NoSession,
    /// It is no manager, is about to end, or is locked.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// Of HTTP.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::NotLeader { .. } => 421,
            Self::NoQuorum | Self::Unavailable(_) => 503,
            Self::Denied(_) => 403,
            Self::Invalid(_) => 400,
            Self::NotFound(_) => 404,
            Self::NoSession => 410,
            Self::Failed(_) => 500,
        }
    }
}
