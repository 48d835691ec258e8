//! The cluster itself: `/swarm`, and the part of `/info` about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Driver, Map, Meta, TlsInfo, is_blank, is_blank_map, is_default};

/// What `GET /swarm` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Swarm {
    #[serde(flatten)]
    pub info: ClusterInfo,
    pub join_tokens: JoinTokens,
}

/// The cluster without its secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ClusterInfo {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: ClusterSpec,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    pub root_rotation_in_progress: bool,
    pub default_addr_pool: Option<Vec<String>>,
    /// Prefix length of the subnets that are cut from the pools.
    pub subnet_size: u32,
    /// Of VXLAN.
    pub data_path_port: u32,
}

/// What a node joins with.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

/// Without the tokens.
impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokens").finish_non_exhaustive()
    }
}

/// The settings of a cluster: the body of `POST /swarm/update`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ClusterSpec {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Shown as `{}` when there are none.
    pub labels: Option<Map>,
    pub orchestration: OrchestrationConfig,
    pub raft: RaftConfig,
    pub dispatcher: DispatcherConfig,
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    pub task_defaults: TaskDefaults,
    pub encryption_config: EncryptionConfig,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OrchestrationConfig {
    /// Negative: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RaftConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub snapshot_interval: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_old_snapshots: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub log_entries_for_slow_followers: u64,
    pub election_tick: i64,
    pub heartbeat_tick: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DispatcherConfig {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub heartbeat_period: i64,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CaConfig {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub node_cert_expiry: i64,
    #[serde(rename = "ExternalCAs", skip_serializing_if = "is_blank")]
    pub external_cas: Option<Vec<ExternalCa>>,
    /// PEM; never shown.
    #[serde(rename = "SigningCACert", skip_serializing_if = "String::is_empty")]
    pub signing_ca_cert: String,
    /// PEM; never shown.
    #[serde(rename = "SigningCAKey", skip_serializing_if = "String::is_empty")]
    pub signing_ca_key: String,
    #[serde(skip_serializing_if = "is_default")]
    pub force_rotate: u64,
}

/// Without the key.
impl fmt::Debug for CaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaConfig").field("force_rotate", &self.force_rotate).finish_non_exhaustive()
    }
}

/// A server that signs in the managers' place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExternalCa {
    /// `cfssl`.
    pub protocol: String,
    #[serde(rename = "URL")]
    pub url: String,
    #[serde(skip_serializing_if = "is_blank_map")]
    pub options: Option<Map>,
    /// PEM.
    #[serde(rename = "CACert")]
    pub ca_cert: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EncryptionConfig {
    pub auto_lock_managers: bool,
}

/// The body of `POST /swarm/init`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InitRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub data_path_port: u32,
    pub force_new_cluster: bool,
    pub spec: ClusterSpec,
    pub auto_lock_managers: bool,
    /// As of a node.
    pub availability: String,
    pub default_addr_pool: Option<Vec<String>>,
    pub subnet_size: u32,
}

/// The body of `POST /swarm/join`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub remote_addrs: Option<Vec<String>>,
    pub join_token: String,
    /// As of a node.
    pub availability: String,
}

/// Without the token.
impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("remote_addrs", &self.remote_addrs).finish_non_exhaustive()
    }
}

/// The body of `POST /swarm/unlock`, and the answer of `GET /swarm/unlockkey`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UnlockKey {
    /// `SWMKEY-1-...`; empty when managers don't lock themselves.
    pub unlock_key: String,
}

/// Without the key.
impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockKey").finish_non_exhaustive()
    }
}

/// `Swarm` of `/info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LocalInfo {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub node_addr: String,
    pub local_node_state: LocalNodeState,
    /// Whether this node is a manager that answers.
    pub control_available: bool,
    pub error: String,
    pub remote_managers: Option<Vec<Peer>>,
    #[serde(skip_serializing_if = "is_default")]
    pub nodes: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub managers: u64,
    /// Of a manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    #[serde(skip_serializing_if = "is_blank")]
    pub warnings: Option<Vec<String>>,
}

/// How this daemon stands to swarm mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalNodeState {
    /// No part of a swarm.
    #[default]
    Inactive,
    /// About to join or to start.
    Pending,
    Active,
    Error,
    /// It waits for the unlock key.
    Locked,
}

/// A manager, as nodes know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Peer {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub addr: String,
}
