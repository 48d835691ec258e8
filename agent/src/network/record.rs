//! What is remembered of a network and of a running container's sandbox, and what a network's options say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ketch_engine_api::network::{EndpointSettings, Ipam, Map, PortBinding};
use serde::{Deserialize, Serialize};

use super::firewall::{Forward, GatewayMode};
use super::ipam::{Prefix, Subnet};
use crate::error::{Error, Result};
use crate::store::Table;

pub(super) const NETWORKS: Table = Table("networks");
pub(super) const SANDBOXES: Table = Table("sandboxes");
/// The daemon's own: `instance`.
pub(super) const DAEMON: Table = Table("network-daemon");

pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
pub(super) const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
pub(super) const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
pub(super) const ENABLE_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// The drivers that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of its own.
    Bridge,
    /// The host's namespace.
    Host,
    /// Nothing but a loopback interface.
    Null,
}

impl Driver {
    /// The word in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Its driver.
    pub driver: Driver,
    /// Whether endpoints have IPv4 addresses.
    pub ipv4: bool,
    /// Whether they have IPv6 addresses.
    pub ipv6: bool,
    /// As shown.
    pub ipam: Ipam,
    /// As used.
    pub subnets: Vec<Subnet>,
    /// Those of them that the daemon chose: an endpoint can't ask for an address there.
    pub chosen: Vec<Prefix>,
    /// Without a way out.
    pub internal: bool,
    /// Kept and shown.
    pub attachable: bool,
    /// The network whose settings it took, or empty.
    pub config_from: String,
    /// Only settings for others.
    pub config_only: bool,
    /// The driver's options.
    pub options: Map,
    /// The user's labels.
    pub labels: Map,
}

impl Network {
    /// `bridge`, `host` and `none` are there always.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }

    /// Whether it is the bridge `bridge`, which has no DNS of its own, but links.
    #[must_use]
    pub fn is_default_bridge(&self) -> bool {
        self.options.get(DEFAULT_BRIDGE).is_some_and(|value| value == "true")
    }

    /// Whether containers find each other by name.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.driver == Driver::Bridge && !self.is_default_bridge()
    }

    /// The subnets' gateways of one family.
    #[must_use]
    pub fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.subnets.iter().filter(|subnet| subnet.subnet.is_ipv4() == ipv4).find_map(|subnet| subnet.gateway)
    }
}

/// What a bridge network's options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BridgeOptions {
    pub(super) name: String,
    pub(super) mtu: Option<u32>,
    pub(super) icc: bool,
    pub(super) masquerade: bool,
    pub(super) host_binding: Option<Ipv4Addr>,
    pub(super) mode_ipv4: GatewayMode,
    pub(super) mode_ipv6: GatewayMode,
    pub(super) interface_prefix: String,
}

impl BridgeOptions {
    /// Those of a network; `id` names a bridge without a name.
    ///
    /// # Errors
    /// A value that is none: dockerd's texts.
    pub(super) fn of(id: &str, options: &Map) -> Result<Self> {
        let text = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let refused = |key: &str, value: &str, why: String| {
            Error::invalid(format!("failed to parse {key} value: {value} ({why})"))
        };
        let flag = |key: &str, missing| match text(key) {
            None => Ok(missing),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(other) => {
                Err(refused(key, other, format!("strconv.ParseBool: parsing {other:?}: invalid syntax")))
            }
        };
        let mode = |key: &str| match text(key) {
            None | Some("nat") => Ok(GatewayMode::Nat),
            Some("nat-unprotected") => Ok(GatewayMode::NatUnprotected),
            Some("routed") => Ok(GatewayMode::Routed),
            Some("isolated") => Ok(GatewayMode::Isolated),
            Some(other) => Err(refused(key, other, format!("unknown gateway mode {other}"))),
        };
        let mtu = match text(MTU) {
            None => None,
            Some(value) => match value.parse::<i64>() {
                Ok(mtu) if mtu < 0 => {
                    return Err(refused(MTU, value, "must be greater than or equal to zero".to_owned()));
                }
                Ok(mtu) => u32::try_from(mtu).ok().filter(|mtu| *mtu != 0),
                Err(_) => {
                    let why = format!("strconv.Atoi: parsing {value:?}: invalid syntax");
                    return Err(refused(MTU, value, why));
                }
            },
        };
        let host_binding = match text(HOST_BINDING) {
            None => None,
            Some(value) => Some(
                value.parse().map_err(|_| refused(HOST_BINDING, value, "invalid ip address".to_owned()))?,
            ),
        };
        let name = text(BRIDGE_NAME).map_or_else(|| format!("br-{}", &id[..12.min(id.len())]), str::to_owned);
        if name.len() > 15 || name.contains(['/', ' ', ':']) || name == "." || name == ".." {
            return Err(refused(BRIDGE_NAME, &name, "invalid interface name".to_owned()));
        }
        Ok(Self {
            name,
            mtu,
            icc: flag(ENABLE_ICC, true)?,
            masquerade: flag(ENABLE_MASQUERADE, true)?,
            host_binding,
            mode_ipv4: mode(GATEWAY_MODE_4)?,
            mode_ipv6: mode(GATEWAY_MODE_6)?,
            interface_prefix: text(INTERFACE_PREFIX).unwrap_or("eth").to_owned(),
        })
    }
}

/// What a running container has of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sandbox {
    /// 64 hexadecimal digits.
    pub(super) id: String,
    pub(super) container: String,
    /// The container's name, without a slash.
    pub(super) name: String,
    pub(super) hostname: String,
    pub(super) domain: String,
    /// The file of its namespace; `None`: the host's.
    pub(super) namespace: Option<PathBuf>,
    /// Where its files are.
    pub(super) folder: PathBuf,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) published: Vec<Published>,
    /// `port/protocol`.
    pub(super) exposed: BTreeSet<String>,
    /// What was asked for, as `port/protocol`.
    pub(super) bindings: BTreeMap<String, Vec<PortBinding>>,
    /// Further lines of its hosts file: address and names.
    pub(super) hosts: Vec<(String, String)>,
    pub(super) resolver: Resolver,
}

/// Where a container's names are looked up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Resolver {
    pub(super) servers: Vec<String>,
    pub(super) search: Vec<String>,
    pub(super) options: Vec<String>,
}

/// A container in a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// 64 hexadecimal digits.
    pub(super) id: String,
    /// The network's id.
    pub(super) network: String,
    /// The host's end of the pair; empty in a network without bridge.
    pub(super) link: String,
    /// The container's end.
    pub(super) interface: String,
    pub(super) mac: String,
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) ipv6: Option<Ipv6Addr>,
    /// What was asked for.
    pub(super) asked: EndpointSettings,
    /// What the embedded server answers to.
    pub(super) names: Vec<String>,
    /// Names of others that only this one sees: alias, container's id or name.
    pub(super) links: Vec<(String, String)>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    /// The container's, as `80/tcp`.
    pub(super) port: String,
    pub(super) forward: Forward,
}
