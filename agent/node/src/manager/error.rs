//! Why a manager does not do what it was asked.

use ketch_cluster::control::ControlError;
use ketch_cluster::id::NodeId;
use ketch_cluster::store::StoreError;
use ketch_raft::{MembersError, OpenError, ProposeError};

use crate::wire::{CallError, Refusal};

/// What users of Docker see while nobody leads. With status 500.
pub const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";
/// What they see when nobody knows whether their change was made. With status 500.
pub const UNCERTAIN: &str = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";

/// Why a manager does not begin, or does not get into raft.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error("the disk of the raft log")]
    Disk(#[from] std::io::Error),
    #[error("founding the cluster")]
    Found(#[source] MembersError),
    #[error("writing the cluster's first objects")]
    FirstObjects(#[source] ProposeError),
    /// The leader does not let it into raft, and asking again is of no use.
    #[error("the leader does not take this manager: {0}")]
    Denied(Refusal),
    /// The node that was asked is none of this cluster.
    #[error(transparent)]
    Call(CallError),
}

/// Why this manager can't do what only a leader with a quorum can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeadError {
    /// Nothing was done: ask the leader, when one is known.
    #[error("this manager does not lead the cluster")]
    NotLeader { leader: Option<(NodeId, String)> },
    /// Nothing was done.
    #[error("the managers have lost quorum")]
    NoQuorum,
    /// Nobody knows yet whether it was done. Trying again is safe.
    #[error("no quorum of managers has answered in time; the change may have been made")]
    Uncertain,
    #[error("the raft log has stopped: {0}")]
    Stopped(String),
}

impl LeadError {
    /// What Docker's users are told.
    #[must_use]
    pub fn docker(&self) -> &'static str {
        match self {
            Self::Uncertain => UNCERTAIN,
            Self::NotLeader { .. } | Self::NoQuorum | Self::Stopped(_) => NO_LEADER,
        }
    }
}

impl From<LeadError> for Refusal {
    fn from(error: LeadError) -> Self {
        match error {
            LeadError::NotLeader { leader } => Self::NotLeader { leader },
            LeadError::NoQuorum => Self::NoQuorum,
            LeadError::Uncertain => Self::Failed(error.to_string()),
            LeadError::Stopped(_) => Self::Unavailable(error.to_string()),
        }
    }
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError<E> {
    /// By who proposed it: it is not good.
    #[error("{0}")]
    Refused(E),
    /// By the store: it has met another one on its way.
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Lead(#[from] LeadError),
}

impl<E: std::fmt::Display> From<ChangeError<E>> for Refusal {
    fn from(error: ChangeError<E>) -> Self {
        match error {
            ChangeError::Refused(error) => Self::Denied(error.to_string()),
            ChangeError::Store(error) => Self::Failed(error.to_string()),
            ChangeError::Lead(error) => error.into(),
        }
    }
}

impl ChangeError<ControlError> {
    /// A request's refusal, in Docker's words; or why nobody could judge it.
    ///
    /// # Errors
    /// [`LeadError`].
    pub fn control(self) -> Result<ControlError, LeadError> {
        match self {
            Self::Refused(error) => Ok(error),
            Self::Store(error) => Ok(error.into()),
            Self::Lead(error) => Err(error),
        }
    }
}
