//! Nodes: their role and availability, what they are made of, whether they are there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::network::NetworkAttachment;
use super::{Labels, Meta, Resources};
use crate::id::NodeId;
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub meta: Meta,
    pub spec: NodeSpec,
    /// What the node said of itself when it last registered; none until then.
    pub description: Option<NodeDescription>,
    /// The verdict of the leader.
    pub status: NodeStatus,
    /// The role in its certificate, which follows the spec's once raft has let it in or out.
    pub role: NodeRole,
    /// Of a manager: its place in raft.
    pub manager: Option<ManagerStatus>,
    /// Its own address on each network that it serves: what the mesh translates to when it forwards to another node.
    #[serde(default)]
    pub attachments: Vec<NetworkAttachment>,
}

impl Node {
    /// Whether tasks fare the same on both, and no filter or preference can tell them apart: only the allocator's part differs, or a
    /// manager's place in raft.
    pub(crate) fn is_the_same_place_as(&self, other: &Self) -> bool {
        self.spec == other.spec
            && self.description == other.description
            && self.status == other.status
            && self.role == other.role
    }

    /// Where other nodes send its part of the cluster's networks; none while it has not said.
    #[must_use]
    pub fn data_address(&self) -> Option<std::net::IpAddr> {
        self.description.as_ref()?.data_address
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    pub name: String,
    pub labels: Labels,
    pub role: NodeRole,
    pub availability: Availability,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    #[default]
    Worker,
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    #[default]
    Active,
    /// Keeps its tasks, gets no new ones.
    Pause,
    /// Its tasks are shut down and placed elsewhere.
    Drain,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDescription {
    pub hostname: String,
    pub platform: Platform,
    pub resources: Resources,
    pub engine: EngineDescription,
    /// Its address in the data plane: where VXLAN datagrams for it go.
    pub data_address: Option<std::net::IpAddr>,
    /// Whether its kernel can run encrypted networks (XFRM ESP).
    pub encryption: bool,
    /// The generation of the data key that it has sent half of all that the kernel sends by one association with: managers make the
    /// next key before its time.
    pub worn_key: Option<u64>,
    /// None of a node that has not told it: a root rotation waits for it.
    pub tls: Option<NodeTls>,
}

/// Which authority signed a node's certificate, and which roots the node trusts: what a root rotation waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeTls {
    /// From the certificate that it last connected with.
    pub issuer: CaKeyId,
    /// By its own word.
    pub roots: BTreeSet<CaKeyId>,
}

/// The subject key identifier of an authority's certificate: the same in its self-signed and its cross-signed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CaKeyId(pub [u8; 20]);

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineDescription {
    pub version: String,
    pub labels: Labels,
    /// Drivers by type and name: `("Network", "overlay")`, `("Volume", "local")`, `("Log", "json-file")`.
    pub plugins: BTreeSet<(String, String)>,
}

/// An empty field is any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `x86_64` and `amd64` are the same, as are `aarch64` and `arm64`.
    pub architecture: String,
    pub os: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub state: NodeState,
    pub message: String,
    /// Where its connection came from.
    pub address: String,
    /// When the state last changed.
    pub since: Timestamp,
    /// How often in a row it went down within an hour of its return: so much longer it must be there before tasks are moved to it.
    #[serde(skip_serializing_if = "is_zero")]
    pub flaps: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not registered since the leader leads.
    #[default]
    Unknown,
    /// Its heartbeats ended.
    Down,
    Ready,
    /// It said that it leaves.
    Disconnected,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    pub raft_id: u64,
    /// Where other managers and joining nodes reach it: `host:port`.
    pub address: String,
}
