//! Links, addresses and routes of one network namespace (rtnetlink(7)); [`super::device`] makes links. Knows no networks and no
//! containers.

use std::net::{IpAddr, Ipv4Addr};

use rustix::io::Errno;

use super::ipam::Prefix;
use super::netlink::{
    Attributes, Batch, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NetlinkError, Socket, attributes,
    number32,
};

pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_IFALIAS: u16 = 20;
const IFLA_EXT_MASK: u16 = 29;
/// Without counters, which nobody reads.
const SKIP_STATISTICS: u32 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
pub(super) const IFF_UP: u32 = 1;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_LINK: u8 = 253;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// A link that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `IFF_UP`, `IFF_LOOPBACK` and others of netdevice(7).
    pub(super) flags: u32,
}

/// The links of a namespace.
#[derive(Debug)]
pub(super) struct Links(Socket);

pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

impl Links {
    /// Those of the calling thread's namespace; the thread may leave it.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        // NETLINK_ROUTE is protocol 0, which is no protocol.
        Socket::open(None, 0).map(Self)
    }

    /// Sends a batch, and waits for its answers.
    pub(super) fn run(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        self.0.run(batch)
    }

    /// All objects of a kind.
    pub(super) fn dump(
        &mut self,
        action: &str,
        kind: u16,
        header: &[u8],
    ) -> Result<Vec<Message>, NetlinkError> {
        self.0.dump(action, kind, header)
    }

    /// All of them.
    pub(super) fn list(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let found = self.0.dump("listing links", RTM_GETLINK, &link_header(0, 0, 0))?;
        Ok(found.iter().filter_map(link).collect())
    }

    /// A link's index; `None` when it is not there.
    pub(super) fn index(&mut self, name: &str) -> Result<Option<u32>, NetlinkError> {
        Ok(self.find(name)?.as_ref().and_then(link).map(|link| link.index))
    }

    /// What somebody has called a link; empty for nothing. `None` when the link is not there.
    pub(super) fn alias(&mut self, name: &str) -> Result<Option<String>, NetlinkError> {
        let Some(message) = self.find(name)? else { return Ok(None) };
        let mut list = attributes(message.body.get(16..).unwrap_or_default());
        let alias = list.find(|(kind, _)| *kind == IFLA_IFALIAS).map(|(_, value)| value).unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(alias.strip_suffix(&[0]).unwrap_or(alias)).into_owned()))
    }

    /// Calls a link something.
    pub(super) fn set_alias(&mut self, name: &str, alias: &str) -> Result<(), NetlinkError> {
        let mut called = Attributes::default();
        called.text(IFLA_IFNAME, name).bytes(IFLA_IFALIAS, alias.as_bytes());
        let mut batch = Batch::default();
        batch.push(format!("marking {name}"), (RTM_NEWLINK, NLM_F_ACK), &link_header(0, 0, 0), &called);
        self.0.run(&batch)
    }

    /// What a link is: `bridge`, `veth`; empty for a device. `None` when it is not there.
    pub(super) fn kind(&mut self, name: &str) -> Result<Option<String>, NetlinkError> {
        let Some(message) = self.find(name)? else { return Ok(None) };
        let list = message.body.get(16..).unwrap_or_default();
        let nested = |list, kind| attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value);
        let kind =
            nested(list, IFLA_LINKINFO).and_then(|info| nested(info, IFLA_INFO_KIND)).unwrap_or_default();
        let kind = kind.strip_suffix(&[0]).unwrap_or(kind);
        Ok(Some(String::from_utf8_lossy(kind).into_owned()))
    }

    pub(super) fn find(&mut self, name: &str) -> Result<Option<Message>, NetlinkError> {
        let mut named = Attributes::default();
        named.text(IFLA_IFNAME, name).number(IFLA_EXT_MASK, SKIP_STATISTICS);
        let action = format!("looking for the link {name}");
        match self.0.one(&action, RTM_GETLINK, &link_header(0, 0, 0), &named) {
            Err(error) if matches!(error.errno, Errno::NODEV | Errno::INVAL | Errno::RANGE) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Brings a link up.
    pub(super) fn up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        batch.push(
            format!("bringing link {index} up"),
            (RTM_NEWLINK, NLM_F_ACK),
            &link_header(index, IFF_UP, IFF_UP),
            &Attributes::default(),
        );
        self.0.run(&batch)
    }

    /// Takes a link down; one that is not there is well.
    pub(super) fn down(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut named = Attributes::default();
        named.text(IFLA_IFNAME, name);
        let mut batch = Batch::default();
        batch.push(
            format!("taking the link {name} down"),
            (RTM_NEWLINK, NLM_F_ACK),
            &link_header(0, 0, IFF_UP),
            &named,
        );
        match self.0.run(&batch) {
            Err(error) if matches!(error.errno, Errno::NODEV | Errno::INVAL) => Ok(()),
            other => other,
        }
    }

    /// Removes a link and whatever hangs on it; one that is not there is well.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut named = Attributes::default();
        named.text(IFLA_IFNAME, name);
        let mut batch = Batch::default();
        batch.push(
            format!("removing the link {name}"),
            (RTM_DELLINK, NLM_F_ACK),
            &link_header(0, 0, 0),
            &named,
        );
        match self.0.run(&batch) {
            Err(error) if matches!(error.errno, Errno::NODEV | Errno::INVAL) => Ok(()),
            other => other,
        }
    }

    /// The addresses of a link with their subnets' lengths.
    pub(super) fn addresses(&mut self, index: u32) -> Result<Vec<Prefix>, NetlinkError> {
        let found = self.0.dump("listing addresses", RTM_GETADDR, &[0; 8])?;
        let of_link = |message: &&Message| number32(&message.body, 4) == Some(index);
        Ok(found
            .iter()
            .filter(of_link)
            .filter_map(|message| {
                let list = message.body.get(8..)?;
                let value = |kind| attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value);
                let address = value(IFA_LOCAL).or_else(|| value(IFA_ADDRESS))?;
                Prefix::new(address_of(address)?, *message.body.get(1)?)
            })
            .collect())
    }

    /// Gives a link an address, without asking the others for it: it is ours to give out. One that it has is well.
    pub(super) fn address(&mut self, index: u32, address: Prefix) -> Result<(), NetlinkError> {
        let mut given = Attributes::default();
        let bytes = octets(address.address());
        given.bytes(IFA_LOCAL, &bytes).bytes(IFA_ADDRESS, &bytes);
        if let (IpAddr::V4(_), IpAddr::V4(last)) = (address.address(), address.last())
            && address.length() < 31
        {
            given.bytes(IFA_BROADCAST, &last.octets());
        }
        self.change_address(
            format!("giving link {index} the address {address}"),
            RTM_NEWADDR,
            (index, address),
            &given,
        )
    }

    /// Takes an address away; one that is not there is well.
    pub(super) fn remove_address(&mut self, index: u32, address: Prefix) -> Result<(), NetlinkError> {
        let mut given = Attributes::default();
        given.bytes(IFA_LOCAL, &octets(address.address()));
        self.change_address(
            format!("taking {address} from link {index}"),
            RTM_DELADDR,
            (index, address),
            &given,
        )
    }

    fn change_address(
        &mut self,
        action: String,
        kind: u16,
        (index, address): (u32, Prefix),
        given: &Attributes,
    ) -> Result<(), NetlinkError> {
        let mut header = [0; 8];
        header[0] = family(address.address());
        header[1] = address.length();
        header[2] = if address.address().is_ipv6() { IFA_F_NODAD } else { 0 };
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let mut batch = Batch::default();
        let flags = if kind == RTM_NEWADDR { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
        batch.push(action, (kind, flags | NLM_F_ACK), &header, given);
        match self.0.run(&batch) {
            Err(error) if kind == RTM_NEWADDR && error.errno == Errno::EXIST => Ok(()),
            Err(error) if kind == RTM_DELADDR && error.errno == Errno::ADDRNOTAVAIL => Ok(()),
            other => other,
        }
    }

    /// Sends what has no other way to a gateway of a family, or, without one, out of the link.
    pub(super) fn default_route(
        &mut self,
        index: u32,
        way: (bool, Option<IpAddr>),
    ) -> Result<(), NetlinkError> {
        self.change_route(RTM_NEWROUTE, index, way)
    }

    /// The opposite; one that is not there is well.
    pub(super) fn remove_default_route(
        &mut self,
        index: u32,
        way: (bool, Option<IpAddr>),
    ) -> Result<(), NetlinkError> {
        match self.change_route(RTM_DELROUTE, index, way) {
            Err(error) if error.errno == Errno::SRCH => Ok(()),
            other => other,
        }
    }

    fn change_route(
        &mut self,
        kind: u16,
        index: u32,
        (ipv4, gateway): (bool, Option<IpAddr>),
    ) -> Result<(), NetlinkError> {
        let family = if ipv4 { AF_INET } else { AF_INET6 };
        let scope = if ipv4 && gateway.is_none() { RT_SCOPE_LINK } else { 0 };
        let header = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
        let mut route = Attributes::default();
        route.number(RTA_OIF, index);
        if let Some(gateway) = gateway {
            route.bytes(RTA_GATEWAY, &octets(gateway));
        }
        let mut batch = Batch::default();
        let flags = if kind == RTM_NEWROUTE { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
        let by = gateway.map_or_else(|| format!("link {index}"), |gateway| gateway.to_string());
        batch.push(format!("the default route by {by}"), (kind, flags | NLM_F_ACK), &header, &route);
        self.0.run(&batch)
    }

    /// Where the main table leads to, but the default.
    pub(super) fn routes(&mut self) -> Result<Vec<Prefix>, NetlinkError> {
        let found = self.0.dump("listing routes", RTM_GETROUTE, &[0; 12])?;
        Ok(found.iter().filter_map(route).collect())
    }
}

fn link(message: &Message) -> Option<Link> {
    let name = attributes(message.body.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    let (index, flags) = (number32(&message.body, 4)?, number32(&message.body, 8)?);
    Some(Link { index, name: String::from_utf8_lossy(name).into_owned(), flags })
}

fn route(message: &Message) -> Option<Prefix> {
    let list = message.body.get(12..)?;
    let value = |kind| attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value);
    let table = value(RTA_TABLE).and_then(|bytes| number32(bytes, 0));
    if table.is_some_and(|table| table != u32::from(RT_TABLE_MAIN)) {
        return None;
    }
    Prefix::new(address_of(value(RTA_DST)?)?, *message.body.get(1)?)
}

/// The address of the interface that has this IPv4 address: a neighbour that knows the one knows the other, also after the
/// container's restart.
pub(super) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// With colons.
pub(super) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The opposite.
pub(super) fn mac_from(text: &str) -> Option<Mac> {
    let mut bytes =
        text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2));
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    bytes.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs() {
        assert_eq!(mac_text(mac_of(Ipv4Addr::new(172, 17, 0, 2))), "02:42:ac:11:00:02");
        assert_eq!(mac_from("02:42:ac:11:00:02"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        for none in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "zz:42:ac:11:00:02"] {
            assert_eq!(mac_from(none), None, "{none}");
        }
    }
}
