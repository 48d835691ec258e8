//! How bytes get from one manager to another. The caller brings it: mutual TLS in ketchd, memory in tests.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::Peer;

/// What a request is; the receiver hands it to [`ClusterLog::answer`](crate::ClusterLog::answer) with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Entries and heartbeats.
    Append,
    Vote,
    PreVote,
    /// One part of a snapshot, at most about 256 KiB unless one object is larger.
    Snapshot,
    /// The leader asks the receiver to lead.
    Lead,
}

#[derive(Debug)]
pub struct Call {
    pub kind: Kind,
    pub request: Vec<u8>,
    /// The answer is of no use later than this.
    pub within: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: raft waits longer before it tries again.
    #[error("not reachable: {0}")]
    Unreachable(String),
    #[error("no answer in time")]
    Late,
    /// The peer answered with an error, or with something that is no answer.
    #[error("refused: {0}")]
    Refused(String),
}

pub trait Transport: Send + Sync + 'static {
    /// Sends a request to `to` and waits for the answer. The transport proves that it talks to `to.node`; the address is
    /// the last one that was committed, and a transport that knows a newer one uses that.
    fn call(&self, to: &Peer, call: Call) -> BoxFuture<'static, Result<Vec<u8>, TransportError>>;
}
