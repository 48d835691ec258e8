//! What a network has on the host: a bridge with its addresses, or the parent of its containers' interfaces.

use super::firewall::{Families, GatewayMode};
use super::ipam::Prefix;
use super::link::{Links, Mac};
use super::options::{BridgeOptions, ParentOptions};
use super::record::{Driver, Network};
use super::{refused, set};
use crate::error::{Error, Kind, Result};

/// The options of a network that has a bridge. They have been checked when it was made.
pub(super) fn bridge_of(network: &Network) -> Option<BridgeOptions> {
    (network.driver == Driver::Bridge && !network.config_only)
        .then(|| BridgeOptions::of(&network.id, &network.options).ok())?
}

fn parent_of(network: &Network) -> Option<ParentOptions> {
    (matches!(network.driver, Driver::Macvlan | Driver::Ipvlan) && !network.config_only)
        .then(|| ParentOptions::of(network).ok())?
}

/// Looks whether it is there already: then it stays when the network goes.
///
/// # Errors
/// The kernel's; what is there can't be that: dockerd's texts.
pub(super) fn look(network: &mut Network) -> Result<()> {
    let bridge = bridge_of(network).map(|options| options.name);
    let name = bridge.clone().or_else(|| parent_of(network).map(|options| options.parent));
    let Some(name) = name else { return Ok(()) };
    if bridge.is_none() && name == "lo" {
        let driver = network.driver.name();
        let message = format!("loopback interface is not a valid {driver} parent link");
        return Err(Error::new(Kind::Internal, message));
    }
    let mut links = Links::open().map_err(|error| refused(&error))?;
    let found = links.kind(&name).map_err(|error| refused(&error))?;
    network.made_link = found.is_none();
    match found {
        Some(kind) if bridge.is_some() && kind != "bridge" => Err(no_bridge(&name)),
        _ => Ok(()),
    }
}

/// Makes it, up. What is there is made to be so. `families`: what rules are written for.
///
/// # Errors
/// The kernel's; a parent that is none, in dockerd's texts.
pub(super) fn make(network: &Network, families: Families) -> Result<()> {
    let mut links = Links::open().map_err(|error| refused(&error))?;
    if let Some(options) = bridge_of(network) {
        return make_bridge(&mut links, network, (&options, families));
    }
    match parent_of(network) {
        Some(options) => make_parent(&mut links, network, &options.parent),
        None => Ok(()),
    }
}

/// Removes it; what was there before the network stays, and what is not there is well.
///
/// # Errors
/// The kernel's.
pub(super) fn remove(network: &Network) -> Result<()> {
    let bridge = bridge_of(network).map(|options| options.name);
    let name = bridge.or_else(|| parent_of(network).map(|options| options.parent));
    let Some(name) = name.filter(|_| network.made_link) else { return Ok(()) };
    let mut links = Links::open().map_err(|error| refused(&error))?;
    links.remove(&name).map_err(|error| refused(&error))
}

fn no_bridge(name: &str) -> Error {
    Error::new(Kind::Internal, format!("existing interface {name} is not a bridge"))
}

fn make_bridge(
    links: &mut Links,
    network: &Network,
    (options, families): (&BridgeOptions, Families),
) -> Result<()> {
    let found = links.kind(&options.name).map_err(|error| refused(&error))?;
    if found.is_some_and(|kind| kind != "bridge") {
        return Err(no_bridge(&options.name));
    }
    let made = links.bridge(&options.name, mac()?, options.mtu.unwrap_or(1500));
    let index = made.map_err(|error| refused(&error))?;
    let path = |family: &str, file: &str| format!("/proc/sys/net/{family}/conf/{}/{file}", options.name);
    // Published ports of loopback addresses: the packets leave by the bridge with such a source. Without our rules it would let
    // containers reach the host's own services there (CVE-2020-8558): a bridge of before may have it.
    let localnet = path("ipv4", "route_localnet");
    if families.ipv4 {
        set(&localnet, "1")?;
    } else if network.made_link && std::fs::read(&localnet).is_ok_and(|value| value.starts_with(b"1")) {
        set(&localnet, "0")?;
    }
    if network.ipv6 {
        set(&path("ipv6", "disable_ipv6"), "0")?;
        set(&path("ipv6", "accept_ra"), "0")?;
    }
    let is_without = |ipv4: bool| {
        (network.internal && options.mode(ipv4) == GatewayMode::Isolated) || (ipv4 && options.without_ipv4)
    };
    for subnet in &network.subnets {
        let Some(address) = subnet.host.or(subnet.gateway).filter(|address| !is_without(address.is_ipv4()))
        else {
            continue;
        };
        if let Some(address) = Prefix::new(address, subnet.subnet.length()) {
            links.address(index, address).map_err(|error| refused(&error))?;
        }
    }
    Ok(())
}

fn make_parent(links: &mut Links, network: &Network, parent: &str) -> Result<()> {
    let as_given = |error: super::netlink::NetlinkError| Error::new(Kind::Internal, error.words());
    if links.index(parent).map_err(|error| refused(&error))?.is_some() {
        return Ok(());
    }
    if network.internal || network.options.get("parent").is_none_or(String::is_empty) {
        links.dummy(parent).map_err(as_given)?;
    } else {
        let unknown = || {
            let message = format!("invalid subinterface vlan name {parent}, example formatting is eth0.10");
            Error::new(Kind::Internal, message)
        };
        let (below, number) = parent.rsplit_once('.').ok_or_else(unknown)?;
        let number = number.parse().ok().filter(|number| (1..=4094).contains(number)).ok_or_else(unknown)?;
        let below_index = links.index(below).map_err(|error| refused(&error))?.ok_or_else(|| {
            Error::new(Kind::Internal, format!("-o parent interface was not found on the host: {below}"))
        })?;
        links.vlan(parent, below_index, number).map_err(|error| {
            let message = format!("failed to create {parent} vlan link: {}", error.words());
            Error::new(Kind::Internal, message)
        })?;
    }
    Ok(())
}

/// One of its own: a bridge without one takes that of a port, and changes it with its ports.
pub(super) fn mac() -> Result<Mac> {
    let mut mac = [0; 6];
    crate::random::fill(&mut mac)?;
    mac[0] = (mac[0] & 0xfc) | 2;
    Ok(mac)
}
