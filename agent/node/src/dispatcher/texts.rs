//! What the dispatcher says of nodes and tasks to users. Docker's words, where Docker has some: scripts match them.

use ketch_cluster::id::{NodeId, TaskId};

/// Of a node whose heartbeats ended.
pub(super) const SILENT: &str = "heartbeat failure";
/// Of one that this leader has not heard yet.
pub(super) const UNHEARD: &str = "Node moved to \"unknown\" state due to leadership change in cluster";
/// Of one that this leader has never heard.
pub(super) const NEVER_HEARD: &str = "heartbeat failure for node in \"unknown\" state";
/// Of one that said so.
pub(super) const LEFT: &str = "the node has left the cluster";

/// Why a task's log ends: its node does not answer.
pub(super) fn node_not_available(node: NodeId) -> String {
    format!("node {node} is not available")
}

/// Why a task has no log: it has no node yet.
pub(super) fn not_scheduled(task: TaskId) -> String {
    format!("task {task} has not been scheduled")
}

/// To a node that is none of the cluster.
pub(super) fn removed(node: NodeId) -> String {
    format!("node {node} was removed from this cluster")
}

/// To one of two machines that have one node's keys.
pub(super) fn double(node: NodeId, there: &str) -> String {
    format!(
        "node {node} is in a session from {there}, by another agent with the same keys: its folder was copied. One of both must leave: move its folder away, and join as another node"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_words() {
        assert_eq!(SILENT, "heartbeat failure");
        assert_eq!(UNHEARD, "Node moved to \"unknown\" state due to leadership change in cluster");
        assert_eq!(NEVER_HEARD, "heartbeat failure for node in \"unknown\" state");
        let (node, task) = (NodeId::of(1), TaskId::of(2));
        assert_eq!(node_not_available(node), "node 0000000000000000000000001 is not available");
        assert_eq!(not_scheduled(task), "task 0000000000000000000000002 has not been scheduled");
    }
}
