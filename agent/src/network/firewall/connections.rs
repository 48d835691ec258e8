//! What the kernel remembers of connections whose destination was translated (conntrack). A client that sends datagrams on from the
//! same port would still be led to the container that had the published port before, or past the one that has it now; and a
//! connection to a task that has gone would wait for an answer.

use std::net::IpAddr;

use rustix::io::Errno;

use super::{Forward, Transport};
use crate::network::link::address_of;
use crate::network::netlink::{Attributes, Batch, Message, NLM_F_ACK, NetlinkError, Socket, attributes};

const SUBSYSTEM: u16 = 1 << 8;
const LIST: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// As it came, and as it is answered.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
/// Of IPv4 and of IPv6.
const SOURCE: [u16; 2] = [1, 3];
const DESTINATION: [u16; 2] = [2, 4];

/// One that the kernel remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network) struct Connection {
    pub(in crate::network) is_udp: bool,
    /// Where it was to go.
    pub(in crate::network) to: IpAddr,
    /// Who answers: another when its destination was translated.
    pub(in crate::network) answered_by: IpAddr,
}

/// Forgets those of which `unwanted` says so, in the calling thread's namespace. What is still sent is then new to the kernel.
///
/// # Errors
/// The kernel's; one without ctnetlink has nothing that could be forgotten so.
pub(in crate::network) fn forget_those(unwanted: impl Fn(&Connection) -> bool) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
    for (family, ipv4) in [(2, true), (10, false)] {
        let all = match socket.dump("listing connections", LIST, &[family, 0, 0, 0]) {
            Err(error) if matches!(error.errno, Errno::INVAL | Errno::OPNOTSUPP) => return Ok(()),
            all => all?,
        };
        let those = all.iter().filter(|message| connection(message, ipv4).is_some_and(|it| unwanted(&it)));
        for original in those.filter_map(original) {
            delete(&mut socket, family, original)?;
        }
    }
    Ok(())
}

fn connection(message: &Message, ipv4: bool) -> Option<Connection> {
    let list = message.body.get(4..)?;
    let (original, reply) = (part(list, ORIGINAL)?, part(list, REPLY)?);
    let family = usize::from(!ipv4);
    Some(Connection {
        is_udp: part(part(original, PROTOCOL)?, PROTOCOL_NUMBER)? == [Transport::Udp.number()],
        to: address_of(part(part(original, ADDRESSES)?, DESTINATION[family])?)?,
        answered_by: address_of(part(part(reply, ADDRESSES)?, SOURCE[family])?)?,
    })
}

/// Forgets what went to these ports; only datagrams' are looked for.
///
/// # Errors
/// The kernel's; one without ctnetlink has nothing that could be forgotten so.
pub(in crate::network) fn forget(forwards: &[Forward]) -> Result<(), NetlinkError> {
    let udp: Vec<&Forward> =
        forwards.iter().filter(|one| one.transport == Transport::Udp && one.host.port() != 0).collect();
    for (family, ipv4) in [(2, true), (10, false)] {
        let ours: Vec<_> = udp.iter().filter(|one| one.host.is_ipv4() == ipv4).collect();
        if ours.is_empty() {
            continue;
        }
        let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
        let all = match socket.dump("listing connections", LIST, &[family, 0, 0, 0]) {
            Err(error) if matches!(error.errno, Errno::INVAL | Errno::OPNOTSUPP) => return Ok(()),
            all => all?,
        };
        for original in all.iter().filter_map(original) {
            if ours.iter().any(|forward| went_to(original, forward)) {
                delete(&mut socket, family, original)?;
            }
        }
    }
    Ok(())
}

fn original(message: &Message) -> Option<&[u8]> {
    part(message.body.get(4..)?, ORIGINAL)
}

fn part(list: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn went_to(original: &[u8], forward: &Forward) -> bool {
    let destination = || {
        let (addresses, protocol) = (part(original, ADDRESSES)?, part(original, PROTOCOL)?);
        let kind = DESTINATION[usize::from(forward.host.is_ipv6())];
        Some((part(protocol, PROTOCOL_NUMBER)?, part(protocol, DESTINATION_PORT)?, part(addresses, kind)?))
    };
    destination().is_some_and(|(number, port, address)| {
        let host = forward.host.ip();
        number == [forward.transport.number()]
            && port == forward.host.port().to_be_bytes()
            && (host.is_unspecified() || address == super::expression::octets(host))
    })
}

fn delete(socket: &mut Socket, family: u8, original: &[u8]) -> Result<(), NetlinkError> {
    let mut list = Attributes::default();
    list.nest(ORIGINAL, |inner| {
        inner.header(original);
    });
    let mut batch = Batch::default();
    batch.push("forgetting a connection", (DELETE, NLM_F_ACK), &[family, 0, 0, 0], &list);
    match socket.run(&batch) {
        // It has ended since.
        Err(error) if error.errno == Errno::NOENT => Ok(()),
        other => other,
    }
}
