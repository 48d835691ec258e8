//! Overlay networks and what is attached to them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Driver, Labels, Meta};
use crate::id::NetworkId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// What the allocator has given out; none until it has.
    pub allocation: Option<NetworkAllocation>,
    /// To be removed once the last task that uses it is gone: `docker stack rm` deletes networks right after services.
    #[serde(default)]
    pub pending_delete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Labels,
    /// `overlay` when its name is empty; `bridge`, `host`, `macvlan` and others are of each node (a predefined network).
    pub driver: Driver,
    pub ipv6: bool,
    pub internal: bool,
    /// Whether plain containers may join.
    pub attachable: bool,
    /// The network of the routing mesh: one in a cluster.
    pub ingress: bool,
    pub ipam_driver: Driver,
    pub ipam: Vec<IpamConfig>,
    /// `--config-from`: the local network that has the configuration on each node.
    pub config_from: Option<String>,
}

impl Network {
    /// Whether it is the network of the routing mesh: one that is about to go no longer is.
    #[must_use]
    pub fn is_ingress(&self) -> bool {
        self.spec.ingress && !self.pending_delete
    }
}

impl NetworkSpec {
    /// Whether it spans the cluster and gets its addresses here; all others are of each node.
    #[must_use]
    pub fn is_overlay(&self) -> bool {
        self.driver_name() == "overlay"
    }

    /// Whether its datagrams may only travel encrypted: `--opt encrypted`, whatever its value.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.driver.options.contains_key("encrypted")
    }

    /// The driver that a node must have.
    #[must_use]
    pub fn driver_name(&self) -> &str {
        if self.driver.name.is_empty() { "overlay" } else { &self.driver.name }
    }
}

/// A pool of addresses as the user gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamConfig {
    /// `10.1.0.0/24`.
    pub subnet: Option<Subnet>,
    /// The part of the subnet from which addresses are given.
    pub range: Option<Subnet>,
    pub gateway: Option<IpAddr>,
    /// Addresses that are never given, by name.
    pub reserved: std::collections::BTreeMap<String, IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkAllocation {
    /// The identifier of the VXLAN: from 4096 to 2^24 - 1 by the allocator, from 1 if the user asked for it. Only overlays
    /// are given any.
    pub vni: Option<u32>,
    /// At most one pool of each address family.
    pub pools: Vec<IpamConfig>,
}

/// A task's or a node's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    pub network: NetworkId,
    /// One for each address family that the network has; empty for a predefined network of the node.
    pub addresses: Vec<Subnet>,
    #[serde(default)]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub driver_options: Labels,
}

/// An address with the length of its network's prefix: `10.0.1.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    pub address: IpAddr,
    pub prefix: u8,
}

/// The text is no address with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix, such as 10.1.0.0/24")]
pub struct SubnetError(pub String);

impl Subnet {
    /// The bits of an address of this family.
    #[must_use]
    pub fn bits(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The number of its first address: the prefix, and nothing but zeros after it.
    #[must_use]
    pub fn first(self) -> u128 {
        number_of(self.address) & !self.host_mask()
    }

    /// The number of its last address.
    #[must_use]
    pub fn last(self) -> u128 {
        number_of(self.address) | self.host_mask()
    }

    /// Whether `address` is of this network.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (self.first()..=self.last()).contains(&number_of(address))
    }

    /// Whether some address is of both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.first() <= other.last()
            && other.first() <= self.last()
    }

    /// The address of this number in the family of this subnet.
    #[must_use]
    pub fn address_at(self, number: u128) -> IpAddr {
        if self.address.is_ipv4() {
            IpAddr::from(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes())
        } else {
            IpAddr::from(number.to_be_bytes())
        }
    }

    fn host_mask(self) -> u128 {
        let host_bits = u32::from(self.bits() - self.prefix);
        1_u128.checked_shl(host_bits).map_or(u128::MAX, |end| end - 1)
    }
}

/// An address as a number.
#[must_use]
pub fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let subnet = Self {
            address: address.parse().map_err(|_| wrong())?,
            prefix: prefix.parse().map_err(|_| wrong())?,
        };
        if subnet.prefix > subnet.bits() { Err(wrong()) } else { Ok(subnet) }
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn the_ends_of_a_subnet() {
        let v4 = subnet("10.1.2.3/24");
        assert_eq!(v4.address_at(v4.first()).to_string(), "10.1.2.0");
        assert_eq!(v4.address_at(v4.last()).to_string(), "10.1.2.255");
        let v6 = subnet("fd00::5/64");
        assert_eq!(v6.address_at(v6.last()).to_string(), "fd00::ffff:ffff:ffff:ffff");
        assert_eq!(subnet("::/0").last(), u128::MAX);
        assert_eq!(subnet("0.0.0.0/0").last(), u128::from(u32::MAX));
        assert_eq!(subnet("10.0.0.1/32").first(), subnet("10.0.0.1/32").last());
    }

    #[test]
    fn families_never_overlap() {
        assert!(!subnet("::/0").overlaps(subnet("0.0.0.0/0")));
        assert!(!subnet("::/0").contains("1.2.3.4".parse().unwrap()));
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.9.0.0/16")));
        assert!(!subnet("10.0.0.0/16").overlaps(subnet("10.1.0.0/16")));
    }

    #[test]
    fn what_is_no_subnet_is_refused_by_name() {
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "/8", "10.0.0.0/"] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError(text.to_owned())));
        }
    }
}
