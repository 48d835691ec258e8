//! The expressions of a rule, as nf_tables has them (linux/netfilter/nf_tables.h): each reads or writes registers, and the
//! first that does not match ends the rule.
//!
//! Registers are 32 bits wide, numbered from 8; a 16-byte one begins at each fourth. Number 0 is the verdict.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::Family;
use crate::network::netlink::Attributes;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// The register that every comparison uses.
const REGISTER: u32 = 8;
/// Where a map's answer goes: behind the longest key, which is an IPv6 address, a protocol and a port.
const ANSWER: u32 = 16;
const VERDICT: u32 = 0;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
/// The user whose socket it is; only of a socket in the namespace of the rules.
const META_SKUID: u32 = 10;
const META_L4PROTO: u32 = 16;
/// An interface's kind: `bridge`, `veth`...
const META_IIFKIND: u32 = 26;
const META_OIFKIND: u32 = 27;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// Bits of conntrack's state and status.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const TRANSLATED_DESTINATION: u32 = 1 << 5;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 2;
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;
/// Numbers one after the other.
const INCREMENTAL: u32 = 0;
/// Whether the way of a packet leads through IPsec.
const ROUTE_TRANSFORMS: u32 = 4;
/// The request number of the association that a packet came by; none ends the rule.
const ASSOCIATION_REQUEST: u32 = 5;
/// Headers that a payload is read from.
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// Flags of TCP's header.
const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;
/// The kind of an object that a rule names.
pub(super) const OBJECT_IS_COUNTER: u32 = 1;
/// Which address is translated.
const SOURCE: u32 = 0;
const DESTINATION: u32 = 1;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// On in this chain, then back.
    Jump(String),
}

/// How two things compare; numbers in the order of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal = 0,
    Different = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// What a map of [`Expression::InTurn`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Addresses,
    AddressesAndPorts,
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    InputIs(Compare, String),
    OutputIs(Compare, String),
    /// The source is in this subnet.
    SourceIn(super::Prefix),
    DestinationIn(super::Prefix),
    /// A packet of a connection that was let through, or about one.
    Established,
    /// Of a connection whose destination was translated.
    Translated,
    Protocol(u8),
    /// Of TCP, the first packet of a connection.
    Opening,
    /// Counts it.
    Counted {
        counter: String,
    },
    DestinationPort(u16),
    /// Both ends are in it.
    DestinationPorts(RangeInclusive<u16>),
    /// The chain that a map has for this output...
    ByOutput {
        map: String,
    },
    /// ...for this input...
    ByInput {
        map: String,
    },
    /// ...or for the subnet of this length that the source is in.
    BySubnet {
        map: String,
        length: u8,
    },
    /// The input is in this set.
    InputInSet {
        set: String,
    },
    /// The output is.
    OutputInSet {
        set: String,
    },
    /// Translates the destination to what a map has for destination, protocol and port...
    ByAddressAndPort {
        map: String,
    },
    /// ...or, where it is an address of this host, for protocol and port.
    ByPort {
        map: String,
    },
    /// The chain that a map has for the destination...
    ByDestination {
        map: String,
    },
    /// ...or for protocol and port.
    ByProtocolAndPort {
        map: String,
    },
    /// Protocol and port are in this set.
    ProtocolAndPortInSet {
        set: String,
    },
    /// The destination is an address of this host.
    ToThisHost,
    /// The destination is this host, or everybody, or whoever listens: it is no other machine alone.
    NotToAnother,
    /// The source is in this set.
    SourceInSet {
        set: String,
    },
    /// The destination is, whatever the port.
    AddressInSet {
        set: String,
    },
    /// Translates the destination to the next of so many that a map has, by number; addresses alone, or with ports.
    InTurn {
        map: String,
        of: u32,
        to: Turn,
    },
    /// The destination, protocol and port are in this set.
    DestinationInSet {
        set: String,
    },
    /// A program of this namespace has sent it: the kernel's own, tunnels' for one, are nobody's.
    OfSocket,
    /// A VXLAN datagram of a network that is in this set.
    OfNetworkInSet {
        set: String,
    },
    /// It leaves as it is, by no security association.
    InPlain,
    /// It came by a security association of this request.
    ByAssociation(u32),
    /// What is in the frame, untagged.
    EtherType(u16),
    /// The first byte behind an IPv6 header and its extensions, of ICMPv6.
    Icmpv6(u8),
    /// The frame comes by a port whose Ethernet and source addresses are in this set...
    PortHasSource {
        set: String,
    },
    /// ...or are those that its ARP tells...
    PortHasSender {
        set: String,
    },
    /// ...or whose neighbour advertisement is of such an address.
    PortHasTarget {
        set: String,
    },
    /// The input is no bridge's...
    NotFromABridge,
    /// ...nor is the output.
    NotToABridge,
    /// Translates the source.
    FromAddress(IpAddr),
    /// Translates the destination's port.
    ToPort(IpAddr, u16),
    Masquerade,
    /// Nothing is remembered of it.
    Untracked,
    Then(Verdict),
}

/// An interface's name as nf_tables compares it.
pub(super) fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Fills the data of a verdict.
pub(super) fn verdict(data: &mut Attributes, verdict: &Verdict) {
    data.nest(NFTA_DATA_VERDICT, |inner| {
        match verdict {
            Verdict::Drop => inner.ordered(NFTA_VERDICT_CODE, 0),
            Verdict::Accept => inner.ordered(NFTA_VERDICT_CODE, 1),
            Verdict::Jump(chain) => {
                inner.ordered(NFTA_VERDICT_CODE, (-3_i32).cast_unsigned()).text(NFTA_VERDICT_CHAIN, chain)
            }
        };
    });
}

/// Fills the data of a value.
pub(super) fn value(data: &mut Attributes, value: &[u8]) {
    data.bytes(NFTA_DATA_VALUE, value);
}

/// Writes the expressions of a rule into its list.
pub(super) fn encode(family: Family, rule: &[Expression]) -> Attributes {
    let mut writer = Writer { list: Attributes::default(), family };
    for expression in rule {
        writer.write(expression);
    }
    writer.list
}

struct Writer {
    list: Attributes,
    family: Family,
}

impl Writer {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Attributes)) {
        self.list.nest(NFTA_LIST_ELEM, |element| {
            element.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.add("meta", |data| {
            data.ordered(1, register).ordered(2, key);
        });
    }

    /// From the network header, or the transport header.
    fn payload(&mut self, base: u32, (offset, length): (u32, u32), register: u32) {
        self.add("payload", |data| {
            data.ordered(1, register).ordered(2, base).ordered(3, offset).ordered(4, length);
        });
    }

    fn compare(&mut self, how: Compare, with: &[u8]) {
        self.add("cmp", |data| {
            data.ordered(1, REGISTER).ordered(2, how as u32).nest(3, |data| value(data, with));
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or(4);
        let zero = vec![0; mask.len()];
        self.add("bitwise", |data| {
            data.ordered(1, REGISTER).ordered(2, REGISTER).ordered(3, length);
            data.nest(4, |data| value(data, mask)).nest(5, |data| value(data, &zero));
        });
    }

    /// One of these bits of a connection is set.
    fn connection(&mut self, key: u32, bits: u32) {
        self.add("ct", |data| {
            data.ordered(1, REGISTER).ordered(2, key);
        });
        self.mask(&bits.to_ne_bytes());
        self.compare(Compare::Different, &[0; 4]);
    }

    fn look_up(&mut self, set: &str, answer: Option<u32>) {
        self.add("lookup", |data| {
            data.text(1, set).ordered(2, REGISTER);
            if let Some(register) = answer {
                data.ordered(3, register);
            }
        });
    }

    fn translate_destination(&mut self, address: u32, port: Option<u32>) {
        let family = self.number();
        self.add("nat", |data| {
            data.ordered(1, DESTINATION).ordered(2, family).ordered(3, address);
            if let Some(port) = port {
                data.ordered(5, port);
            }
        });
    }

    /// The destination is an address of this host.
    fn destination_type(&mut self, how: Compare, kind: u32) {
        self.add("fib", |data| {
            data.ordered(1, REGISTER).ordered(2, FIB_ADDRESS_TYPE).ordered(3, FIB_OF_DESTINATION);
        });
        self.compare(how, &kind.to_ne_bytes());
    }

    fn number(&self) -> u32 {
        match self.family {
            Family::Ipv4 => 2,
            Family::Ipv6 => 10,
        }
    }

    /// Where addresses are in the network header, and how many registers one takes.
    fn address(&self, source: bool) -> ((u32, u32), u32) {
        match (self.family, source) {
            (Family::Ipv4, true) => ((12, 4), 1),
            (Family::Ipv4, false) => ((16, 4), 1),
            (Family::Ipv6, true) => ((8, 16), 4),
            (Family::Ipv6, false) => ((24, 16), 4),
        }
    }

    /// The subnet of this length that an address is in.
    fn subnet_of(&mut self, source: bool, length: u8) {
        let (place, registers) = self.address(source);
        self.payload(1, place, REGISTER);
        let mask: Vec<u8> = (0..usize::try_from(registers * 4).unwrap_or_default())
            .map(|byte| {
                let bits = usize::from(length).saturating_sub(byte * 8).min(8);
                u8::MAX.checked_shl(u32::try_from(8 - bits).unwrap_or(8)).unwrap_or(0)
            })
            .collect();
        if mask.iter().any(|byte| *byte != u8::MAX) {
            self.mask(&mask);
        }
    }

    fn subnet(&mut self, source: bool, subnet: super::Prefix) {
        self.subnet_of(source, subnet.length());
        self.compare(Compare::Equal, &octets(subnet.first()));
    }

    /// Destination, protocol and port, one behind the other.
    fn destination(&mut self) {
        let (place, registers) = self.address(false);
        self.payload(1, place, REGISTER);
        self.meta(META_L4PROTO, REGISTER + registers);
        self.payload(2, (2, 2), REGISTER + registers + 1);
    }

    /// The port that a frame comes in by, an Ethernet address, and an address of IP, one behind the other.
    fn owner(&mut self, mac: (u32, u32), address: (u32, u32, u32)) {
        self.meta(META_IIFNAME, REGISTER);
        let (base, offset) = mac;
        self.payload(base, (offset, 6), REGISTER + 4);
        let (base, offset, length) = address;
        self.payload(base, (offset, length), REGISTER + 6);
    }

    fn write(&mut self, expression: &Expression) {
        match expression {
            Expression::OfSocket => {
                self.meta(META_SKUID, REGISTER);
                // No user has this number: whoever has one has another.
                self.compare(Compare::Different, &u32::MAX.to_ne_bytes());
            }
            Expression::OfNetworkInSet { set } => {
                // Behind UDP's header and four bytes of flags; the last byte is anything.
                self.payload(TRANSPORT, (12, 4), REGISTER);
                self.mask(&[u8::MAX, u8::MAX, u8::MAX, 0]);
                self.look_up(set, None);
            }
            Expression::InPlain => {
                self.add("rt", |data| {
                    data.ordered(1, REGISTER).ordered(2, ROUTE_TRANSFORMS);
                });
                self.compare(Compare::Equal, &[0]);
            }
            Expression::ByAssociation(request) => {
                self.add("xfrm", |data| {
                    data.ordered(1, REGISTER).ordered(2, ASSOCIATION_REQUEST);
                    data.bytes(3, &[0]).ordered(4, 0);
                });
                self.compare(Compare::Equal, &request.to_ne_bytes());
            }
            Expression::EtherType(kind) => {
                self.payload(LINK, (12, 2), REGISTER);
                self.compare(Compare::Equal, &kind.to_be_bytes());
            }
            Expression::Icmpv6(kind) => {
                self.meta(META_L4PROTO, REGISTER);
                self.compare(Compare::Equal, &[58]);
                self.payload(TRANSPORT, (0, 1), REGISTER);
                self.compare(Compare::Equal, &[*kind]);
            }
            Expression::PortHasSource { set } => {
                let ((offset, length), _) = self.address(true);
                self.owner((LINK, 6), (NETWORK, offset, length));
                self.look_up(set, None);
            }
            Expression::PortHasSender { set } => {
                self.owner((NETWORK, 8), (NETWORK, 14, 4));
                self.look_up(set, None);
            }
            Expression::PortHasTarget { set } => {
                self.owner((LINK, 6), (TRANSPORT, 8, 16));
                self.look_up(set, None);
            }
            Expression::InputIs(how, name) => {
                self.meta(META_IIFNAME, REGISTER);
                self.compare(*how, &interface(name));
            }
            Expression::OutputIs(how, name) => {
                self.meta(META_OIFNAME, REGISTER);
                self.compare(*how, &interface(name));
            }
            Expression::SourceIn(subnet) => self.subnet(true, *subnet),
            Expression::DestinationIn(subnet) => self.subnet(false, *subnet),
            Expression::Established => self.connection(CT_STATE, ESTABLISHED_OR_RELATED),
            Expression::Translated => self.connection(CT_STATUS, TRANSLATED_DESTINATION),
            Expression::Protocol(number) => {
                self.meta(META_L4PROTO, REGISTER);
                self.compare(Compare::Equal, &[*number]);
            }
            Expression::Opening => {
                self.payload(TRANSPORT, (13, 1), REGISTER);
                self.mask(&[TCP_SYN | TCP_ACK]);
                self.compare(Compare::Equal, &[TCP_SYN]);
            }
            Expression::Counted { counter } => self.add("objref", |data| {
                data.ordered(1, OBJECT_IS_COUNTER).text(2, counter);
            }),
            Expression::DestinationPort(port) => {
                self.payload(2, (2, 2), REGISTER);
                self.compare(Compare::Equal, &port.to_be_bytes());
            }
            Expression::DestinationPorts(ports) => {
                self.payload(2, (2, 2), REGISTER);
                self.compare(Compare::AtLeast, &ports.start().to_be_bytes());
                self.compare(Compare::AtMost, &ports.end().to_be_bytes());
            }
            Expression::ByOutput { map } => {
                self.meta(META_OIFNAME, REGISTER);
                self.look_up(map, Some(VERDICT));
            }
            Expression::ByInput { map } => {
                self.meta(META_IIFNAME, REGISTER);
                self.look_up(map, Some(VERDICT));
            }
            Expression::BySubnet { map, length } => {
                self.subnet_of(true, *length);
                self.look_up(map, Some(VERDICT));
            }
            Expression::InputInSet { set } => {
                self.meta(META_IIFNAME, REGISTER);
                self.look_up(set, None);
            }
            Expression::OutputInSet { set } => {
                self.meta(META_OIFNAME, REGISTER);
                self.look_up(set, None);
            }
            Expression::DestinationInSet { set } => {
                self.destination();
                self.look_up(set, None);
            }
            Expression::ByAddressAndPort { map } => {
                let (_, registers) = self.address(false);
                self.destination();
                self.look_up(map, Some(ANSWER));
                self.translate_destination(ANSWER, Some(ANSWER + registers));
            }
            Expression::ByPort { map } => {
                let (_, registers) = self.address(false);
                self.meta(META_L4PROTO, REGISTER);
                self.payload(2, (2, 2), REGISTER + 1);
                self.look_up(map, Some(ANSWER));
                // A look into the routes, and so after the port is found.
                self.destination_type(Compare::Equal, LOCAL);
                self.translate_destination(ANSWER, Some(ANSWER + registers));
            }
            Expression::ByDestination { map } => {
                let (place, _) = self.address(false);
                self.payload(1, place, REGISTER);
                self.look_up(map, Some(VERDICT));
            }
            Expression::ByProtocolAndPort { map } => {
                self.meta(META_L4PROTO, REGISTER);
                self.payload(2, (2, 2), REGISTER + 1);
                self.look_up(map, Some(VERDICT));
            }
            Expression::ProtocolAndPortInSet { set } => {
                self.meta(META_L4PROTO, REGISTER);
                self.payload(2, (2, 2), REGISTER + 1);
                self.look_up(set, None);
            }
            Expression::ToThisHost => self.destination_type(Compare::Equal, LOCAL),
            Expression::NotToAnother => self.destination_type(Compare::Different, UNICAST),
            Expression::SourceInSet { set } | Expression::AddressInSet { set } => {
                let (place, _) = self.address(matches!(expression, Expression::SourceInSet { .. }));
                self.payload(1, place, REGISTER);
                self.look_up(set, None);
            }
            Expression::InTurn { map, of, to } => {
                let (_, registers) = self.address(false);
                self.add("numgen", |data| {
                    data.ordered(1, REGISTER).ordered(2, *of).ordered(3, INCREMENTAL);
                });
                self.look_up(map, Some(ANSWER));
                let port = (*to == Turn::AddressesAndPorts).then_some(ANSWER + registers);
                self.translate_destination(ANSWER, port);
            }
            Expression::ToPort(address, port) => {
                let (bytes, port) = (octets(*address), port.to_be_bytes());
                for (register, bytes) in [(ANSWER, bytes.as_slice()), (ANSWER + 4, &port)] {
                    self.add("immediate", |data| {
                        data.ordered(1, register).nest(2, |data| value(data, bytes));
                    });
                }
                self.translate_destination(ANSWER, Some(ANSWER + 4));
            }
            Expression::NotFromABridge | Expression::NotToABridge => {
                let from = matches!(expression, Expression::NotFromABridge);
                self.meta(if from { META_IIFKIND } else { META_OIFKIND }, REGISTER);
                self.compare(Compare::Different, &interface("bridge"));
            }
            Expression::FromAddress(address) => {
                let bytes = octets(*address);
                self.add("immediate", |data| {
                    data.ordered(1, ANSWER).nest(2, |data| value(data, &bytes));
                });
                let family = self.number();
                self.add("nat", |data| {
                    data.ordered(1, SOURCE).ordered(2, family).ordered(3, ANSWER);
                });
            }
            Expression::Masquerade => self.add("masq", |_| {}),
            Expression::Untracked => self.add("notrack", |_| {}),
            Expression::Then(then) => self.add("immediate", |data| {
                data.ordered(1, VERDICT).nest(2, |data| verdict(data, then));
            }),
        }
    }
}
