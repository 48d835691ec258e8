//! What managers say to each other: a format byte, the length of the head (4 bytes, little end first), the head as JSON,
//! and what is left is the body, which only parts of a snapshot have.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::{EntryRecord, LogIdRecord, SnapshotHead, VoteRecord};
use crate::snapshot::format::Digest;

const FORMAT: u8 = 1;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("a message of format {0}, which another version of ketch sent")]
    Format(u8),
    #[error("a message that ends early")]
    Short,
    #[error("a message that does not parse: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a message that is too long")]
    Long,
}

pub(crate) fn encode(head: &impl Serialize, body: &[u8]) -> Result<Vec<u8>, WireError> {
    let head = serde_json::to_vec(head)?;
    let length = u32::try_from(head.len()).map_err(|_| WireError::Long)?;
    Ok([&[FORMAT][..], &length.to_le_bytes(), &head, body].concat())
}

pub(crate) fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<(T, &[u8]), WireError> {
    let (format, rest) = message.split_first().ok_or(WireError::Short)?;
    if *format != FORMAT {
        return Err(WireError::Format(*format));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(WireError::Short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| WireError::Long)?;
    let (head, body) = rest.split_at_checked(length).ok_or(WireError::Short)?;
    Ok((serde_json::from_slice(head)?, body))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AppendRequest {
    pub(crate) vote: VoteRecord,
    pub(crate) previous: Option<LogIdRecord>,
    pub(crate) entries: Vec<EntryRecord>,
    pub(crate) committed: Option<LogIdRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AppendAnswer {
    Stored,
    StoredTo(Option<LogIdRecord>),
    Conflict,
    HigherVote(VoteRecord),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VoteAsked {
    pub(crate) vote: VoteRecord,
    pub(crate) last: Option<LogIdRecord>,
    /// The leader wants it: its lease does not count.
    #[serde(default)]
    pub(crate) transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub(crate) vote: VoteRecord,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogIdRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeadAsked {
    pub(crate) from: VoteRecord,
    pub(crate) to: u64,
    pub(crate) last: Option<LogIdRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LeadAnswer {
    Leading,
    VoteChanged { expected: VoteRecord, actual: VoteRecord },
    Behind { expected: Option<LogIdRecord>, actual: Option<LogIdRecord> },
}

/// One part of a snapshot, in the order `Begin`, `Frame`s, `End`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SnapshotPart {
    Begin {
        transfer: u64,
        head: SnapshotHead,
    },
    /// The body is the content of the frame of that number, from 0 on.
    Frame {
        transfer: u64,
        number: u64,
    },
    End {
        transfer: u64,
        digest: Digest,
        vote: VoteRecord,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SnapshotAnswer {
    Next,
    /// Installed, or not wanted by one that has seen a higher vote.
    Done(VoteRecord),
    /// Another transfer took its place, or a part is missing: it starts again.
    OutOfStep,
}
