//! Why a request is refused, in the words that Docker's clients know.
//!
//! dockerd says some things itself, and passes on as they are the gRPC errors of the swarm manager behind it, prefix and all.
//! Clients and scripts match both, so an error knows who would have said it. The texts are in [`texts`](super::texts).

use crate::store::{ObjectId, StoreError};

use super::texts;

/// A refused request. What is shown to the client is the whole of its display.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", self.prefix())]
pub struct ControlError {
    kind: ErrorKind,
    speaker: Speaker,
    text: String,
}

/// What the API's status follows from: `design/control.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    InvalidArgument,
    NotFound,
    FailedPrecondition,
    AlreadyExists,
    /// The object was written since the client read it.
    OutOfSequence,
    PermissionDenied,
    Unavailable,
    Unimplemented,
    /// What Docker has no kind for: a constraint that can't be parsed, a proposal that does not fit the store.
    Unknown,
}

/// Who says it in Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    Dockerd,
    SwarmKit,
}

impl ControlError {
    pub(super) fn new(kind: ErrorKind, speaker: Speaker, text: String) -> Self {
        Self { kind, speaker, text }
    }

    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn prefix(&self) -> String {
        match self.speaker {
            Speaker::Dockerd => String::new(),
            Speaker::SwarmKit => format!("rpc error: code = {} desc = ", self.kind.code()),
        }
    }
}

impl ErrorKind {
    /// gRPC's name of it.
    fn code(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::NotFound => "NotFound",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::AlreadyExists => "AlreadyExists",
            Self::PermissionDenied => "PermissionDenied",
            Self::Unavailable => "Unavailable",
            Self::Unimplemented => "Unimplemented",
            // SwarmKit's store knows nothing of gRPC.
            Self::OutOfSequence | Self::Unknown => "Unknown",
        }
    }
}

/// A proposal that was good when it was made, and met another one on its way into the log.
impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::OutOfSequence(_) => texts::out_of_sequence(),
            StoreError::NotFound(ObjectId::Cluster(_)) => texts::no_swarm(),
            StoreError::NotFound(id) => texts::gone(&id),
            StoreError::NameConflict { kind, name } => texts::name_conflict(kind, &name),
            // No request comes to one of the others.
            error => texts::store_refused(&error),
        }
    }
}
