//! Nodes of the cluster.

use ketch_cluster::control::texts::conversion as texts;
use ketch_cluster::control::{RaftMembers, Reachability};
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::node::{
    Availability, EngineDescription, ManagerStatus, NodeDescription, NodeRole, NodeState,
};
use ketch_cluster::objects::{Node, NodeSpec};
use ketch_engine_api::swarm::node as api;

use crate::cluster::{Authority, tls_of_node};
use crate::{Refusal, moment, resources, task};

/// # Errors
/// A role or availability that there is not; neither may be left out.
pub fn spec_of(spec: api::NodeSpec) -> Result<NodeSpec, Refusal> {
    let role = match spec.role.to_ascii_lowercase().as_str() {
        "worker" => NodeRole::Worker,
        "manager" => NodeRole::Manager,
        _ => return Err(texts::node_role(&spec.role)),
    };
    Ok(NodeSpec {
        name: spec.name,
        labels: spec.labels.unwrap_or_default(),
        role,
        availability: availability_of(&spec.availability)?,
    })
}

/// Of a spec, and of a node that starts or joins a cluster: there it may be left out, which the route sees to.
///
/// # Errors
/// There is no such one.
pub fn availability_of(text: &str) -> Result<Availability, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(texts::node_availability(text)),
    }
}

/// What a manager knows of nodes that the store has not.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub members: &'a RaftMembers,
    pub leader: Option<NodeId>,
    /// The cluster's, the present root first.
    pub authorities: &'a [Authority],
}

#[must_use]
pub fn shown(node: &Node, around: &Around<'_>) -> api::Node {
    let description = node.description.as_ref();
    api::Node {
        id: node.id.to_string(),
        meta: moment::meta(&node.meta),
        spec: spec_shown(&node.spec),
        description: description.map(|it| description_shown(it, around)).unwrap_or_default(),
        status: api::NodeStatus {
            state: state_name(node.status.state).to_owned(),
            message: node.status.message.clone(),
            addr: node.status.address.clone(),
        },
        manager_status: node.manager.as_ref().map(|manager| manager_shown(node.id, manager, around)),
    }
}

fn spec_shown(spec: &NodeSpec) -> api::NodeSpec {
    let role = match spec.role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    };
    let availability = match spec.availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    };
    api::NodeSpec {
        name: spec.name.clone(),
        labels: Some(spec.labels.clone()),
        role: role.to_owned(),
        availability: availability.to_owned(),
    }
}

fn description_shown(description: &NodeDescription, around: &Around<'_>) -> api::NodeDescription {
    api::NodeDescription {
        hostname: description.hostname.clone(),
        platform: task::platform_shown(&description.platform),
        resources: resources::resources_shown(&description.resources),
        engine: engine_shown(&description.engine),
        tls_info: description
            .tls
            .as_ref()
            .map(|tls| tls_of_node(tls, around.authorities))
            .unwrap_or_default(),
    }
}

fn engine_shown(engine: &EngineDescription) -> api::EngineDescription {
    let plugin = |(kind, name): &(String, String)| api::Plugin { kind: kind.clone(), name: name.clone() };
    api::EngineDescription {
        engine_version: engine.version.clone(),
        labels: Some(engine.labels.clone()),
        plugins: Some(engine.plugins.iter().map(plugin).collect()),
    }
}

fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

fn manager_shown(id: NodeId, manager: &ManagerStatus, around: &Around<'_>) -> api::ManagerStatus {
    let reachability = match around.members.get(&id) {
        Some(Reachability::Reachable) => "reachable",
        Some(Reachability::Unreachable) => "unreachable",
        None => "unknown",
    };
    api::ManagerStatus {
        leader: around.leader == Some(id),
        reachability: reachability.to_owned(),
        addr: manager.address.clone(),
    }
}
