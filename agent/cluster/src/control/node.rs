//! Nodes: given a role, an availability or labels, removed, listed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::NodeId;
use crate::objects::node::{NodeRole, NodeState};
use crate::objects::{Cluster, Labels, Node, NodeSpec, Version};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::lookup::find_cluster;
use super::{texts, validate};

/// How long a removed node's certificate is remembered after its end: clocks differ.
const SHUT_OUT_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The voters of the raft group, and whether the leader hears from each; from itself it does.
pub type RaftMembers = BTreeMap<NodeId, Reachability>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    Reachable,
    Unreachable,
}

/// What the API's `nodes/{id}/update` asks for, with what the manager knows.
#[derive(Debug, Clone)]
pub struct NodeUpdate<'a> {
    /// The one that the client has read.
    pub version: Version,
    pub spec: NodeSpec,
    pub members: &'a RaftMembers,
}

/// Writes the spec.
///
/// # Errors
/// When the last manager would be demoted or the rest of the managers would be no quorum, or the version is not the node's.
pub fn update_node(
    view: &View<'_>,
    id: NodeId,
    update: NodeUpdate<'_>,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let old = found(view, id)?;
    if old.spec.role == NodeRole::Manager && update.spec.role == NodeRole::Worker {
        may_be_demoted(view, id, update.members)?;
    }
    if old.meta.version != update.version {
        return Err(texts::out_of_sequence());
    }
    let mut node = Node::clone(old);
    node.spec = update.spec;
    node.meta.updated_at = now;
    validate::fits_object(ObjectKind::Node, &node)?;
    Ok(vec![StoreAction::Update(node.into())])
}

fn may_be_demoted(view: &View<'_>, id: NodeId, members: &RaftMembers) -> Result<(), ControlError> {
    // One that is being demoted is no manager any more, one that is being promoted none yet.
    let stays = |node: &&Arc<Node>| {
        node.id != id && node.role == NodeRole::Manager && node.spec.role == NodeRole::Manager
    };
    if !view.nodes().any(|node| stays(&node)) {
        return Err(texts::last_manager());
    }
    if !members.contains_key(&id) {
        return Err(texts::manager_not_in_raft());
    }
    let others = members.iter().filter(|(member, _)| **member != id).map(|(_, reachability)| *reachability);
    let reachable = others.clone().filter(|it| *it == Reachability::Reachable).count();
    let quorum = others.count() / 2 + 1;
    if reachable < quorum { Err(texts::quorum_would_be_lost()) } else { Ok(()) }
}

/// `node rm`, with what the manager knows of the node.
#[derive(Debug, Clone)]
pub struct NodeRemoval<'a> {
    pub force: Force,
    pub members: &'a RaftMembers,
    /// When the last certificate that was signed for the node ends.
    pub certificate_ends: Timestamp,
}

/// `--force`: also a node that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Force {
    #[default]
    No,
    Yes,
}

/// Removes the node and shuts its certificate out. The orchestrators write how its tasks ended.
///
/// # Errors
/// When it is a member of raft, or is up and that is not forced.
pub fn remove_node(
    view: &View<'_>,
    id: NodeId,
    removal: &NodeRemoval<'_>,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let node = found(view, id)?;
    if removal.members.contains_key(&id) {
        return Err(texts::node_is_manager(id));
    }
    if removal.force == Force::No && node.status.state == NodeState::Ready {
        return Err(texts::node_not_down(id));
    }
    let mut cluster = Cluster::clone(find_cluster(view)?);
    cluster.meta.updated_at = now;
    forget_ended(&mut cluster, now);
    cluster.shut_out.insert(id, removal.certificate_ends.after(SHUT_OUT_GRACE));
    Ok(vec![StoreAction::Update(cluster.into()), StoreAction::Remove(id.into())])
}

/// Removed nodes whose certificates nobody takes any more.
pub(super) fn forget_ended(cluster: &mut Cluster, now: Timestamp) {
    cluster.shut_out.retain(|_, until| *until > now);
}

fn found<'v>(view: &'v View<'_>, id: NodeId) -> Result<&'v Arc<Node>, ControlError> {
    view.node(id).ok_or_else(|| texts::gone(&id.into()))
}

/// The nodes that match `name` (of the host), `id`, `label` (of the engine), `node.label`, `role` and `membership`.
///
/// # Errors
/// When there is another key, or a role or membership that there is not.
pub fn list_nodes(view: &View<'_>, filters: &Filters) -> Result<Vec<Arc<Node>>, ControlError> {
    filters.accept(&["name", "id", "label", "role", "membership", "node.label"])?;
    let roles = filters.parsed("role", role_named)?;
    let memberships = filters.parsed("membership", membership_named)?;
    let none = Labels::new();
    let matches = |node: &&Arc<Node>| {
        let (hostname, engine_labels) =
            node.description.as_ref().map_or(("", &none), |it| (it.hostname.as_str(), &it.engine.labels));
        filters.starts("name", hostname)
            && filters.starts("id", &node.id.to_string())
            && filters.labels("label", engine_labels)
            && filters.labels("node.label", &node.spec.labels)
            && (roles.is_empty() || roles.contains(&node.role))
            && (memberships.is_empty() || memberships.contains(&Membership::Accepted))
    };
    Ok(view.nodes().filter(matches).cloned().collect())
}

fn role_named(text: &str) -> Option<NodeRole> {
    match text.to_ascii_lowercase().as_str() {
        "worker" => Some(NodeRole::Worker),
        "manager" => Some(NodeRole::Manager),
        _ => None,
    }
}

/// Whether a node was let in. A token lets in at once, so that every node here was.
#[derive(PartialEq, Eq)]
enum Membership {
    Pending,
    Accepted,
}

fn membership_named(text: &str) -> Option<Membership> {
    match text.to_ascii_lowercase().as_str() {
        "pending" => Some(Membership::Pending),
        "accepted" => Some(Membership::Accepted),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
