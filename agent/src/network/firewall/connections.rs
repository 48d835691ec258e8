//! What the kernel remembers of datagrams that went to a published port (conntrack). A client that goes on from the same port would
//! still be led to the container that had it before, or past the one that has it now.

use rustix::io::Errno;

use super::{Forward, Transport};
use crate::network::netlink::{Attributes, Batch, Message, NLM_F_ACK, NetlinkError, Socket, attributes};

const SUBSYSTEM: u16 = 1 << 8;
const LIST: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// As it came; the other is the answer's.
const ORIGINAL: u16 = 1;
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
/// Of IPv4 and of IPv6.
const DESTINATION: [u16; 2] = [2, 4];

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
