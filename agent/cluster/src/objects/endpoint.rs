//! How a service is reached: its mode, its published ports, its virtual addresses.

use serde::{Deserialize, Serialize};

use super::network::Subnet;
use crate::id::NetworkId;

/// What the user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    pub mode: ResolutionMode,
    pub ports: Vec<PortConfig>,
}

/// What a service's name resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolutionMode {
    /// One virtual address on each network, balanced over the tasks.
    #[default]
    Vip,
    /// The addresses of all tasks.
    DnsRr,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortConfig {
    #[serde(default)]
    pub name: String,
    pub protocol: Protocol,
    pub target_port: u16,
    /// Zero in a spec: the allocator (ingress) or the node (host) chooses.
    #[serde(default)]
    pub published_port: u16,
    #[serde(default)]
    pub publish_mode: PublishMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node, by the routing mesh.
    #[default]
    Ingress,
    /// On the node of the task alone, to that task.
    Host,
}

/// What the allocator has given out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The spec that this is of: when the service's differs, the allocator has work to do.
    pub spec: EndpointSpec,
    pub ports: Vec<PortConfig>,
    pub virtual_ips: Vec<VirtualIp>,
}

/// A service's addresses on one network, one for each address family that the network has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIp {
    pub network: NetworkId,
    pub addresses: Vec<Subnet>,
}
