//! Published ports that are not for everybody, or not open everywhere (the labels `ketch.publish.from` and `ketch.publish.ip`).
//!
//! ```text
//! prerouting,  established: accepted. To such a port and an address of this host: on in `port-<protocol>-<port>`. It is before anything
//! output       (by multicast and broadcast too, which sockets at all addresses take) is translated, and before the daemon's own sockets, which carry what the packet filter does not.
//! port-<..>    at an address, or by an interface, where it is open: on in `from-<protocol>-<port>`. The rest is dropped.
//! from-<..>    from one of the sources: accepted. The rest is dropped.
//! ```
//! A table of its own, which is there whatever the daemon's settings say of rules, while there is such a port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::expression::{Compare, Expression as E, Verdict};
use super::kept::{Content, Kept};
use super::rules::key;
use super::table::{
    Answer, Elements, Holds, Hook, OUTPUT, PREROUTING, SetKind, TYPE_PORT, TYPE_PROTOCOL, Transaction,
    concatenated,
};
use super::{Family, Prefix, Transport};

/// After connections are known, before destinations are translated.
const BEFORE_TRANSLATION: i32 = -150;
const PORTS: &str = "ports";
const NARROWED: &str = "narrowed";

/// Where a port is open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::network) enum OpenAt {
    Address(IpAddr),
    /// What comes in by it.
    Interface(String),
}

/// How a port is narrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct Narrowing {
    /// Who reaches it; `None`: everybody.
    pub(in crate::network) from: Option<Vec<Prefix>>,
    /// Where it is open; `None`: at each of the host's addresses.
    pub(in crate::network) at: Option<Vec<OpenAt>>,
}

/// By the host's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct Narrowed(pub(in crate::network) BTreeMap<(Transport, u16), Narrowing>);

/// The table, and a watch over it once it has been written.
pub(in crate::network) type Narrows = Kept<Narrowed>;

impl Narrows {
    /// Named after this instance. Nothing is written.
    pub(in crate::network) fn of(instance: &str) -> Self {
        Self::new(format!("ketch-{instance}-published"))
    }
}

impl Content for Narrowed {
    fn write(&self, transaction: &mut Transaction, table: &str) {
        for family in Family::BOTH {
            write(transaction, family, table, self);
        }
    }
}

fn write(transaction: &mut Transaction, family: Family, table: &str, narrowed: &Narrowed) {
    transaction.table(family, table);
    let kind = concatenated(&[TYPE_PROTOCOL, TYPE_PORT]);
    transaction.set(family, (table, PORTS), SetKind { key: kind, key_length: 8, holds: Holds::Verdicts });
    for ((transport, port), narrowing) in &narrowed.0 {
        let chain = format!("port-{}-{port}", transport.name());
        let from = format!("from-{}-{port}", transport.name());
        write_from(transaction, family, (table, &from), narrowing);
        write_at(transaction, family, (table, &chain), (narrowing, &from));
        let jump = Answer::Verdict(Verdict::Jump(chain));
        transaction.add(family, (table, PORTS), &[(key(None, *transport, *port), jump)]);
    }
    let narrowed: Elements =
        narrowed.0.keys().map(|(transport, port)| (key(None, *transport, *port), Answer::None)).collect();
    transaction.set(family, (table, NARROWED), SetKind { key: kind, key_length: 8, holds: Holds::Keys });
    transaction.add(family, (table, NARROWED), &narrowed);
    // What is for everybody or whoever listens comes to the daemon's sockets too; what this host sends so comes back by prerouting.
    for (chain, number, to) in
        [("prerouting", PREROUTING, E::NotToAnother), ("output", OUTPUT, E::ToThisHost)]
    {
        let hook = Hook { kind: "filter", number, priority: BEFORE_TRANSLATION };
        transaction.chain(family, (table, chain), Some(hook));
        transaction.rule(family, (table, chain), &[E::Established, E::Then(Verdict::Accept)]);
        // The ports first: routes are looked into for those alone, and not for each new connection of the host.
        let is_narrowed = E::ProtocolAndPortInSet { set: NARROWED.to_owned() };
        let ports = E::ByProtocolAndPort { map: PORTS.to_owned() };
        transaction.rule(family, (table, chain), &[is_narrowed, to, ports]);
    }
}

fn write_from(transaction: &mut Transaction, family: Family, place: (&str, &str), narrowing: &Narrowing) {
    transaction.chain(family, place, None);
    let Some(from) = &narrowing.from else {
        transaction.rule(family, place, &[E::Then(Verdict::Accept)]);
        return;
    };
    for subnet in from.iter().filter(|subnet| family.has(subnet.address())) {
        transaction.rule(family, place, &[E::SourceIn(*subnet), E::Then(Verdict::Accept)]);
    }
    transaction.rule(family, place, &[E::Then(Verdict::Drop)]);
}

fn write_at(
    transaction: &mut Transaction,
    family: Family,
    place: (&str, &str),
    (narrowing, from): (&Narrowing, &str),
) {
    transaction.chain(family, place, None);
    let on = || E::Then(Verdict::Jump(from.to_owned()));
    let Some(at) = &narrowing.at else {
        transaction.rule(family, place, &[on()]);
        return;
    };
    for open in at {
        let which = match open {
            OpenAt::Address(address) if family.has(*address) => {
                Prefix::new(*address, if address.is_ipv4() { 32 } else { 128 }).map(E::DestinationIn)
            }
            OpenAt::Address(_) => None,
            OpenAt::Interface(name) => Some(E::InputIs(Compare::Equal, name.clone())),
        };
        if let Some(which) = which {
            transaction.rule(family, place, &[which, on()]);
        }
    }
    transaction.rule(family, place, &[E::Then(Verdict::Drop)]);
}
