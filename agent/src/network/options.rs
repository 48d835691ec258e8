//! What a network's options say, by its driver. The errors are dockerd's texts.

use std::net::{IpAddr, Ipv4Addr};

use ketch_engine_api::network::Map;

use super::firewall::GatewayMode;
use super::record::{Driver, Network};
use crate::error::{Error, Kind, Result};

pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
pub(super) const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
pub(super) const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
pub(super) const ENABLE_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
const TRUSTED_INTERFACES: &str = "com.docker.network.bridge.trusted_host_interfaces";
const HOST_IPV4: &str = "com.docker.network.host_ipv4";
const HOST_IPV6: &str = "com.docker.network.host_ipv6";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const PARENT: &str = "parent";

/// Of a bridge network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BridgeOptions {
    pub(super) name: String,
    pub(super) mtu: Option<u32>,
    pub(super) icc: bool,
    pub(super) masquerade: bool,
    pub(super) host_binding: Option<Ipv4Addr>,
    pub(super) mode_ipv4: GatewayMode,
    pub(super) mode_ipv6: GatewayMode,
    /// The bridge gets no IPv4 address.
    pub(super) without_ipv4: bool,
    /// Interfaces of the host by which published ports are reached at containers' own addresses.
    pub(super) trusted: Vec<String>,
    /// What goes out gets these addresses; none: that of the interface by which it goes.
    pub(super) sources: Vec<IpAddr>,
    pub(super) interface_prefix: String,
}

fn text<'a>(options: &'a Map, key: &str) -> Option<&'a str> {
    options.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

fn refused(key: &str, value: &str, why: &str) -> Error {
    Error::invalid(format!("failed to parse {key} value: {value} ({why})"))
}

fn flag(options: &Map, key: &str, missing: bool) -> Result<bool> {
    match text(options, key) {
        None => Ok(missing),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(other) => {
            Err(refused(key, other, &format!("strconv.ParseBool: parsing {other:?}: invalid syntax")))
        }
    }
}

fn mtu(options: &Map) -> Result<Option<u32>> {
    let Some(value) = text(options, MTU) else { return Ok(None) };
    match value.parse::<i64>() {
        Ok(mtu) if mtu < 0 => Err(refused(MTU, value, "must be greater than or equal to zero")),
        Ok(mtu) => Ok(u32::try_from(mtu).ok().filter(|mtu| *mtu != 0)),
        Err(_) => Err(refused(MTU, value, &format!("strconv.Atoi: parsing {value:?}: invalid syntax"))),
    }
}

fn mode(options: &Map, key: &str) -> Result<GatewayMode> {
    match text(options, key) {
        None | Some("nat") => Ok(GatewayMode::Nat),
        Some("nat-unprotected") => Ok(GatewayMode::NatUnprotected),
        Some("routed") => Ok(GatewayMode::Routed),
        Some("isolated") => Ok(GatewayMode::Isolated),
        Some(other) => Err(refused(key, other, &format!("unknown gateway mode {other}"))),
    }
}

/// An address of one family.
fn address(options: &Map, key: &str, ipv4: bool) -> Result<Option<IpAddr>> {
    let Some(value) = text(options, key) else { return Ok(None) };
    match value.parse::<IpAddr>() {
        Ok(address) if address.is_ipv4() == ipv4 => Ok(Some(address)),
        _ => Err(refused(key, value, "nil ip")),
    }
}

impl BridgeOptions {
    /// Those of a network; `id` names a bridge without a name.
    ///
    /// # Errors
    /// A value that is none.
    pub(super) fn of(id: &str, options: &Map) -> Result<Self> {
        let name = text(options, BRIDGE_NAME)
            .map_or_else(|| format!("br-{}", &id[..12.min(id.len())]), str::to_owned);
        if name.len() > 15 {
            return Err(Error::new(Kind::Internal, "numerical result out of range"));
        }
        if name.contains(['/', ' ', ':']) || name == "." || name == ".." {
            return Err(refused(BRIDGE_NAME, &name, "invalid interface name"));
        }
        let host_binding = match address(options, HOST_BINDING, true)? {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let sources = [address(options, HOST_IPV4, true)?, address(options, HOST_IPV6, false)?];
        let trusted = text(options, TRUSTED_INTERFACES).unwrap_or_default().split(':');
        Ok(Self {
            name,
            mtu: mtu(options)?,
            icc: flag(options, ENABLE_ICC, true)?,
            masquerade: flag(options, ENABLE_MASQUERADE, true)?,
            host_binding,
            mode_ipv4: mode(options, GATEWAY_MODE_4)?,
            mode_ipv6: mode(options, GATEWAY_MODE_6)?,
            without_ipv4: flag(options, INHIBIT_IPV4, false)?,
            trusted: trusted.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            sources: sources.into_iter().flatten().collect(),
            interface_prefix: text(options, INTERFACE_PREFIX).unwrap_or("eth").to_owned(),
        })
    }

    /// Of a family.
    pub(super) fn mode(&self, ipv4: bool) -> GatewayMode {
        if ipv4 { self.mode_ipv4 } else { self.mode_ipv6 }
    }
}

/// Of a network whose interfaces hang on one of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParentOptions {
    /// The host's interface; one of the network's own when none is named.
    pub(super) parent: String,
    pub(super) mtu: Option<u32>,
    pub(super) kind: Child,
}

/// How frames go between the parent and its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    /// The kernel's mode (if_link.h).
    Macvlan { mode: u32 },
    /// The kernel's mode and flags.
    Ipvlan { mode: u16, flags: u16 },
}

impl Child {
    /// Whether containers see a network that has no neighbours: the host routes by addresses.
    pub(super) fn is_routed(self) -> bool {
        matches!(self, Self::Ipvlan { mode: 1 | 2, .. })
    }
}

impl ParentOptions {
    /// Those of a network of such a driver.
    ///
    /// # Errors
    /// A mode that is none.
    pub(super) fn of(network: &Network) -> Result<Self> {
        let options = &network.options;
        let (prefix, kind) = match network.driver {
            Driver::Ipvlan => ("di-", ipvlan(options)?),
            _ => ("dm-", macvlan(options)?),
        };
        let own = || format!("{prefix}{}", &network.id[..12.min(network.id.len())]);
        let parent = text(options, PARENT).filter(|_| !network.internal);
        Ok(Self { parent: parent.map_or_else(own, str::to_owned), mtu: mtu(options)?, kind })
    }
}

fn macvlan(options: &Map) -> Result<Child> {
    let mode = match text(options, "macvlan_mode") {
        None | Some("bridge") => 4,
        Some("private") => 1,
        Some("vepa") => 2,
        Some("passthru") => 8,
        Some(other) => {
            return Err(Error::invalid(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
            )));
        }
    };
    Ok(Child::Macvlan { mode })
}

fn ipvlan(options: &Map) -> Result<Child> {
    let mode = match text(options, "ipvlan_mode") {
        None | Some("l2") => 0,
        Some("l3") => 1,
        Some("l3s") => 2,
        Some(other) => {
            return Err(Error::invalid(format!(
                "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default"
            )));
        }
    };
    let flags = match text(options, "ipvlan_flag") {
        None | Some("bridge") => 0,
        Some("private") => 1,
        Some("vepa") => 2,
        Some(other) => {
            return Err(Error::invalid(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
            )));
        }
    };
    Ok(Child::Ipvlan { mode, flags })
}
