//! What the dispatcher says of nodes and tasks to users. Docker's words, where Docker has some: scripts match them.

use std::collections::BTreeSet;

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

/// As dockerd says it of its own.
pub(super) fn no_container(typed: &str) -> String {
    format!("No such container: {typed}")
}

/// As dockerd says it of its own.
pub(super) fn several(typed: &str) -> String {
    format!("multiple IDs found with provided prefix: {typed}")
}

/// Nodes of which at least one says what is not so.
pub(super) fn claimed(id: &str, nodes: &BTreeSet<String>) -> String {
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    format!("container {id} is claimed by several tasks, on {}: use the task's name", nodes.join(", "))
}

pub(super) fn no_task(task: TaskId) -> String {
    format!("No such container: task {task} has none")
}

pub(super) fn no_node(node: NodeId) -> String {
    format!("node {node} not found")
}

/// Of a node by its name, whose containers can't be reached.
pub(super) fn no_session(name: &str) -> String {
    format!("node {name} is not available: no manager hears from it")
}

pub(super) fn no_tunnel(name: &str) -> String {
    format!("node {name} did not answer in time")
}

pub(super) fn before_tunnels(name: &str) -> String {
    format!("node {name} runs a version of ketch that lets nobody into its containers from elsewhere")
}

pub(super) fn crowded(name: &str, most: usize) -> String {
    format!(
        "node {name} is asked for its containers by {most} requests at once, which is as many as it takes"
    )
}

pub(super) fn busy(most: usize) -> String {
    format!("this manager has {most} requests at containers of other nodes open, which is as many as it may")
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
        assert_eq!(no_container("x"), "No such container: x");
        assert_eq!(several("a"), "multiple IDs found with provided prefix: a");
        assert_eq!(not_scheduled(task), "task 0000000000000000000000002 has not been scheduled");
    }
}
