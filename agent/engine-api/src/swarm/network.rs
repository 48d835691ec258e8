//! Networks of the cluster: as tasks show those that they are attached to, and as `/networks` shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Annotations, Driver, Map, Meta, Moment, is_blank, is_blank_map, is_default};
use crate::network::{ConfigReference, Ipam, NetworkEndpoint};

/// A network in a task's attachments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// The driver that it has, with what was allocated.
    pub driver_state: Driver,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<IpamOptions>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSpec {
    #[serde(flatten)]
    pub annotations: Annotations,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_configuration: Option<Driver>,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "is_default")]
    pub ipv6_enabled: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub ingress: bool,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<IpamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_from: Option<ConfigReference>,
    /// `swarm`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
}

/// The address management.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamOptions {
    pub driver: Driver,
    #[serde(skip_serializing_if = "is_blank")]
    pub configs: Option<Vec<IpamConfig>>,
}

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// A network that a service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttachmentConfig {
    /// Name or id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    #[serde(skip_serializing_if = "is_blank")]
    pub aliases: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_blank_map")]
    pub driver_opts: Option<Map>,
}

/// A network that a task has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Attachment {
    pub network: Network,
    /// With the length of the subnet's prefix.
    #[serde(skip_serializing_if = "is_blank")]
    pub addresses: Option<Vec<String>>,
}

/// A network of the cluster, as `/networks` shows it on a manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedNetwork {
    pub name: String,
    pub id: String,
    pub created: Moment,
    /// `swarm`.
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigReference,
    pub config_only: bool,
    /// This node's endpoints by container; `null` when the node does not have the network.
    pub containers: Option<BTreeMap<String, NetworkEndpoint>>,
    pub options: Option<Map>,
    pub labels: Option<Map>,
    /// The nodes that have the network, where this one does.
    #[serde(skip_serializing_if = "is_blank")]
    pub peers: Option<Vec<NetworkPeer>>,
}

/// A node that has a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkPeer {
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "IP")]
    pub ip: String,
}
