//! The header of the PROXY protocol, version 2: who has connected, and to what, in binary. Pure.
//!
//! <https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt>, section 2.2: a signature, version and command, family and
//! transport, the length of what follows, both addresses, both ports. Numbers are in network order. We make no connection that is
//! not a client's, so there is no command LOCAL; and nobody has asked for TLVs.

use std::net::{IpAddr, SocketAddr};

/// No protocol's text begins so.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// `AF_INET` and `AF_INET6` over streams.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Says who has connected from where, and to which address of this node.
pub(super) fn header(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (TCP4, [from.octets(), to.octets()].concat()),
        (from, to) => (TCP6, [wide(from), wide(to)].concat()),
    };
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    // 12 or 36.
    let length = u16::try_from(addresses.len() + ports.len()).unwrap_or(u16::MAX);
    [&SIGNATURE[..], &[PROXY, family], &length.to_be_bytes(), &addresses, &ports].concat()
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Reads as a receiver does that has only the protocol's text: both ends, and what is behind the header.
    fn read(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
        let rest =
            bytes.strip_prefix(&[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a])?;
        let (fixed, rest) = rest.split_first_chunk::<4>()?;
        let (said, behind) = rest.split_at_checked(usize::from(u16::from_be_bytes([fixed[2], fixed[3]])))?;
        let port = |at: usize| Some(u16::from_be_bytes([*said.get(at)?, *said.get(at + 1)?]));
        let ends = match (fixed[0], fixed[1], said.len()) {
            (0x21, 0x11, 12) => {
                let four = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(said.get(at..at + 4)?).ok()?));
                (SocketAddr::from((four(0)?, port(8)?)), SocketAddr::from((four(4)?, port(10)?)))
            }
            (0x21, 0x21, 36) => {
                let sixteen =
                    |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(said.get(at..at + 16)?).ok()?));
                (SocketAddr::from((sixteen(0)?, port(32)?)), SocketAddr::from((sixteen(16)?, port(34)?)))
            }
            _ => return None,
        };
        Some((ends.0, ends.1, behind))
    }

    #[test]
    fn the_bytes_of_both_families() {
        let four = header("192.0.2.1:56324".parse().unwrap(), "198.51.100.7:443".parse().unwrap());
        let wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb";
        assert_eq!(four, wanted);
        let six = header("[2001:db8::1]:1".parse().unwrap(), "[fd00::2]:65535".parse().unwrap());
        assert_eq!((six.len(), &six[12..16]), (52, &b"\x21\x21\x00\x24"[..]));
        assert_eq!(six[48..], [0, 1, 0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn whoever_reads_the_protocol_learns_both_ends(
            from: SocketAddr, to: SocketAddr, behind in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [header(from, to), behind.clone()].concat();
            let (told_from, told_to, rest) = read(&bytes).unwrap();
            let whole = |end: SocketAddr| (end.ip().to_canonical(), end.port());
            prop_assert_eq!((whole(told_from), whole(told_to)), (whole(from), whole(to)));
            prop_assert_eq!(rest, &behind[..]);
            prop_assert_eq!(told_from.is_ipv4(), from.is_ipv4() && to.is_ipv4());
        }
    }
}
