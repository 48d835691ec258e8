//! Links that are made: bridges, pairs, offshoots of an interface of the host, and parents for these. Knows no networks.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::link::{IFF_UP, Links, Mac, RTM_NEWLINK, link_header};
use super::netlink::{Attributes, Batch, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NetlinkError};
use super::options::Child;

pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
pub(super) const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
pub(super) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(super) const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

/// A pair of which one end is the container's.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    /// The host's end.
    pub(super) name: &'a str,
    /// The bridge, by index.
    pub(super) master: u32,
    pub(super) mtu: u32,
    /// The container's end, and its namespace.
    pub(super) peer: &'a str,
    pub(super) peer_mac: Mac,
    pub(super) peer_namespace: BorrowedFd<'a>,
    /// Other ports of the bridge can't be reached.
    pub(super) isolated: bool,
    /// Frames may leave by the port that they came in by.
    pub(super) hairpin: bool,
}

/// A container's interface that shares one of the host's.
#[derive(Debug)]
pub(super) struct Offshoot<'a> {
    /// The host's, by index.
    pub(super) parent: u32,
    pub(super) kind: Child,
    pub(super) name: &'a str,
    pub(super) mac: Option<Mac>,
    /// `None`: the parent's.
    pub(super) mtu: Option<u32>,
    pub(super) namespace: BorrowedFd<'a>,
}

impl Links {
    /// Makes a bridge, or takes the one of this name, and brings it up. Gives its index.
    pub(super) fn bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<u32, NetlinkError> {
        let mut made = Attributes::default();
        made.text(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac).number(IFLA_MTU, mtu);
        made.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
        });
        let action = format!("making the bridge {name}");
        match self.make(action.clone(), &made) {
            Err(error) if error.errno == Errno::EXIST => {}
            other => other?,
        }
        let index = self.index(name)?.ok_or(NetlinkError { action, errno: Errno::NODEV })?;
        self.up(index)?;
        Ok(index)
    }

    fn make(&mut self, action: String, made: &Attributes) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
        batch.push(action, (RTM_NEWLINK, flags), &link_header(0, IFF_UP, IFF_UP), made);
        self.run(&batch)
    }

    /// Makes a pair: the host's end up and in its bridge, the other in its namespace, and down.
    pub(super) fn pair(&mut self, pair: &Pair<'_>) -> Result<(), NetlinkError> {
        let mut made = Attributes::default();
        made.text(IFLA_IFNAME, pair.name).number(IFLA_MTU, pair.mtu).number(IFLA_MASTER, pair.master);
        // The bridge and the namespace queue: a pair of queues of its own is in nobody's way, and dockerd's have none.
        made.number(IFLA_TXQLEN, 0);
        made.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.header(&link_header(0, 0, 0));
                    peer.text(IFLA_IFNAME, pair.peer).number(IFLA_MTU, pair.mtu).number(IFLA_TXQLEN, 0);
                    peer.bytes(IFLA_ADDRESS, &pair.peer_mac);
                    peer.bytes(IFLA_NET_NS_FD, &pair.peer_namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        let mut batch = Batch::default();
        batch.push(
            format!("making the pair {} and {}", pair.name, pair.peer),
            (RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK),
            &link_header(0, IFF_UP, IFF_UP),
            &made,
        );
        if pair.isolated || pair.hairpin {
            let mut port = Attributes::default();
            port.text(IFLA_IFNAME, pair.name).nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
                    data.bytes(IFLA_BRPORT_ISOLATED, &[u8::from(pair.isolated)]);
                    data.bytes(IFLA_BRPORT_MODE, &[u8::from(pair.hairpin)]);
                });
            });
            batch.push(
                format!("setting the bridge's port {}", pair.name),
                (RTM_NEWLINK, NLM_F_ACK),
                &link_header(0, 0, 0),
                &port,
            );
        }
        self.run(&batch)
    }

    /// Makes an interface of a container on one of this namespace's, and down.
    pub(super) fn offshoot(&mut self, offshoot: &Offshoot<'_>) -> Result<(), NetlinkError> {
        let mut made = Attributes::default();
        made.text(IFLA_IFNAME, offshoot.name).number(IFLA_LINK, offshoot.parent);
        made.bytes(IFLA_NET_NS_FD, &offshoot.namespace.as_raw_fd().to_ne_bytes()).number(IFLA_TXQLEN, 0);
        if let Some(mtu) = offshoot.mtu {
            made.number(IFLA_MTU, mtu);
        }
        if let (Some(mac), Child::Macvlan { .. }) = (offshoot.mac, offshoot.kind) {
            made.bytes(IFLA_ADDRESS, &mac);
        }
        made.nest(IFLA_LINKINFO, |info| match offshoot.kind {
            Child::Macvlan { mode } => {
                info.text(IFLA_INFO_KIND, "macvlan").nest(IFLA_INFO_DATA, |data| {
                    data.number(IFLA_MACVLAN_MODE, mode);
                });
            }
            Child::Ipvlan { mode, flags } => {
                info.text(IFLA_INFO_KIND, "ipvlan").nest(IFLA_INFO_DATA, |data| {
                    data.bytes(IFLA_IPVLAN_MODE, &mode.to_ne_bytes());
                    data.bytes(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
                });
            }
        });
        let mut batch = Batch::default();
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
        let action = format!("making the interface {}", offshoot.name);
        batch.push(action, (RTM_NEWLINK, flags), &link_header(0, 0, 0), &made);
        self.run(&batch)
    }

    /// Makes a link that leads nowhere, and brings it up; one that is there is well.
    pub(super) fn dummy(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut made = Attributes::default();
        made.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "dummy");
        });
        self.make_unless_there(format!("making the link {name}"), &made)
    }

    /// Makes a VLAN of a link, and brings it up; one that is there is well.
    pub(super) fn vlan(&mut self, name: &str, parent: u32, number: u16) -> Result<(), NetlinkError> {
        let mut made = Attributes::default();
        made.text(IFLA_IFNAME, name).number(IFLA_LINK, parent).nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "vlan").nest(IFLA_INFO_DATA, |data| {
                data.bytes(IFLA_VLAN_ID, &number.to_ne_bytes());
            });
        });
        self.make_unless_there(format!("making the VLAN {name}"), &made)
    }

    fn make_unless_there(&mut self, action: String, made: &Attributes) -> Result<(), NetlinkError> {
        match self.make(action, made) {
            Err(error) if error.errno == Errno::EXIST => Ok(()),
            other => other,
        }
    }
}
