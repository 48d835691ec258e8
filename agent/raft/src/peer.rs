//! Who takes part in the log, and where it is.

use ketch_cluster::id::NodeId;
use serde::{Deserialize, Serialize};

/// A manager as raft knows it. Its identity is `node`, which its key proves; the address may change
/// ([`ClusterLog::move_peer`](crate::ClusterLog::move_peer)) and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Raft's name of it: given once by the leader, never again to another node (`Node.manager.raft_id` in the store).
    pub raft_id: u64,
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// openraft's conformance suite makes its own peers.
#[cfg(test)]
impl Default for Peer {
    fn default() -> Self {
        Self { raft_id: 0, node: NodeId::of(0), address: String::new() }
    }
}
