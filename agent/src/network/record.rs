//! What is remembered of a network and of a running container's sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ketch_engine_api::network::{EndpointSettings, Ipam, Map, PortBinding};
use serde::{Deserialize, Serialize};

use super::firewall::{Forward, OwnedPort};
use super::ipam::{Prefix, Subnet};
use super::link::mac_from;
use super::options::DEFAULT_BRIDGE;
use super::resolver::Resolver;
use crate::store::Table;

pub(super) const NETWORKS: Table = Table("networks");
/// The daemon's own: `instance`.
pub(super) const DAEMON: Table = Table("network-daemon");
/// What it has the host do: `forwarding`.
pub(super) const HOST: Table = Table("network-host");

/// The drivers that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of its own.
    Bridge,
    /// Containers have interfaces with addresses of their own on one of the host's.
    Macvlan,
    /// The same, with the host's interface's Ethernet address.
    Ipvlan,
    /// Spans the cluster.
    Overlay,
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
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Overlay => "overlay",
            Self::Host => "host",
            Self::Null => "null",
        }
    }

    /// Whether containers get interfaces and addresses in its networks.
    #[must_use]
    pub fn has_addresses(self) -> bool {
        matches!(self, Self::Bridge | Self::Macvlan | Self::Ipvlan | Self::Overlay)
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
    /// The bridge, or the parent of its containers' interfaces, is made for the network, and goes with it.
    #[serde(default)]
    pub made_link: bool,
    /// The driver's options.
    pub options: Map,
    /// The user's labels.
    pub labels: Map,
    /// Of one that spans the cluster.
    #[serde(default)]
    pub spanned: Option<Spanned>,
}

/// What a network that spans the cluster has on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spanned {
    /// In bytes.
    pub mtu: u32,
    /// It is the routing mesh's.
    pub ingress: bool,
    /// Why it is not served here: nothing can be attached.
    pub refusal: Option<String>,
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

    /// Whether the cluster decides of it.
    #[must_use]
    pub fn is_overlay(&self) -> bool {
        self.driver == Driver::Overlay
    }

    /// Whose it is: `local`, this node's; `swarm`, the cluster's.
    #[must_use]
    pub fn scope(&self) -> &'static str {
        if self.is_overlay() { "swarm" } else { "local" }
    }

    /// Whether containers find each other by name.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.driver.has_addresses() && !self.is_default_bridge()
    }

    /// The subnets' gateways of one family.
    #[must_use]
    pub fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.subnets.iter().filter(|subnet| subnet.subnet.is_ipv4() == ipv4).find_map(|subnet| subnet.gateway)
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
    /// What was last written to its resolv.conf: whoever has changed that since keeps it.
    #[serde(default)]
    pub(super) resolv_conf: String,
    /// Of one that is a task of a service.
    #[serde(default)]
    pub(super) service: Option<OfService>,
    /// There are rules in its namespace of who may come in, or may be.
    #[serde(default)]
    pub(super) is_closed: bool,
}

/// What a task's sandbox knows of its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfService {
    /// The task's id.
    pub task: String,
    /// The service's when it was last told of, as far as networks read them; those that managers tell now go before them.
    pub labels: BTreeMap<String, String>,
}

impl Sandbox {
    /// The cluster's tasks that are its places in networks.
    pub(super) fn places(&self) -> impl Iterator<Item = &String> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.place.as_ref())
    }

    /// Whether it has an address of IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.ipv6.is_some())
    }
}

/// A container in a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// 64 hexadecimal digits.
    pub(super) id: String,
    /// The network's id.
    pub(super) network: String,
    /// The host's end of the pair; empty where there is none.
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
    /// The namespace that the other end of the pair is in; `None`: the host's.
    #[serde(default)]
    pub(super) space: Option<PathBuf>,
    #[serde(default)]
    pub(super) role: Role,
    /// Of a container that is no task, in a network of the cluster: the task that is its place there.
    #[serde(default)]
    pub(super) place: Option<String>,
}

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// The container is in the network.
    #[default]
    Member,
    /// The way out of a container of overlay networks, which have none: nobody has asked for it, and nobody is shown it.
    WayOut,
}

impl Endpoint {
    /// Its port of a bridge, and what may be said by it; `None`: it has none.
    pub(super) fn port(&self) -> Option<OwnedPort> {
        let mac = mac_from(&self.mac).filter(|_| !self.link.is_empty())?;
        Some(OwnedPort { link: self.link.clone(), mac, addresses: self.addresses() })
    }

    /// Of both families.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)].into_iter().flatten().collect()
    }
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    /// The container's, as `80/tcp`.
    pub(super) port: String,
    pub(super) forward: Forward,
}
