//! What the tables hold.
//!
//! ```text
//! forward      to a bridge: on in its chain. From an internal one: dropped, unless it stays inside.
//! to-<bridge>  established, translated (a published port), from the bridge itself: accepted. The rest is dropped, which is
//!              other networks' containers, and whoever knows a container's address and no published port.
//! prerouting,  to an address of this host and a published port: to the container.
//! output
//! postrouting  from a bridge's subnet to elsewhere: the host's address. From the bridge, translated, back into it, or from
//!              127.0.0.1: the bridge's, so that the answers come back here.
//! guard        what comes in by a bridge for 127.0.0.0/8: dropped. Published ports of loopback addresses need route_localnet,
//!              which would let containers reach the host's own services there.
//! ```

use std::net::{IpAddr, Ipv4Addr};

use super::expression::{Compare, Expression as E, Verdict, interface, octets};
use super::table::{
    Answer, FORWARD, Holds, Hook, OUTPUT, POSTROUTING, PREROUTING, SetKind, TYPE_INTERFACE, TYPE_IPV4,
    TYPE_IPV6, TYPE_PORT, TYPE_PROTOCOL, Transaction, concatenated,
};
use super::{Bridge, Family, Forward, GatewayMode, Prefix, Ruleset, Transport};

/// By destination, protocol and port.
const PORTS_AT: &str = "ports-at";
/// By protocol and port.
const PORTS: &str = "ports";
/// Containers' own addresses and ports, open in routed networks.
const OPEN: &str = "open";
const TO_BRIDGES: &str = "to-bridges";
/// Our bridges.
const BRIDGES: &str = "bridges";

/// Destination translation comes before the routing decision, and before what other tables do there at the same place.
const BEFORE_CONNECTIONS: i32 = -300;
const TRANSLATE_DESTINATION: i32 = -100;
const TRANSLATE_SOURCE: i32 = 100;

impl Bridge {
    fn mode(&self, family: Family) -> GatewayMode {
        match family {
            Family::Ipv4 => self.mode_ipv4,
            Family::Ipv6 => self.mode_ipv6,
        }
    }

    fn subnets(&self, family: Family) -> impl Iterator<Item = Prefix> {
        self.subnets.iter().copied().filter(move |subnet| family.has(subnet.address()))
    }
}

/// A whole table.
pub(super) fn write(transaction: &mut Transaction, family: Family, table: &str, ruleset: &Ruleset) {
    transaction.table(family, table);
    let (address, length) = match family {
        Family::Ipv4 => (TYPE_IPV4, 4),
        Family::Ipv6 => (TYPE_IPV6, 16),
    };
    let full = concatenated(&[address, TYPE_PROTOCOL, TYPE_PORT]);
    let target = Holds::Values { kind: concatenated(&[address, TYPE_PORT]), length: length + 4 };
    let sets = [
        (PORTS_AT, SetKind { key: full, key_length: length + 8, holds: target }),
        (PORTS, SetKind { key: concatenated(&[TYPE_PROTOCOL, TYPE_PORT]), key_length: 8, holds: target }),
        (OPEN, SetKind { key: full, key_length: length + 8, holds: Holds::Keys }),
        (BRIDGES, SetKind { key: TYPE_INTERFACE, key_length: 16, holds: Holds::Keys }),
        (TO_BRIDGES, SetKind { key: TYPE_INTERFACE, key_length: 16, holds: Holds::Verdicts }),
    ];
    for (set, kind) in sets {
        transaction.set(family, (table, set), kind);
    }
    let chain = |kind, number, priority| Some(Hook { kind, number, priority });
    transaction.chain(family, (table, "guard"), chain("filter", PREROUTING, BEFORE_CONNECTIONS));
    transaction.chain(family, (table, "prerouting"), chain("nat", PREROUTING, TRANSLATE_DESTINATION));
    transaction.chain(family, (table, "output"), chain("nat", OUTPUT, TRANSLATE_DESTINATION));
    transaction.chain(family, (table, "postrouting"), chain("nat", POSTROUTING, TRANSLATE_SOURCE));
    transaction.chain(family, (table, "forward"), chain("filter", FORWARD, 0));

    for hook in ["prerouting", "output"] {
        transaction.rule(family, (table, hook), &[E::ByAddressAndPort { map: PORTS_AT.to_owned() }]);
        transaction.rule(family, (table, hook), &[E::ToThisHost, E::ByPort { map: PORTS.to_owned() }]);
    }
    transaction.rule(family, (table, "forward"), &[E::ByOutput { map: TO_BRIDGES.to_owned() }]);
    for bridge in &ruleset.bridges {
        write_bridge(transaction, family, table, bridge);
    }
    change_forwards_of(transaction, family, table, (&[], &ruleset.forwards));
}

fn write_bridge(transaction: &mut Transaction, family: Family, table: &str, bridge: &Bridge) {
    let name = || bridge.name.clone();
    let from_itself = || E::InputIs(Compare::Equal, name());
    let into_it = || E::OutputIs(Compare::Equal, name());
    let elsewhere = || E::OutputIs(Compare::Different, name());
    let accept = || E::Then(Verdict::Accept);
    let drop = || E::Then(Verdict::Drop);
    let chain = format!("to-{}", bridge.name);
    transaction.chain(family, (table, &chain), None);
    let mut rule = |rule: &[E]| transaction.rule(family, (table, &chain), rule);

    if bridge.internal {
        if bridge.icc {
            rule(&[from_itself(), accept()]);
        }
        rule(&[drop()]);
    } else {
        rule(&[E::Established, accept()]);
        rule(&[E::Translated, accept()]);
        if bridge.icc {
            rule(&[from_itself(), accept()]);
        } else {
            rule(&[from_itself(), drop()]);
        }
        match bridge.mode(family) {
            GatewayMode::Nat | GatewayMode::Isolated => rule(&[drop()]),
            GatewayMode::Routed => {
                rule(&[E::DestinationInSet { set: OPEN.to_owned() }, accept()]);
                // Without an error message of a router on the way, no path's MTU is found.
                rule(&[E::Protocol(if family == Family::Ipv4 { 1 } else { 58 }), accept()]);
                rule(&[drop()]);
            }
            GatewayMode::NatUnprotected => {
                rule(&[E::InputInSet { set: BRIDGES.to_owned() }, drop()]);
            }
        }
    }
    transaction.add(family, (table, BRIDGES), &[(interface(&bridge.name).to_vec(), Answer::None)]);
    let jump = Answer::Verdict(Verdict::Jump(chain));
    transaction.add(family, (table, TO_BRIDGES), &[(interface(&bridge.name).to_vec(), jump)]);

    if bridge.internal {
        transaction.rule(family, (table, "forward"), &[from_itself(), elsewhere(), drop()]);
        return;
    }
    if bridge.masquerade && matches!(bridge.mode(family), GatewayMode::Nat | GatewayMode::NatUnprotected) {
        for subnet in bridge.subnets(family) {
            let source = || E::SourceIn(subnet);
            transaction.rule(family, (table, "postrouting"), &[source(), elsewhere(), E::Masquerade]);
        }
    }
    for subnet in bridge.subnets(family) {
        let hairpin = [E::SourceIn(subnet), into_it(), E::Translated, E::Masquerade];
        transaction.rule(family, (table, "postrouting"), &hairpin);
    }
    if let (Family::Ipv4, Some(loopback)) = (family, Prefix::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8))
    {
        let from_loopback = [E::SourceIn(loopback), into_it(), E::Masquerade];
        transaction.rule(family, (table, "postrouting"), &from_loopback);
        let guarded = [from_itself(), E::DestinationIn(loopback), drop()];
        transaction.rule(family, (table, "guard"), &guarded);
    }
}

/// What has come and gone, in both tables. Both lists are sorted.
pub(super) fn change_forwards(
    transaction: &mut Transaction,
    table: &str,
    before: &[Forward],
    after: &[Forward],
) {
    let gone: Vec<_> = before.iter().filter(|one| after.binary_search(one).is_err()).copied().collect();
    let new: Vec<_> = after.iter().filter(|one| before.binary_search(one).is_err()).copied().collect();
    for family in Family::BOTH {
        change_forwards_of(transaction, family, table, (&gone, &new));
    }
}

fn change_forwards_of(
    transaction: &mut Transaction,
    family: Family,
    table: &str,
    (gone, new): (&[Forward], &[Forward]),
) {
    for (forwards, adding) in [(gone, false), (new, true)] {
        // A port that leads from an IPv6 address to an IPv4 one is carried by the daemon itself.
        let ours = || {
            forwards
                .iter()
                .filter(|one| family.has(one.host.ip()) && family.has(one.container.ip()))
                .filter(|one| one.host.port() != 0)
        };
        let at = ours().filter(|one| !one.host.ip().is_unspecified()).map(|one| {
            (key(Some(one.host.ip()), one.transport, one.host.port()), Answer::Value(target(one)))
        });
        let everywhere = ours()
            .filter(|one| one.host.ip().is_unspecified())
            .map(|one| (key(None, one.transport, one.host.port()), Answer::Value(target(one))));
        let open = forwards
            .iter()
            .filter(|one| family.has(one.container.ip()))
            .map(|one| (key(Some(one.container.ip()), one.transport, one.container.port()), Answer::None));
        let mut open: Vec<_> = open.collect();
        open.sort_by(|one, other| one.0.cmp(&other.0));
        open.dedup_by(|one, other| one.0 == other.0);
        let sets = [(PORTS_AT, at.collect()), (PORTS, everywhere.collect()), (OPEN, open)];
        for (set, elements) in sets {
            let elements: Vec<(Vec<u8>, Answer)> = elements;
            if adding {
                transaction.add(family, (table, set), &elements);
            } else {
                transaction.take(family, (table, set), &elements);
            }
        }
    }
}

/// Each part of a key fills whole registers.
fn key(address: Option<IpAddr>, transport: Transport, port: u16) -> Vec<u8> {
    let mut key = address.map(octets).unwrap_or_default();
    key.extend_from_slice(&[transport.number(), 0, 0, 0]);
    key.extend_from_slice(&port.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    key
}

fn target(forward: &Forward) -> Vec<u8> {
    let mut value = octets(forward.container.ip());
    value.extend_from_slice(&forward.container.port().to_be_bytes());
    value.extend_from_slice(&[0, 0]);
    value
}

/// Inside a container's namespace: what is asked of 127.0.0.11, port 53, goes to the ports where the daemon listens there. A
/// container may so have a name server of its own at port 53 of all its addresses.
pub(in crate::network) fn redirect_names(
    server: Ipv4Addr,
    udp: u16,
    tcp: u16,
) -> Result<(), crate::network::netlink::NetlinkError> {
    let mut socket = super::Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
    let mut transaction = Transaction::default();
    let (family, table) = (Family::Ipv4, "ketch-names");
    transaction.remove_table(family, table);
    transaction.table(family, table);
    let hook = Hook { kind: "nat", number: OUTPUT, priority: TRANSLATE_DESTINATION };
    transaction.chain(family, (table, "output"), Some(hook));
    if let Some(only) = Prefix::new(IpAddr::V4(server), 32) {
        for (protocol, port) in [(17, udp), (6, tcp)] {
            let rule = [
                E::DestinationIn(only),
                E::Protocol(protocol),
                E::DestinationPort(53),
                E::ToPort(IpAddr::V4(server), port),
            ];
            transaction.rule(family, (table, "output"), &rule);
        }
    }
    transaction.commit(&mut socket)
}
