//! VXLAN devices, ports of a bridge that learn nothing, and the entries that say who is where (vxlan in ip-link(8), bridge(8),
//! ip-neighbour(8)). Links and numbers only: knows no networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::network::device::{
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND,
    IFLA_MASTER, IFLA_MTU, IFLA_NET_NS_FD,
};
use crate::network::link::{
    AF_INET, AF_INET6, IFLA_LINKINFO, Links, Mac, RTM_NEWLINK, address_of, link_header, octets,
};
use crate::network::netlink::{
    Attributes, Batch, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NetlinkError, attributes, number32,
};
use crate::network::xfrm::PortBlock;

const NLM_F_REPLACE: u16 = 0x100;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const AF_BRIDGE: u8 = 7;

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT_RANGE: u16 = 10;
const IFLA_VXLAN_PROXY: u16 = 11;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
/// Since 5.16; an older kernel passes it over.
const IFLA_BRPORT_LOCKED: u16 = 39;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
/// The entry is the device's own, or its bridge's.
const NTF_SELF: u8 = 2;
const NTF_MASTER: u8 = 4;

/// A device as it is to be, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vxlan {
    pub(super) vni: u32,
    /// The outer source.
    pub(super) local: IpAddr,
    /// UDP's.
    pub(super) port: u16,
    /// From which ports it sends.
    pub(super) source: PortBlock,
}

/// Who is where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// Which Ethernet address answers for an address of IP.
    pub(super) neighbours: BTreeMap<IpAddr, Mac>,
    /// To which node's address a frame goes.
    pub(super) forwarding: BTreeMap<Mac, IpAddr>,
    /// Which frames the bridge gives to the device at all.
    pub(super) bridged: BTreeSet<Mac>,
}

impl Links {
    /// Makes a device in another namespace whose socket is in this one, down. It learns nothing, and answers for neighbours.
    pub(super) fn vxlan(
        &mut self,
        name: &str,
        (vxlan, mtu): (Vxlan, u32),
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let mut made = Attributes::default();
        made.text(IFLA_IFNAME, name).number(IFLA_MTU, mtu);
        made.bytes(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        made.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |data| {
                let local = if vxlan.local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
                data.number(IFLA_VXLAN_ID, vxlan.vni).bytes(local, &octets(vxlan.local));
                data.bytes(IFLA_VXLAN_LEARNING, &[0]).bytes(IFLA_VXLAN_PROXY, &[1]);
                data.bytes(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes());
                // The last is not among them.
                let PortBlock { first, mask } = vxlan.source;
                let end = first.wrapping_add((!mask).wrapping_add(1));
                data.bytes(IFLA_VXLAN_PORT_RANGE, &[first.to_be_bytes(), end.to_be_bytes()].concat());
            });
        });
        let mut batch = Batch::default();
        let action = format!("making the VXLAN device {} at port {}", vxlan.vni, vxlan.port);
        batch.push(
            action,
            (RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK),
            &link_header(0, 0, 0),
            &made,
        );
        self.run(&batch)
    }

    /// What a device of this name is; `None`: there is none, or it is something else.
    pub(super) fn vxlan_of(&mut self, name: &str) -> Result<Option<Vxlan>, NetlinkError> {
        Ok(self.find(name)?.and_then(|message| {
            let part =
                |list, kind| attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value);
            let data = part(part(message.body.get(16..)?, IFLA_LINKINFO)?, IFLA_INFO_DATA)?;
            let local = part(data, IFLA_VXLAN_LOCAL).or_else(|| part(data, IFLA_VXLAN_LOCAL6))?;
            let port = part(data, IFLA_VXLAN_PORT)?.try_into().ok()?;
            let [a, b, c, d] = part(data, IFLA_VXLAN_PORT_RANGE)?.try_into().ok()?;
            let (first, end) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            Some(Vxlan {
                vni: number32(part(data, IFLA_VXLAN_ID)?, 0)?,
                local: address_of(local)?,
                port: u16::from_be_bytes(port),
                source: PortBlock { first, mask: !end.wrapping_sub(first).wrapping_sub(1) },
            })
        }))
    }

    /// Puts a link into a bridge, as a port that learns nothing and gets nothing that is for nobody who is known.
    pub(super) fn port(&mut self, name: &str, master: u32) -> Result<(), NetlinkError> {
        let mut into = Attributes::default();
        into.text(IFLA_IFNAME, name).number(IFLA_MASTER, master);
        let mut port = Attributes::default();
        port.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
                data.bytes(IFLA_BRPORT_LEARNING, &[0]);
                data.bytes(IFLA_BRPORT_UNICAST_FLOOD, &[0]);
            });
        });
        let mut batch = Batch::default();
        for (action, list) in [("putting into its bridge", &into), ("setting the bridge's port", &port)] {
            batch.push(format!("{action} {name}"), (RTM_NEWLINK, NLM_F_ACK), &link_header(0, 0, 0), list);
        }
        self.run(&batch)
    }

    /// Gives a link this address and MTU.
    pub(super) fn shape(&mut self, index: u32, (mac, mtu): (Mac, u32)) -> Result<(), NetlinkError> {
        let mut shape = Attributes::default();
        shape.bytes(IFLA_ADDRESS, &mac).number(IFLA_MTU, mtu);
        let mut batch = Batch::default();
        let action = format!("giving link {index} its address");
        batch.push(action, (RTM_NEWLINK, NLM_F_ACK), &link_header(index, 0, 0), &shape);
        self.run(&batch)
    }

    /// A port of a bridge learns nothing: frames for this address go to it, whoever else says that it is his, and with no other
    /// address as their source frames come by it.
    pub(super) fn pin(&mut self, name: &str, mac: Mac) -> Result<(), NetlinkError> {
        let Some(index) = self.index(name)? else { return Ok(()) };
        let mut port = Attributes::default();
        port.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
                data.bytes(IFLA_BRPORT_LEARNING, &[0]).bytes(IFLA_BRPORT_UNICAST_FLOOD, &[0]);
                data.bytes(IFLA_BRPORT_LOCKED, &[1]);
            });
        });
        let mut batch = Batch::default();
        bridged(&mut batch, (RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE), index, mac);
        let action = format!("setting the bridge's port {name}");
        batch.push(action, (RTM_NEWLINK, NLM_F_ACK), &link_header(0, 0, 0), &port);
        self.run(&batch)
    }

    /// What a device has.
    pub(super) fn entries(&mut self, index: u32) -> Result<Entries, NetlinkError> {
        let mut entries = Entries::default();
        for family in [AF_BRIDGE, AF_INET, AF_INET6] {
            let header = neighbour_header(family, 0, (0, 0));
            for message in self.dump("listing neighbours", RTM_GETNEIGH, &header)? {
                entries.read(&message, index);
            }
        }
        Ok(entries)
    }

    /// Changes what a device has to what it is to have.
    pub(super) fn set_entries(
        &mut self,
        index: u32,
        (has, wanted): (&Entries, &Entries),
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        let new = (RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
        let gone = (RTM_DELNEIGH, 0);
        for (address, mac) in has.neighbours.iter().filter(|(one, _)| !wanted.neighbours.contains_key(one)) {
            neighbour(&mut batch, gone, index, (*address, *mac));
        }
        for (mac, to) in has.forwarding.iter().filter(|(one, _)| !wanted.forwarding.contains_key(*one)) {
            forwarding(&mut batch, gone, index, (*mac, *to));
        }
        for mac in has.bridged.difference(&wanted.bridged) {
            bridged(&mut batch, gone, index, *mac);
        }
        for (mac, to) in wanted.forwarding.iter().filter(|(mac, to)| has.forwarding.get(*mac) != Some(to)) {
            forwarding(&mut batch, new, index, (*mac, *to));
        }
        for mac in wanted.bridged.difference(&has.bridged) {
            bridged(&mut batch, new, index, *mac);
        }
        for (address, mac) in
            wanted.neighbours.iter().filter(|(one, mac)| has.neighbours.get(*one) != Some(mac))
        {
            neighbour(&mut batch, new, index, (*address, *mac));
        }
        self.run(&batch)
    }
}

impl Entries {
    fn read(&mut self, message: &Message, of: u32) {
        let body = &message.body;
        let (Some(&family), Some(index), Some(&flags)) = (body.first(), number32(body, 4), body.get(10))
        else {
            return;
        };
        let state = body.get(8..10).and_then(|state| state.try_into().ok()).map_or(0, u16::from_ne_bytes);
        let list = body.get(12..).unwrap_or_default();
        let part = |kind| attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value);
        let mac = part(NDA_LLADDR).and_then(|mac| Mac::try_from(mac).ok());
        let Some(mac) = mac.filter(|_| index == of) else { return };
        let to = part(NDA_DST).and_then(address_of);
        match (family, to) {
            (AF_BRIDGE, Some(to)) if flags & NTF_SELF != 0 => {
                let _before = self.forwarding.insert(mac, to);
            }
            // A permanent one is the port's own.
            (AF_BRIDGE, None) if flags & NTF_SELF == 0 && state & NUD_PERMANENT == 0 => {
                let _new = self.bridged.insert(mac);
            }
            (AF_INET | AF_INET6, Some(address)) if state & NUD_PERMANENT != 0 => {
                let _before = self.neighbours.insert(address, mac);
            }
            _ => {}
        }
    }
}

fn neighbour_header(family: u8, index: u32, (state, flags): (u16, u8)) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

fn neighbour(batch: &mut Batch, (kind, flags): (u16, u16), index: u32, (address, mac): (IpAddr, Mac)) {
    let mut list = Attributes::default();
    list.bytes(NDA_DST, &octets(address)).bytes(NDA_LLADDR, &mac);
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let header = neighbour_header(family, index, (NUD_PERMANENT, 0));
    batch.push(format!("the neighbour {address}"), (kind, flags | NLM_F_ACK), &header, &list);
}

fn forwarding(batch: &mut Batch, (kind, flags): (u16, u16), index: u32, (mac, to): (Mac, IpAddr)) {
    let mut list = Attributes::default();
    list.bytes(NDA_LLADDR, &mac).bytes(NDA_DST, &octets(to));
    let header = neighbour_header(AF_BRIDGE, index, (NUD_PERMANENT, NTF_SELF));
    batch.push(format!("the way to {to}"), (kind, flags | NLM_F_ACK), &header, &list);
}

fn bridged(batch: &mut Batch, (kind, flags): (u16, u16), index: u32, mac: Mac) {
    let mut list = Attributes::default();
    list.bytes(NDA_LLADDR, &mac);
    let header = neighbour_header(AF_BRIDGE, index, (NUD_NOARP, NTF_MASTER));
    batch.push(format!("the bridge's way to link {index}"), (kind, flags | NLM_F_ACK), &header, &list);
}
