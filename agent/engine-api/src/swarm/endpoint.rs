//! How a service is reached: its mode, its ports, its virtual addresses.

use serde::{Deserialize, Serialize};

use super::{is_blank, is_default};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSpec {
    /// `vip`, `dnsrr`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    #[serde(skip_serializing_if = "is_blank")]
    pub ports: Option<Vec<PortConfig>>,
}

/// A published port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `tcp`, `udp`, `sctp`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// In the container.
    #[serde(skip_serializing_if = "is_default")]
    pub target_port: u32,
    /// 0: any.
    #[serde(skip_serializing_if = "is_default")]
    pub published_port: u32,
    /// `ingress`, `host`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub publish_mode: String,
}

/// What a service was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Endpoint {
    pub spec: EndpointSpec,
    #[serde(skip_serializing_if = "is_blank")]
    pub ports: Option<Vec<PortConfig>>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "is_blank")]
    pub virtual_ips: Option<Vec<VirtualIp>>,
}

/// A service's address on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VirtualIp {
    #[serde(rename = "NetworkID", skip_serializing_if = "String::is_empty")]
    pub network_id: String,
    /// With the length of the subnet's prefix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub addr: String,
}
