//! Why the node does not do what a user asked: in Docker's words, which clients and scripts match.

use ketch_ca::folder::FolderError;
use ketch_ca::join::JoinError;

use crate::manager::NO_LEADER;
use crate::wire::CallError;

/// Docker's texts are those of `daemon/cluster/errors.go` and `swarm.go`.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("This node is not part of a swarm")]
    NoSwarm,
    #[error(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
    )]
    Exists,
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    NoManager,
    #[error(
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
    )]
    Worker,
    #[error("{}", ketch_ca::compat::LOCKED)]
    Locked,
    #[error("swarm is not locked")]
    NotLocked,
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongUnlockKey,
    #[error("Swarm certificates have expired. To replace them, leave the swarm and join again.")]
    Expired,
    #[error(
        "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node."
    )]
    JoinTakesLong,
    #[error("{NO_LEADER}")]
    NoLeader,
    /// It is a manager that takes no part, and why.
    #[error(
        "This manager takes no part in the swarm: its raft log has stopped, and begins again when its disk can be written: {0}"
    )]
    LogStopped(String),
    #[error("the daemon is about to end")]
    Ending,
    /// Leaving needs `--force`: the whole text.
    #[error("{0}")]
    LeaveNeedsForce(String),
    /// What was given makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The node that was named is no manager that lets this one in.
    #[error("{0}")]
    Refused(String),
    /// It can't be done; why.
    #[error("{0}")]
    Failed(String),
}

/// What its status in HTTP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeErrorKind {
    Unavailable,
    Invalid,
    Unauthorized,
    Conflict,
    Failed,
}

impl NodeError {
    #[must_use]
    pub fn kind(&self) -> NodeErrorKind {
        match self {
            Self::NoSwarm
            | Self::Exists
            | Self::NoManager
            | Self::Worker
            | Self::Locked
            | Self::Expired
            | Self::JoinTakesLong
            | Self::LogStopped(_)
            | Self::Ending
            | Self::LeaveNeedsForce(_) => NodeErrorKind::Unavailable,
            Self::Invalid(_) => NodeErrorKind::Invalid,
            Self::WrongUnlockKey => NodeErrorKind::Unauthorized,
            Self::NotLocked => NodeErrorKind::Conflict,
            Self::NoLeader | Self::Refused(_) | Self::Failed(_) => NodeErrorKind::Failed,
        }
    }

    /// With everything behind it.
    pub(super) fn failed(action: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{action}: {error}");
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Self::Failed(text)
    }
}

impl From<FolderError> for NodeError {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Locked => Self::Locked,
            FolderError::Seal(_) => Self::WrongUnlockKey,
            error => Self::failed("the node's keys", &error),
        }
    }
}

impl From<JoinError> for NodeError {
    fn from(error: JoinError) -> Self {
        match error {
            // Docker's words, and all of them.
            JoinError::Fingerprint { .. } => Self::Failed(error.to_string()),
            error => Self::failed("can't join", &error),
        }
    }
}

impl From<CallError> for NodeError {
    fn from(error: CallError) -> Self {
        Self::Refused(format!("rpc error: {error}"))
    }
}

impl From<std::io::Error> for NodeError {
    fn from(error: std::io::Error) -> Self {
        Self::failed("the node's folder", &error)
    }
}
