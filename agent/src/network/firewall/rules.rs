//! What the tables hold.
//!
//! ```text
//! guard        what is for 127.0.0.0/8, which is next to nothing: on to `to-loopback`. Of IPv4 only.
//! to-loopback  what comes in by a bridge, and what comes from elsewhere for a port that is published there: dropped. Published
//!              ports of loopback addresses need route_localnet, which would let containers reach the host's own services
//!              there; and translation comes before the kernel's own check of such addresses.
//! prerouting,  to an address of this host and a published port: to the container. To one of the routing mesh: on in
//! output       `mesh-<protocol>-<port>`, to the next of the tasks that it leads to.
//! forward      from an internal bridge: on in `inside-<bridge>`. To a bridge: on in its chain. Between others, if the host did
//!              not forward before us: dropped.
//! inside-<..>  to elsewhere: dropped.
//! to-<bridge>  established, translated (a published port), from the bridge itself: accepted. The rest is dropped, which is
//!              other networks' containers, and whoever knows a container's address and no published port.
//! postrouting  from a bridge's subnet: on in `from-<bridge>`. From 127.0.0.1 into a bridge: the bridge's address, so that the
//!              answers come back here.
//! from-<...>   to elsewhere: the host's address. Translated, back into the bridge: the bridge's, as above.
//! ```
//!
//! A packet, or a connection's first, meets as many rules with a hundred networks as with one: bridges and subnets are looked
//! up. Of subnets there is a map for each length that occurs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::balance::{self, Place};
use super::expression::{Compare, Expression as E, Turn, Verdict, interface, octets};
use super::table::{
    Answer, Elements, FORWARD, Holds, Hook, OUTPUT, POSTROUTING, PREROUTING, SetKind, TYPE_INTERFACE,
    TYPE_IPV4, TYPE_IPV6, TYPE_PORT, TYPE_PROTOCOL, Transaction, concatenated,
};
use super::{Bridge, Change, Family, Forward, GatewayMode, Prefix, Ruleset, Transport};

/// By destination, protocol and port.
const PORTS_AT: &str = "ports-at";
/// By protocol and port.
const PORTS: &str = "ports";
/// Those of the routing mesh. Of IPv4 only: what comes by IPv6 the daemon carries.
const MESH: &str = "mesh";
/// Those at loopback addresses.
const LOOPBACK: &str = "loopback";
/// Containers' own addresses and ports, open in routed networks.
const OPEN: &str = "open";
const TO_LOOPBACK: &str = "to-loopback";
const TO_BRIDGES: &str = "to-bridges";
/// Those that let nothing out.
const INTERNAL: &str = "internal";
/// Our bridges.
const BRIDGES: &str = "bridges";

/// Destination translation comes before the routing decision, and before what other tables do there at the same place.
pub(super) const BEFORE_CONNECTIONS: i32 = -300;
pub(super) const TRANSLATE_DESTINATION: i32 = -100;
pub(super) const TRANSLATE_SOURCE: i32 = 100;

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

fn prefix(address: impl Into<IpAddr>, length: u8) -> Option<Prefix> {
    Prefix::new(address.into(), length)
}

/// A whole table.
pub(super) fn write(transaction: &mut Transaction, family: Family, table: &str, ruleset: &Ruleset) {
    transaction.table(family, table);
    write_sets(transaction, family, table);
    let chain = |kind, number, priority| Some(Hook { kind, number, priority });
    if family == Family::Ipv4 {
        // Every packet passes here: nothing that is not needed is called.
        transaction.chain(family, (table, "guard"), chain("filter", PREROUTING, BEFORE_CONNECTIONS));
        write_guard(transaction, family, table);
    }
    transaction.chain(family, (table, "prerouting"), chain("nat", PREROUTING, TRANSLATE_DESTINATION));
    transaction.chain(family, (table, "output"), chain("nat", OUTPUT, TRANSLATE_DESTINATION));
    transaction.chain(family, (table, "postrouting"), chain("nat", POSTROUTING, TRANSLATE_SOURCE));
    transaction.chain(family, (table, "forward"), chain("filter", FORWARD, 0));

    if family == Family::Ipv6 {
        // Answers to an interface's own address would not find back from another; and what is asked of ::1 stays there.
        // Both are for the daemon's own sockets.
        let own = [
            ("prerouting", prefix(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).map(E::SourceIn)),
            ("output", prefix(Ipv6Addr::LOCALHOST, 128).map(E::DestinationIn)),
        ];
        for (hook, which) in own {
            if let Some(which) = which {
                transaction.rule(family, (table, hook), &[which, E::Then(Verdict::Accept)]);
            }
        }
    }
    for hook in ["prerouting", "output"] {
        transaction.rule(family, (table, hook), &[E::ByAddressAndPort { map: PORTS_AT.to_owned() }]);
        transaction.rule(family, (table, hook), &[E::ByPort { map: PORTS.to_owned() }]);
        if family == Family::Ipv4 {
            transaction.rule(family, (table, hook), &[E::ByProtocolAndPort { map: MESH.to_owned() }]);
        }
    }
    write_internal(transaction, family, table, &ruleset.bridges);
    transaction.rule(family, (table, "forward"), &[E::ByOutput { map: TO_BRIDGES.to_owned() }]);
    if ruleset.closed.has(family) {
        let rule = [E::NotFromABridge, E::NotToABridge, E::Then(Verdict::Drop)];
        transaction.rule(family, (table, "forward"), &rule);
    }
    for bridge in &ruleset.bridges {
        write_bridge(transaction, family, table, (bridge, ruleset.direct));
    }
    write_translation(transaction, family, table, &ruleset.bridges);
    change_elements(transaction, family, table, &ruleset.whole());
}

/// What nft(8) calls a family's addresses, and their length in bytes.
pub(super) fn address_type(family: Family) -> (u32, u32) {
    match family {
        Family::Ipv4 => (TYPE_IPV4, 4),
        Family::Ipv6 => (TYPE_IPV6, 16),
    }
}

fn write_sets(transaction: &mut Transaction, family: Family, table: &str) {
    let (address, length) = address_type(family);
    let full = concatenated(&[address, TYPE_PROTOCOL, TYPE_PORT]);
    let target = Holds::Values { kind: concatenated(&[address, TYPE_PORT]), length: length + 4 };
    let keys = SetKind { key: full, key_length: length + 8, holds: Holds::Keys };
    let sets = [
        (PORTS_AT, SetKind { key: full, key_length: length + 8, holds: target }),
        (PORTS, SetKind { key: concatenated(&[TYPE_PROTOCOL, TYPE_PORT]), key_length: 8, holds: target }),
        (OPEN, keys),
        (LOOPBACK, keys),
        (
            MESH,
            SetKind { key: concatenated(&[TYPE_PROTOCOL, TYPE_PORT]), key_length: 8, holds: Holds::Verdicts },
        ),
        (BRIDGES, SetKind { key: TYPE_INTERFACE, key_length: 16, holds: Holds::Keys }),
        (TO_BRIDGES, SetKind { key: TYPE_INTERFACE, key_length: 16, holds: Holds::Verdicts }),
    ];
    for (set, kind) in sets {
        transaction.set(family, (table, set), kind);
    }
}

fn write_guard(transaction: &mut Transaction, family: Family, table: &str) {
    let Some(loopback) = prefix(Ipv4Addr::new(127, 0, 0, 0), 8) else { return };
    let drop = || E::Then(Verdict::Drop);
    transaction.chain(family, (table, TO_LOOPBACK), None);
    let to_loopback = E::Then(Verdict::Jump(TO_LOOPBACK.to_owned()));
    transaction.rule(family, (table, "guard"), &[E::DestinationIn(loopback), to_loopback]);
    let from_bridges = E::InputInSet { set: BRIDGES.to_owned() };
    transaction.rule(family, (table, TO_LOOPBACK), &[from_bridges, drop()]);
    let from_elsewhere = E::InputIs(Compare::Different, "lo".to_owned());
    let published = E::DestinationInSet { set: LOOPBACK.to_owned() };
    transaction.rule(family, (table, TO_LOOPBACK), &[from_elsewhere, published, drop()]);
}

fn write_internal(transaction: &mut Transaction, family: Family, table: &str, bridges: &[Bridge]) {
    let mut inside = Elements::new();
    for bridge in bridges.iter().filter(|bridge| bridge.internal) {
        let chain = format!("inside-{}", bridge.name);
        transaction.chain(family, (table, &chain), None);
        let elsewhere = E::OutputIs(Compare::Different, bridge.name.clone());
        transaction.rule(family, (table, &chain), &[elsewhere, E::Then(Verdict::Drop)]);
        inside.push((interface(&bridge.name).to_vec(), Answer::Verdict(Verdict::Jump(chain))));
    }
    if !inside.is_empty() {
        let kind = SetKind { key: TYPE_INTERFACE, key_length: 16, holds: Holds::Verdicts };
        transaction.set(family, (table, INTERNAL), kind);
        transaction.add(family, (table, INTERNAL), &inside);
        transaction.rule(family, (table, "forward"), &[E::ByInput { map: INTERNAL.to_owned() }]);
    }
}

fn write_bridge(
    transaction: &mut Transaction,
    family: Family,
    table: &str,
    (bridge, direct): (&Bridge, bool),
) {
    let name = || bridge.name.clone();
    let from_itself = || E::InputIs(Compare::Equal, name());
    let accept = || E::Then(Verdict::Accept);
    let drop = || E::Then(Verdict::Drop);
    let open = || E::DestinationInSet { set: OPEN.to_owned() };
    let from_bridges = || E::InputInSet { set: BRIDGES.to_owned() };
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
        rule(&[from_itself(), if bridge.icc { accept() } else { drop() }]);
        match bridge.mode(family) {
            GatewayMode::Nat | GatewayMode::Isolated => {
                for trusted in &bridge.trusted {
                    rule(&[E::InputIs(Compare::Equal, trusted.clone()), open(), accept()]);
                }
                if direct {
                    rule(&[from_bridges(), drop()]);
                    rule(&[open(), accept()]);
                }
                rule(&[drop()]);
            }
            GatewayMode::Routed => {
                rule(&[open(), accept()]);
                // Without an error message of a router on the way, no path's MTU is found.
                rule(&[E::Protocol(if family == Family::Ipv4 { 1 } else { 58 }), accept()]);
                rule(&[drop()]);
            }
            GatewayMode::NatUnprotected => rule(&[from_bridges(), drop()]),
        }
    }
    transaction.add(family, (table, BRIDGES), &[(interface(&bridge.name).to_vec(), Answer::None)]);
    let jump = Answer::Verdict(Verdict::Jump(chain));
    transaction.add(family, (table, TO_BRIDGES), &[(interface(&bridge.name).to_vec(), jump)]);
}

fn write_translation(transaction: &mut Transaction, family: Family, table: &str, bridges: &[Bridge]) {
    // Of each length, the longest first, by subnet.
    let mut subnets: BTreeMap<Reverse<u8>, BTreeMap<Vec<u8>, Answer>> = BTreeMap::new();
    for bridge in bridges.iter().filter(|bridge| !bridge.internal) {
        let chain = format!("from-{}", bridge.name);
        write_source(transaction, family, (table, &chain), bridge);
        for subnet in bridge.subnets(family) {
            let of_length = subnets.entry(Reverse(subnet.length())).or_default();
            let jump = Answer::Verdict(Verdict::Jump(chain.clone()));
            let _first = of_length.entry(octets(subnet.first())).or_insert(jump);
        }
    }
    let (key, key_length) = address_type(family);
    for (Reverse(length), elements) in subnets {
        let map = format!("subnets-{length}");
        transaction.set(family, (table, &map), SetKind { key, key_length, holds: Holds::Verdicts });
        transaction.add(family, (table, &map), &Elements::from_iter(elements));
        transaction.rule(family, (table, "postrouting"), &[E::BySubnet { map, length }]);
    }
    if let (Family::Ipv4, Some(loopback)) = (family, prefix(Ipv4Addr::new(127, 0, 0, 0), 8)) {
        let into_a_bridge = E::OutputInSet { set: BRIDGES.to_owned() };
        let rule = [E::SourceIn(loopback), into_a_bridge, E::Masquerade];
        transaction.rule(family, (table, "postrouting"), &rule);
    }
}

/// What becomes of the source of what comes from a bridge's subnets.
fn write_source(transaction: &mut Transaction, family: Family, place: (&str, &str), bridge: &Bridge) {
    transaction.chain(family, place, None);
    if bridge.masquerade && matches!(bridge.mode(family), GatewayMode::Nat | GatewayMode::NatUnprotected) {
        let source = bridge.sources.iter().find(|source| family.has(**source));
        let as_host = source.map_or(E::Masquerade, |source| E::FromAddress(*source));
        let elsewhere = E::OutputIs(Compare::Different, bridge.name.clone());
        transaction.rule(family, place, &[elsewhere, as_host]);
    }
    let into_it = E::OutputIs(Compare::Equal, bridge.name.clone());
    transaction.rule(family, place, &[into_it, E::Translated, E::Masquerade]);
}

/// The mesh's ports that lead elsewhere than before.
fn change_mesh(transaction: &mut Transaction, family: Family, table: &str, change: &Change) {
    let chain = |transport: Transport, port: u16| format!("mesh-{}-{port}", transport.name());
    for (transport, port) in &change.mesh_gone {
        let chain = chain(*transport, *port);
        transaction.take(family, (table, MESH), &[(key(None, *transport, *port), Answer::None)]);
        transaction.remove_chain(family, (table, &chain));
        transaction.remove_set(family, (table, &chain));
    }
    for ((transport, port), to) in &change.mesh_new {
        let chain = chain(*transport, *port);
        let place = Place { table, map: MESH, chain: &chain, only: &[E::ToThisHost], passes: None };
        balance::add(transaction, family, place, (key(None, *transport, *port), to, Turn::AddressesAndPorts));
    }
}

/// What has come and gone, in one family's table.
pub(super) fn change_elements(transaction: &mut Transaction, family: Family, table: &str, change: &Change) {
    if family == Family::Ipv4 {
        change_mesh(transaction, family, table, change);
    }
    let parts = [(&change.gone, &change.shut, false), (&change.new, &change.opened, true)];
    for (forwards, containers, adding) in parts {
        // A port that leads from an IPv6 address to an IPv4 one, or from ::1, is carried by the daemon itself.
        let ours = || {
            forwards.iter().filter(|one| {
                let (host, container) = (one.host.ip(), one.container.ip());
                let is_carried = host.is_ipv6() && host.is_loopback();
                family.has(host) && family.has(container) && one.host.port() != 0 && !is_carried
            })
        };
        let at = |one: &Forward| key(Some(one.host.ip()), one.transport, one.host.port());
        let named = ours().filter(|one| !one.host.ip().is_unspecified());
        let named = named.map(|one| (at(one), Answer::Value(target(one)))).collect();
        let everywhere = ours()
            .filter(|one| one.host.ip().is_unspecified())
            .map(|one| (key(None, one.transport, one.host.port()), Answer::Value(target(one))));
        let loopback =
            ours().filter(|one| one.host.ip().is_loopback()).map(|one| (at(one), Answer::None)).collect();
        let open = containers.iter().filter(|(_, container)| family.has(container.ip()));
        let open = open.map(|(transport, container)| {
            (key(Some(container.ip()), *transport, container.port()), Answer::None)
        });
        let sets: [(&str, Elements); 4] =
            [(PORTS_AT, named), (PORTS, everywhere.collect()), (LOOPBACK, loopback), (OPEN, open.collect())];
        for (set, elements) in sets {
            if adding {
                transaction.add(family, (table, set), &elements);
            } else {
                transaction.take(family, (table, set), &elements);
            }
        }
    }
}

/// Each part of a key fills whole registers.
pub(super) fn key(address: Option<IpAddr>, transport: Transport, port: u16) -> Vec<u8> {
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
