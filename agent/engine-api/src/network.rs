//! Networks and what containers have of them: `/networks`, and the `NetworkSettings` of a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Strings by name.
pub type Map = BTreeMap<String, String>;

/// A network as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// The name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// Whether endpoints have IPv4 addresses.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether they have IPv6 addresses.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its subnets.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Without a way out.
    pub internal: bool,
    /// Of swarm networks: whether containers may attach.
    pub attachable: bool,
    /// Of swarm: the routing mesh.
    pub ingress: bool,
    /// The network whose settings it took.
    pub config_from: ConfigReference,
    /// Only settings for others.
    pub config_only: bool,
    /// The running containers' endpoints, by container.
    pub containers: BTreeMap<String, NetworkEndpoint>,
    /// The driver's options.
    pub options: Map,
    /// The user's labels.
    pub labels: Map,
}

/// The address management of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// `default`.
    pub driver: String,
    /// Its options, as they were given.
    pub options: Option<Map>,
    /// The subnets.
    pub config: Option<Vec<IpamConfig>>,
}

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// As `172.18.0.0/16`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// The part that addresses are given out of.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// The host's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses that are never given out, by name.
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "Option::is_none")]
    pub auxiliary_addresses: Option<Map>,
}

/// A network by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    /// The name.
    pub network: String,
}

/// A container in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkEndpoint {
    /// The container's name.
    pub name: String,
    /// The endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// With colons.
    pub mac_address: String,
    /// With the subnet's length; empty for none.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// The same.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// The body of `POST /networks/create`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreateRequest {
    /// The name.
    pub name: String,
    /// Empty: `bridge`.
    pub driver: Option<String>,
    /// Empty: `local`.
    pub scope: Option<String>,
    /// Missing: yes.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    /// Missing: no.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    /// Missing: a subnet of the daemon's pools.
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    /// Without a way out.
    pub internal: bool,
    /// Kept and shown.
    pub attachable: bool,
    /// Of swarm.
    pub ingress: bool,
    /// Only settings for others.
    pub config_only: bool,
    /// Take another's settings.
    pub config_from: Option<ConfigReference>,
    /// The driver's.
    pub options: Option<Map>,
    /// The user's.
    pub labels: Option<Map>,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkCreateResponse {
    /// Of the new network.
    pub id: String,
    /// Empty.
    pub warning: String,
}

/// The body of `POST /networks/{}/connect`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkConnectRequest {
    /// Name or id.
    pub container: String,
    /// As which endpoint.
    pub endpoint_config: Option<EndpointSettings>,
}

/// The body of `POST /networks/{}/disconnect`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkDisconnectRequest {
    /// Name or id.
    pub container: String,
    /// Even when the container is not there.
    pub force: bool,
}

/// The answer to `POST /networks/prune`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworksPruneResponse {
    /// Names; `null` for none.
    pub networks_deleted: Option<Vec<String>>,
}

/// An endpoint: what the user asked for, and, of a running container, what it got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSettings {
    /// Addresses that were asked for.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpamConfig>,
    /// `container:alias`.
    pub links: Option<Vec<String>>,
    /// Names in this network.
    pub aliases: Option<Vec<String>>,
    /// With colons.
    pub mac_address: String,
    /// The driver's options.
    pub driver_opts: Option<Map>,
    /// Whose gateway is the container's: the highest.
    pub gw_priority: i64,
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Empty while the container does not run.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// The network's.
    pub gateway: String,
    /// The container's.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Its subnet's.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// The network's.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// The container's.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Its subnet's.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// What the embedded server answers to; `null` in the default networks.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// Addresses that a user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointIpamConfig {
    /// Empty: any.
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// Empty: any.
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Further ones, out of 169.254/16 and fe80::/10.
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Option::is_none")]
    pub link_local_ips: Option<Vec<String>>,
}

/// Where a container's port is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Empty in a request: every address.
    #[serde(rename = "HostIp")]
    pub host_ip: String,
    /// Empty in a request: any free one; `low-high`: any of these.
    pub host_port: String,
}

/// Ports by `port/protocol`; `null` for one that is exposed and not published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// The network part of a container's inspection, with the fields that version 1.52 took away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Empty.
    pub bridge: String,
    /// Of a running container.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// The file of its namespace.
    pub sandbox_key: String,
    /// What is published, and exposed.
    pub ports: PortMap,
    /// False.
    pub hairpin_mode: bool,
    /// Empty.
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    /// 0.
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u8,
    /// `null`.
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<String>>,
    /// `null`.
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<String>>,
    /// The rest: of the network `bridge`.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// The same.
    pub gateway: String,
    /// The same.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// The same.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// The same.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// The same.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// The same.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// The same.
    pub mac_address: String,
    /// The endpoints by the network's name.
    pub networks: BTreeMap<String, EndpointSettings>,
}

impl NetworkSettings {
    /// These endpoints, and the fields that are copied from the one named `bridge`.
    #[must_use]
    pub fn with(networks: BTreeMap<String, EndpointSettings>) -> Self {
        let bridge = networks.get("bridge").cloned().unwrap_or_default();
        Self {
            endpoint_id: bridge.endpoint_id,
            gateway: bridge.gateway,
            global_ipv6_address: bridge.global_ipv6_address,
            global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
            ip_address: bridge.ip_address,
            ip_prefix_len: bridge.ip_prefix_len,
            ipv6_gateway: bridge.ipv6_gateway,
            mac_address: bridge.mac_address,
            networks,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_was_not_started_looks_as_dockerd_shows_it() {
        let settings =
            NetworkSettings::with(BTreeMap::from([("bridge".to_owned(), EndpointSettings::default())]));
        assert_eq!(
            serde_json::to_string(&settings).unwrap(),
            r#"{"Bridge":"","SandboxID":"","SandboxKey":"","Ports":{},"HairpinMode":false,"LinkLocalIPv6Address":"","LinkLocalIPv6PrefixLen":0,"SecondaryIPAddresses":null,"SecondaryIPv6Addresses":null,"EndpointID":"","Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","MacAddress":"","Networks":{"bridge":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}}"#
        );
    }
}
