//! What an overlay network's namespace has of rules: virtual addresses, and published ports of the mesh, lead to their backends in
//! turn. A connection stays with its first one, by the kernel's memory of it.
//!
//! ```text
//! prerouting   to a virtual address: on in `to-<address>`. By the door, to a published port: on in `port-<protocol>-<port>`.
//! to-, port-   to the next of the backends; of a service that has closed its ports, for those who may pass alone: of what comes by a
//!              virtual address, nobody but this node knows who has sent it.
//! postrouting  translated, into the network: from the node's own address, so that the answers come back here
//! forward      established, translated: accepted. The rest is dropped: the namespace is nobody's router.
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::expression::{Compare, Expression as E, Turn, Verdict, octets};
use super::pass::{self, Pass};
use super::rules::{TRANSLATE_DESTINATION, TRANSLATE_SOURCE, address_type, key};
use super::table::{
    Answer, Elements, FORWARD, Holds, Hook, POSTROUTING, PREROUTING, SetKind, TYPE_INTEGER, TYPE_PORT,
    TYPE_PROTOCOL, Transaction, concatenated,
};
use super::{Family, Prefix, Socket, Transport};
use crate::network::netlink::NetlinkError;

const TABLE: &str = "ketch-overlay";
const VIRTUAL: &str = "virtual";
const PORTS: &str = "ports";

/// What leads where in one network's namespace.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct Balanced<'a> {
    /// The network's bridge.
    pub(in crate::network) bridge: &'a str,
    /// The interface to the host.
    pub(in crate::network) door: &'a str,
    /// The node's own addresses.
    pub(in crate::network) own: &'a [Prefix],
    pub(in crate::network) addresses: &'a BTreeMap<IpAddr, Vec<IpAddr>>,
    /// Of the virtual addresses that are not for everybody: for whom they are.
    pub(in crate::network) passes: &'a BTreeMap<IpAddr, Vec<Pass>>,
    pub(in crate::network) ports: &'a BTreeMap<(Transport, u16), Vec<SocketAddr>>,
}

/// Something that leads to backends: a key of a map, and a chain of its own.
struct Way {
    map: &'static str,
    key: Vec<u8>,
    chain: String,
    backends: Vec<SocketAddr>,
    /// `None`: everybody.
    passes: Option<Vec<Pass>>,
    to: Turn,
}

impl Balanced<'_> {
    /// All that lead somewhere, by their chains.
    fn ways(&self, family: Family) -> BTreeMap<String, Way> {
        let by_address = self.addresses.iter().filter(|(address, _)| family.has(**address));
        let by_address = by_address.map(|(address, to)| Way {
            map: VIRTUAL,
            key: octets(*address),
            chain: format!("to-{address}"),
            backends: to.iter().map(|one| SocketAddr::new(*one, 0)).collect(),
            passes: self.passes.get(address).cloned(),
            to: Turn::Addresses,
        });
        let by_port = self.ports.iter().map(|((transport, port), to)| Way {
            map: PORTS,
            key: key(None, *transport, *port),
            chain: format!("port-{}-{port}", transport.name()),
            backends: to.iter().copied().filter(|one| family.has(one.ip())).collect(),
            passes: None,
            to: Turn::AddressesAndPorts,
        });
        let ways = by_address.chain(by_port).filter(|way| !way.backends.is_empty());
        ways.map(|way| (way.chain.clone(), way)).collect()
    }

    fn own(&self, family: Family) -> Option<IpAddr> {
        self.own.iter().map(|own| own.address()).find(|own| family.has(*own))
    }
}

/// Writes the tables of the calling thread's namespace. `before`: what was written last, of which only what differs is written.
///
/// # Errors
/// The kernel's: it has what it had.
pub(in crate::network) fn write(
    balanced: &Balanced<'_>,
    before: Option<&Balanced<'_>>,
) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
    if let Some(before) = before.filter(|before| before.own == balanced.own) {
        let mut transaction = Transaction::default();
        for family in Family::BOTH.into_iter().filter(|family| balanced.own(*family).is_some()) {
            change(&mut transaction, family, (before, balanced));
        }
        if transaction.commit(&mut socket).is_ok() {
            return Ok(());
        }
        // Somebody has had a hand in it.
    }
    let mut transaction = Transaction::default();
    for family in Family::BOTH {
        transaction.remove_table(family, TABLE);
        write_forward(&mut transaction, family);
        if let Some(own) = balanced.own(family) {
            write_family(&mut transaction, family, (balanced, own));
        }
    }
    transaction.commit(&mut socket)
}

fn change(transaction: &mut Transaction, family: Family, (before, now): (&Balanced<'_>, &Balanced<'_>)) {
    let (before, now) = (before.ways(family), now.ways(family));
    let is_same = |one: &Way, other: Option<&Way>| {
        other.is_some_and(|it| it.backends == one.backends && it.passes == one.passes)
    };
    for (chain, way) in before.iter().filter(|(chain, way)| !is_same(way, now.get(*chain))) {
        transaction.take(family, (TABLE, way.map), &[(way.key.clone(), Answer::None)]);
        transaction.remove_chain(family, (TABLE, chain));
        transaction.remove_set(family, (TABLE, chain));
        pass::remove_sets(transaction, family, (TABLE, chain), way.passes.as_deref().unwrap_or_default());
    }
    for way in now.values().filter(|way| !is_same(way, before.get(&way.chain))) {
        add_way(transaction, family, way);
    }
}

/// Whether the node has an address in the network or not: what is not translated goes nowhere.
fn write_forward(transaction: &mut Transaction, family: Family) {
    transaction.table(family, TABLE);
    let hook = Hook { kind: "filter", number: FORWARD, priority: 0 };
    transaction.chain(family, (TABLE, "forward"), Some(hook));
    for passes in [E::Established, E::Translated] {
        transaction.rule(family, (TABLE, "forward"), &[passes, E::Then(Verdict::Accept)]);
    }
    transaction.rule(family, (TABLE, "forward"), &[E::Then(Verdict::Drop)]);
}

fn write_family(transaction: &mut Transaction, family: Family, (balanced, own): (&Balanced<'_>, IpAddr)) {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    transaction.chain(family, (TABLE, "prerouting"), hook("nat", PREROUTING, TRANSLATE_DESTINATION));
    transaction.chain(family, (TABLE, "postrouting"), hook("nat", POSTROUTING, TRANSLATE_SOURCE));

    let (address, length) = address_type(family);
    let verdicts = |key, key_length| SetKind { key, key_length, holds: Holds::Verdicts };
    transaction.set(family, (TABLE, VIRTUAL), verdicts(address, length));
    transaction.set(family, (TABLE, PORTS), verdicts(concatenated(&[TYPE_PROTOCOL, TYPE_PORT]), 8));
    for way in balanced.ways(family).values() {
        add_way(transaction, family, way);
    }

    let mut rule = |chain: &str, rule: &[E]| transaction.rule(family, (TABLE, chain), rule);
    rule("prerouting", &[E::ByDestination { map: VIRTUAL.to_owned() }]);
    let by_door = E::InputIs(Compare::Equal, balanced.door.to_owned());
    rule("prerouting", &[by_door, E::ByProtocolAndPort { map: PORTS.to_owned() }]);
    let into = E::OutputIs(Compare::Equal, balanced.bridge.to_owned());
    rule("postrouting", &[into, E::Translated, E::FromAddress(own)]);
}

fn add_way(transaction: &mut Transaction, family: Family, way: &Way) {
    let place =
        Place { table: TABLE, map: way.map, chain: &way.chain, only: &[], passes: way.passes.as_deref() };
    add(transaction, family, place, (way.key.clone(), &way.backends, way.to));
}

/// Where a chain of backends is, and what leads to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) table: &'a str,
    /// It has the chain.
    pub(super) map: &'a str,
    /// The chain, and the map of its backends by number.
    pub(super) chain: &'a str,
    /// What else has to be so.
    pub(super) only: &'a [E],
    /// Who is led; `None`: everybody.
    pub(super) passes: Option<&'a [Pass]>,
}

/// Has a key of a map lead to backends in turn; without any, it leads nowhere.
pub(super) fn add(
    transaction: &mut Transaction,
    family: Family,
    place: Place<'_>,
    (key, backends, to): (Vec<u8>, &[SocketAddr], Turn),
) {
    let Some(of) = u32::try_from(backends.len()).ok().filter(|count| *count > 0) else { return };
    let (address, length) = address_type(family);
    let holds = match to {
        Turn::Addresses => Holds::Values { kind: address, length },
        Turn::AddressesAndPorts => {
            Holds::Values { kind: concatenated(&[address, TYPE_PORT]), length: length + 4 }
        }
    };
    let own = (place.table, place.chain);
    transaction.set(family, own, SetKind { key: TYPE_INTEGER, key_length: 4, holds });
    let numbered: Elements = (0_u32..)
        .zip(backends)
        .map(|(number, backend)| (number.to_ne_bytes().to_vec(), Answer::Value(value(*backend, to))))
        .collect();
    transaction.add(family, own, &numbered);
    transaction.chain(family, own, None);
    let mut rule = place.only.to_vec();
    rule.push(E::InTurn { map: place.chain.to_owned(), of, to });
    match place.passes {
        None => transaction.rule(family, own, &rule),
        Some(passes) => pass::write(transaction, family, own, (passes, &rule)),
    }
    let jump = Answer::Verdict(Verdict::Jump(place.chain.to_owned()));
    transaction.add(family, (place.table, place.map), &[(key, jump)]);
}

fn value(backend: SocketAddr, to: Turn) -> Vec<u8> {
    let mut value = octets(backend.ip());
    if to == Turn::AddressesAndPorts {
        value.extend_from_slice(&backend.port().to_be_bytes());
        value.extend_from_slice(&[0, 0]);
    }
    value
}
