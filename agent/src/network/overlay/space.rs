//! An overlay network on this node: a network namespace with a bridge, a VXLAN device, and what is known of the others. Made to be
//! as [`super::plan`] has it, whatever is there: what is right stays as it is, and connections with it.
//!
//! The VXLAN device's socket is in the node's own namespace, where its datagrams are looked at ([`super::guard`]). Nothing in here
//! has a way to the node but by what the balancer translates.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use super::balancer;
use super::plan::{Overlay, Underlay, mac_for};
use super::sealing::{PLAIN, SEALED};
use super::vxlan::{Entries, Vxlan};
use crate::error::{Error, Kind, Result};
use crate::network::firewall::{self, OwnedPort, guard_ports, let_send};
use crate::network::ipam::Prefix;
use crate::network::link::Links;
use crate::network::{namespace, refused, set};

/// In a namespace of a network.
pub(in crate::network) const BRIDGE: &str = "br0";
/// Of the mesh's network: to the bridge of the host.
pub(super) const DOOR: &str = "door0";
const VXLAN: &str = "vxlan0";

/// Makes it. `before`: what it was made to be, and is still as far as anybody knows. `ports`: those of sandboxes that may be in it,
/// where nothing is known of before.
///
/// # Errors
/// The kernel's; what is made so far stays, and the next call goes on.
pub(super) fn make(
    path: &Path,
    underlay: &Underlay,
    (overlay, before): (&Overlay, Option<&Overlay>),
    ports: &[OwnedPort],
) -> Result<()> {
    if !namespace::is_bound(path) {
        namespace::create(path, None, || Ok(()))?;
    }
    let mut node = Links::open().map_err(|error| refused(&error))?;
    namespace::enter(path, || {
        let mut links = Links::open().map_err(|error| refused(&error))?;
        links.up(1).map_err(|error| refused(&error))?;
        if before.is_none() {
            guard_ports(VXLAN, ports).map_err(|error| refused(&error))?;
        }
        let bridge = make_bridge(&mut links, overlay)?;
        make_device(&mut node, &mut links, (underlay, overlay, bridge))?;
        set_addresses(&mut links, bridge, overlay)?;
        if overlay.own.is_empty() {
            // It leads to nobody, and whatever is inside would be led out by it.
            links.remove(DOOR).map_err(|error| refused(&error))?;
        }
        balancer::write(overlay, before)
    })
}

/// Removes it, and what sandboxes still have in it.
///
/// # Errors
/// The kernel's.
pub(super) fn remove(path: &Path) -> Result<()> {
    if namespace::is_bound(path) {
        // At once: the namespace ends in its own time, with connections that are carried there, and until then nobody else on the node
        // has this VXLAN identifier, or the door's address.
        namespace::enter(path, || {
            let mut links = Links::open().map_err(|error| refused(&error))?;
            [VXLAN, DOOR].into_iter().try_for_each(|link| links.remove(link)).map_err(|error| refused(&error))
        })?;
    }
    namespace::remove(path)
}

/// The links of a network's namespace.
///
/// # Errors
/// The network is not served here, or the kernel's.
pub(in crate::network) fn links_of(space: &Path, network: &str) -> Result<Links> {
    if !namespace::is_bound(space) {
        let message = format!("the network {network} is not on this node any more");
        return Err(Error::new(Kind::Internal, message));
    }
    namespace::enter(space, || Links::open().map_err(|error| refused(&error)))
}

/// Frames for this sandbox go to it alone, whoever else says that the address is his, and it says nothing in others' names.
pub(in crate::network) fn pin(space: &Path, links: &mut Links, port: &OwnedPort) -> Result<()> {
    links.pin(&port.link, port.mac).map_err(|error| refused(&error))?;
    namespace::enter(space, || let_send(port).map_err(|error| refused(&error)))
}

/// The port has gone, or is about to.
///
/// # Errors
/// The kernel's.
pub(in crate::network) fn forget_port(space: &Path, port: &OwnedPort) -> Result<()> {
    namespace::enter(space, || firewall::forget_port(port).map_err(|error| refused(&error)))
}

fn make_bridge(links: &mut Links, overlay: &Overlay) -> Result<u32> {
    let own: Vec<IpAddr> = overlay.own.iter().map(|own| own.address()).collect();
    // Without an address it sends nothing, and any Ethernet address that no task has will do.
    let [_, a, b, c] = overlay.vni.to_be_bytes();
    let mac = mac_for(&own).unwrap_or([0x02, 0x43, 0, a, b, c]);
    let index = links.bridge(BRIDGE, mac, overlay.mtu).map_err(|error| refused(&error))?;
    links.shape(index, (mac, overlay.mtu)).map_err(|error| refused(&error))?;
    let ipv6 = overlay.own.iter().any(|own| !own.is_ipv4());
    let settings = [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/br0/send_redirects", "0"),
        ("ipv6/conf/br0/accept_ra", "0"),
        ("ipv6/conf/br0/disable_ipv6", if ipv6 { "0" } else { "1" }),
        ("ipv6/conf/all/forwarding", "1"),
        // Frames between two tasks are nobody's business but theirs.
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
    ];
    for (file, value) in settings {
        set(&format!("/proc/sys/net/{file}"), value)?;
    }
    Ok(index)
}

fn make_device(
    node: &mut Links,
    links: &mut Links,
    (underlay, overlay, bridge): (&Underlay, &Overlay, u32),
) -> Result<()> {
    let source = if overlay.encrypted { SEALED } else { PLAIN };
    let wanted = Vxlan { vni: overlay.vni, local: underlay.address, port: underlay.port, source };
    if links.vxlan_of(VXLAN).map_err(|error| refused(&error))? != Some(wanted) {
        links.remove(VXLAN).map_err(|error| refused(&error))?;
        let own = File::open("/proc/thread-self/ns/net")
            .map_err(|error| Error::internal("opening the thread's own network namespace", &error))?;
        node.vxlan(VXLAN, (wanted, overlay.mtu), own.as_fd()).map_err(|error| refused(&error))?;
        // It answers for neighbours, and has no address itself.
        for (file, value) in [("disable_ipv6", "0"), ("addr_gen_mode", "1")] {
            set(&format!("/proc/sys/net/ipv6/conf/{VXLAN}/{file}"), value)?;
        }
        // What is for nobody that is known is for nobody: only asking who has an address comes by, and is answered.
        links.port(VXLAN, bridge).map_err(|error| refused(&error))?;
    }
    let made = links.index(VXLAN).and_then(|index| {
        let Some(index) = index else { return Ok(()) };
        links.up(index)?;
        let wanted = Entries {
            neighbours: overlay.neighbours.clone(),
            forwarding: overlay.forwarding.clone(),
            bridged: overlay.forwarding.keys().copied().collect(),
        };
        let has = links.entries(index)?;
        links.set_entries(index, (&has, &wanted))
    });
    made.map_err(|error| refused(&error))
}

/// The node's own, and virtual ones, for which it answers.
fn set_addresses(links: &mut Links, bridge: u32, overlay: &Overlay) -> Result<()> {
    let whole = |address: IpAddr| Prefix::new(address, if address.is_ipv4() { 32 } else { 128 });
    let virtual_ones = overlay.balanced.keys().filter_map(|address| whole(*address));
    let wanted: BTreeSet<Prefix> = overlay.own.iter().copied().chain(virtual_ones).collect();
    let changed = links.addresses(bridge).and_then(|has| {
        let has: BTreeSet<Prefix> = has.into_iter().collect();
        let is_link_local =
            |one: &Prefix| matches!(one.address(), IpAddr::V6(it) if it.is_unicast_link_local());
        for gone in has.iter().filter(|one| !wanted.contains(one) && !is_link_local(one)) {
            links.remove_address(bridge, *gone)?;
        }
        wanted.iter().filter(|one| !has.contains(one)).try_for_each(|new| links.address(bridge, *new))
    });
    changed.map_err(|error| refused(&error))
}
