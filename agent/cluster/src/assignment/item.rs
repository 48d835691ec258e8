//! The parts of an assignment: each is sent as a whole, when it is new or has changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use crate::objects::cluster::DataKey;
use crate::objects::endpoint::{ResolutionMode, VirtualIp};
use crate::objects::network::Subnet;
use crate::objects::{Config, Labels, Network, NetworkAttachment, PortConfig, Secret, Task};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// A task to run, or to have ended.
    Task(Arc<Task>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
    Network(NodeNetwork),
    Neighbour(Neighbour),
    Service(ServiceEntry),
    Peer(Peer),
    /// Of encrypted networks, the oldest first; [`sending`](crate::data_keys::sending) says which the node sends with.
    DataKeys(Vec<DataKey>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ItemId {
    Task(TaskId),
    Secret(SecretId),
    Config(ConfigId),
    Network(NetworkId),
    Neighbour(TaskId),
    Service(ServiceId),
    Peer(NodeId),
    /// One item: they come and go together.
    DataKeys,
}

/// A network that the node is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNetwork {
    /// With its VNI and its pools.
    pub network: Arc<Network>,
    pub own: OwnAddress,
}

/// A node's own address in a network, from which it forwards what the mesh and virtual addresses lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnAddress {
    /// One for each address family.
    Given(Vec<Subnet>),
    /// The network is each node's own.
    NotNeeded,
    /// The allocator has none for this node yet, or the network's pools are full. Tasks that run here have theirs and are
    /// reached by them, but nothing is forwarded by the node: the worker says so of the network.
    Missing,
}

/// A task, of this node or of another, as the networks that this node is in see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    pub task: TaskId,
    /// None for a plain container.
    pub service: Option<ServiceId>,
    pub name: Arc<str>,
    /// Where it is: this node, or a [`Peer`] whose data address its datagrams go to.
    pub node: NodeId,
    /// To networks that this node is in too.
    pub attachments: Vec<NetworkAttachment>,
    pub traffic: Traffic,
}

/// Whether a task is among those that its service's addresses, names and published ports lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// It does not run, or not healthily yet. It has its address, and may connect to others.
    None,
    Serving,
    /// It is about to be stopped: no new connection, but those that there are go on.
    Draining,
    /// The leader has not heard of it: what this node knew of it holds; if it knew nothing, none.
    Unknown,
}

/// How a service is reached from the networks that the node is in. What it leads to are its [`Neighbour`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    pub service: ServiceId,
    pub name: String,
    /// Among them what the user sets of the mesh.
    pub labels: Labels,
    pub mode: ResolutionMode,
    /// In networks that the node is in.
    pub virtual_ips: Vec<VirtualIp>,
    /// Those of the routing mesh, when the node is part of it.
    pub ports: Vec<PortConfig>,
    /// Whom the names in its label `ketch.allow` mean, as managers know, who know of services that the node is not told of. A name
    /// that is nobody's is not there. None: it has no such label, or the manager is older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<BTreeMap<String, ServiceId>>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub node: NodeId,
    /// Where datagrams for its tasks go; and the only place that datagrams of its tasks come from.
    pub data_address: IpAddr,
    /// Its own, to networks that this node is in too.
    pub attachments: Vec<NetworkAttachment>,
}

impl Item {
    #[must_use]
    pub fn id(&self) -> ItemId {
        match self {
            Self::Task(it) => ItemId::Task(it.id),
            Self::Secret(it) => ItemId::Secret(it.id),
            Self::Config(it) => ItemId::Config(it.id),
            Self::Network(it) => ItemId::Network(it.network.id),
            Self::Neighbour(it) => ItemId::Neighbour(it.task),
            Self::Service(it) => ItemId::Service(it.service),
            Self::Peer(it) => ItemId::Peer(it.node),
            Self::DataKeys(_) => ItemId::DataKeys,
        }
    }

    pub(super) fn with_id(self) -> (ItemId, Self) {
        (self.id(), self)
    }

    /// The service of a neighbour.
    pub(super) fn service_of_neighbour(&self) -> Option<ServiceId> {
        match self {
            Self::Neighbour(it) => it.service,
            _ => None,
        }
    }
}

impl ItemId {
    /// A number for its kind, and the bits of its id.
    pub(super) fn numbers(self) -> (u64, u128) {
        match self {
            Self::Task(id) => (1, id.bits()),
            Self::Secret(id) => (2, id.bits()),
            Self::Config(id) => (3, id.bits()),
            Self::Network(id) => (4, id.bits()),
            Self::Neighbour(id) => (5, id.bits()),
            Self::Service(id) => (6, id.bits()),
            Self::Peer(id) => (7, id.bits()),
            Self::DataKeys => (8, 0),
        }
    }
}
