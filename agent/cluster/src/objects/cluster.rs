//! The cluster's own object: one in a store.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::network::Subnet;
use super::{Driver, Labels, Meta};
use crate::id::{ClusterId, NodeId};
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    /// Set at `swarm init`, and never changed.
    pub networking: ClusterNetworking,
    pub root_ca: RootCa,
    /// Certificates of removed nodes by the node, until when they are refused.
    #[serde(default)]
    pub shut_out: BTreeMap<NodeId, Timestamp>,
    /// The key that unlocks managers, when they lock themselves.
    #[serde(default)]
    pub unlock_key: Option<SecretBytes>,
    /// Of encrypted networks, the oldest first. Only nodes with tasks on such networks are
    /// given them, and then all; [`data_keys`](crate::data_keys) says which one they send with.
    #[serde(default)]
    pub data_keys: Vec<DataKey>,
}

/// A secret of which any two nodes derive the keys between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKey {
    /// Counts up.
    pub generation: u64,
    pub made_at: Timestamp,
    /// 32 bytes.
    pub secret: SecretBytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSpec {
    /// `default`.
    pub name: String,
    pub labels: Labels,
    /// Ended tasks kept for each slot; negative is all.
    pub task_history_limit: i64,
    pub raft: RaftConfig,
    pub dispatcher: DispatcherConfig,
    pub ca: CaConfig,
    pub log_driver: Option<Driver>,
    /// Whether a restarted manager waits for the unlock key.
    pub autolock: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            labels: Labels::new(),
            task_history_limit: 5,
            raft: RaftConfig::default(),
            dispatcher: DispatcherConfig::default(),
            ca: CaConfig::default(),
            log_driver: None,
            autolock: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RaftConfig {
    /// Log entries between snapshots.
    pub snapshot_interval: u64,
    pub keep_old_snapshots: u64,
    pub log_entries_for_slow_followers: u64,
    pub election_tick: u32,
    pub heartbeat_tick: u32,
}

impl Default for RaftConfig {
    /// Docker's.
    fn default() -> Self {
        Self {
            snapshot_interval: 10_000,
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: 500,
            election_tick: 10,
            heartbeat_tick: 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DispatcherConfig {
    /// A node is down after three that were missed.
    pub heartbeat_period: Duration,
}

impl Default for DispatcherConfig {
    /// 2 s, where Docker has 5: a lost node's tasks are back within 10 s.
    fn default() -> Self {
        Self { heartbeat_period: Duration::from_secs(2) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaConfig {
    /// Of nodes' certificates; at least an hour.
    pub node_certificate_expiry: Duration,
    /// Counted up by `swarm ca --rotate`.
    pub force_rotate: u64,
}

impl Default for CaConfig {
    /// 90 days.
    fn default() -> Self {
        Self { node_certificate_expiry: Duration::from_secs(90 * 24 * 3600), force_rotate: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterNetworking {
    /// What networks without a subnet of their own get theirs from.
    pub address_pools: Vec<Subnet>,
    /// Prefix length of each.
    pub subnet_size: u8,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
}

impl Default for ClusterNetworking {
    /// Docker's: 10.0.0.0/8 in parts of /24, port 4789.
    fn default() -> Self {
        Self {
            address_pools: vec![Subnet { address: std::net::Ipv4Addr::new(10, 0, 0, 0).into(), prefix: 8 }],
            subnet_size: 24,
            data_path_port: 4789,
        }
    }
}

/// The authority that signs nodes' certificates. Certificates are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RootCa {
    pub certificate: String,
    pub key: SecretBytes,
    pub join_tokens: JoinTokens,
    /// The next root, while nodes are moved to it.
    pub rotation: Option<RootRotation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RootRotation {
    pub certificate: String,
    pub key: SecretBytes,
    /// The next root's key, signed by the present root.
    pub cross_signed: String,
}

#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

/// Without the tokens, so that no log line can have them.
impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokens")
    }
}

/// Bytes that no log line can have.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secret bytes", self.0.len())
    }
}
