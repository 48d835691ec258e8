//! Who may say what in an overlay network of this node: by its port of the network's bridge, a container sends from its own
//! addresses only, of Ethernet and of IP, and answers for these only. It may have `NET_RAW`, as Docker gives it, and would else
//! take the place of a neighbour, of a virtual address, or of somebody on another node.
//!
//! ```text
//! prerouting  by the VXLAN device: accepted; the node that it comes from has looked at it. IPv4, ARP: accepted where port, Ethernet
//!             address and address of IP belong together. IPv6: on in `ipv6`. The rest, tagged frames for one, is dropped.
//! ipv6        router advertisements, redirects: dropped. Neighbour advertisements for an address of the port's, and all else: on
//!             in `source`.
//! source      as IPv4
//! ```
//! A table of the family `bridge`, in the network's namespace. Elements come and go with ports; rules are written again at each start
//! of the daemon, and elements are only added to by that: a container may be plugged in meanwhile.

use std::net::{IpAddr, Ipv6Addr};

use rustix::io::Errno;

use super::expression::{Compare, Expression as E, Verdict, interface, octets};
use super::rules::address_type;
use super::table::{
    Answer, Elements, Holds, Hook, PREROUTING, SetKind, TYPE_ETHERNET, TYPE_INTERFACE, Transaction,
    concatenated,
};
use super::{Family, Socket};
use crate::network::link::Mac;
use crate::network::netlink::NetlinkError;

const TABLE: &str = "ketch-ports";
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// A port of the bridge, and what whoever is behind it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) struct OwnedPort {
    /// The interface in the bridge.
    pub(in crate::network) link: String,
    pub(in crate::network) mac: Mac,
    pub(in crate::network) addresses: Vec<IpAddr>,
}

/// Writes the rules of the calling thread's namespace, with these ports and those that it has. `open`: the port that is not looked at.
///
/// # Errors
/// The kernel's: it has what it had.
pub(in crate::network) fn guard_ports(open: &str, ports: &[OwnedPort]) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::of_bridges();
    // Whatever its number, it is one table.
    let any = Family::Ipv4;
    transaction.table(any, TABLE);
    for family in Family::BOTH {
        let (address, length) = address_type(family);
        let key = concatenated(&[TYPE_INTERFACE, TYPE_ETHERNET, address]);
        transaction.set(
            family,
            (TABLE, set_of(family)),
            SetKind { key, key_length: 16 + 8 + length, holds: Holds::Keys },
        );
    }
    for chain in ["source", "ipv6"] {
        transaction.chain(any, (TABLE, chain), None);
        transaction.empty(any, (TABLE, chain));
    }
    let hook = Hook { kind: "filter", number: PREROUTING, priority: 0 };
    transaction.chain(any, (TABLE, "prerouting"), Some(hook));
    transaction.empty(any, (TABLE, "prerouting"));
    write_rules(&mut transaction, open);
    for port in ports {
        change(&mut transaction, port, Transaction::add);
    }
    commit(transaction)
}

/// Lets one send, in the calling thread's namespace.
///
/// # Errors
/// The kernel's.
pub(in crate::network) fn let_send(port: &OwnedPort) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::of_bridges();
    change(&mut transaction, port, Transaction::add);
    commit(transaction)
}

/// The port has gone. One that was not there is well, and so is a table that somebody has taken away: a container ends all the same.
///
/// # Errors
/// The kernel's.
pub(in crate::network) fn forget_port(port: &OwnedPort) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::of_bridges();
    change(&mut transaction, port, Transaction::add);
    change(&mut transaction, port, Transaction::take);
    match commit(transaction) {
        Err(error) if error.errno == Errno::NOENT => Ok(()),
        committed => committed,
    }
}

fn commit(transaction: Transaction) -> Result<(), NetlinkError> {
    transaction.commit(&mut Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?)
}

fn set_of(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

fn write_rules(transaction: &mut Transaction, open: &str) {
    let (v4, v6) = (Family::Ipv4, Family::Ipv6);
    let set = |family| set_of(family).to_owned();
    let accept = || E::Then(Verdict::Accept);
    let drop = || E::Then(Verdict::Drop);
    let on = |chain: &str| E::Then(Verdict::Jump(chain.to_owned()));
    let mut rule = |family, chain: &str, rule: &[E]| transaction.rule(family, (TABLE, chain), rule);
    rule(v4, "prerouting", &[E::InputIs(Compare::Equal, open.to_owned()), accept()]);
    rule(v4, "prerouting", &[E::EtherType(IPV4), E::PortHasSource { set: set(v4) }, accept()]);
    rule(v4, "prerouting", &[E::EtherType(ARP), E::PortHasSender { set: set(v4) }, accept()]);
    rule(v6, "prerouting", &[E::EtherType(IPV6), on("ipv6")]);
    rule(v4, "prerouting", &[drop()]);
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        rule(v6, "ipv6", &[E::Icmpv6(kind), drop()]);
    }
    let own = E::PortHasTarget { set: set(v6) };
    rule(v6, "ipv6", &[E::Icmpv6(NEIGHBOUR_ADVERTISEMENT), own, on("source")]);
    rule(v6, "ipv6", &[E::Icmpv6(NEIGHBOUR_ADVERTISEMENT), drop()]);
    rule(v6, "ipv6", &[on("source")]);
    rule(v6, "source", &[E::PortHasSource { set: set(v6) }, accept()]);
    rule(v6, "source", &[drop()]);
}

fn change(
    transaction: &mut Transaction,
    port: &OwnedPort,
    how: impl Fn(&mut Transaction, Family, (&str, &str), &[(Vec<u8>, Answer)]),
) {
    for family in Family::BOTH {
        let mut addresses: Vec<IpAddr> =
            port.addresses.iter().copied().filter(|address| family.has(*address)).collect();
        if family == Family::Ipv6 && !addresses.is_empty() {
            addresses.push(link_local(port.mac).into());
        }
        let elements: Elements =
            addresses.into_iter().map(|address| (key(port, address), Answer::None)).collect();
        if !elements.is_empty() {
            how(transaction, family, (TABLE, set_of(family)), &elements);
        }
    }
}

/// As registers have it: each part fills whole ones.
fn key(port: &OwnedPort, address: IpAddr) -> Vec<u8> {
    let mut key = interface(&port.link).to_vec();
    key.extend_from_slice(&port.mac);
    key.extend_from_slice(&[0, 0]);
    key.extend_from_slice(&octets(address));
    key
}

/// What a link with this address calls itself (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: Mac) -> Ipv6Addr {
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_port_ethernet_and_address() {
        let port = OwnedPort {
            link: "veth0".to_owned(),
            mac: [2, 0x42, 10, 0, 1, 11],
            addresses: vec![IpAddr::from([10, 0, 1, 11])],
        };
        let key = key(&port, port.addresses[0]);
        assert_eq!((key.len(), &key[..5], &key[16..22]), (28, b"veth0".as_slice(), port.mac.as_slice()));
        assert_eq!(key[24..], [10, 0, 1, 11]);
        assert_eq!(link_local(port.mac).to_string(), "fe80::42:aff:fe00:10b");
    }
}
