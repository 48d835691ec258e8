//! Whose VXLAN datagrams are believed. The kernel takes them from anybody who knows a network's number, and so would put frames of
//! strangers into networks of the cluster (CVE-2023-28840 to -28842).
//!
//! ```text
//! input    to the port of VXLAN: from a bridge of containers: dropped. From another node: accepted. The rest is dropped.
//! forward  to the port of VXLAN: to another node, or from a bridge of containers to elsewhere: dropped. It would leave with this
//!          node's own address, which the others believe.
//! output   to the port of VXLAN: of a program's socket, of a container with `--network host` for one: dropped, as above. The
//!          kernel's own datagrams have no socket of this namespace.
//! received, of an encrypted network: what came by no security association of ours: dropped.
//! output   of an encrypted network: what would leave in plain text: dropped.
//! raw-*    to the port of VXLAN, between nodes: nothing is remembered of it. What is inside has connections, not what is around it.
//! ```
//! A table of its own, which is there whatever the daemon's settings say of rules: without it no network is served. It is there from
//! the moment that the node belongs to a cluster: the others believe it whether it serves a network or not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Family;
use super::expression::{Expression as E, Verdict, interface, octets};
use super::kept::{Content, Kept};
use super::rules::{BEFORE_CONNECTIONS, address_type};
use super::table::{
    Answer, Elements, FORWARD, Holds, Hook, INPUT, OUTPUT, PREROUTING, SetKind, TYPE_INTEGER, TYPE_INTERFACE,
    Transaction,
};
use crate::network::netlink::NetlinkError;
use crate::network::xfrm::REQUEST;

const UDP: u8 = 17;
const PEERS: &str = "peers";
const BRIDGES: &str = "bridges";
const ENCRYPTED: &str = "encrypted";

/// Who is let in. Remembered: an agent that may not ask its managers yet writes the rules of before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::network) struct Guarded {
    /// The node's own data address, for its family.
    pub(in crate::network) address: IpAddr,
    pub(in crate::network) port: u16,
    pub(in crate::network) peers: BTreeSet<IpAddr>,
    /// Interfaces behind which are containers.
    pub(in crate::network) bridges: BTreeSet<String>,
    /// The identifiers of encrypted networks.
    pub(in crate::network) encrypted: BTreeSet<u32>,
}

/// The table, and a watch over it once it has been written.
pub(in crate::network) type Guard = Kept<Guarded>;

impl Guard {
    /// Named after this instance. Nothing is written.
    pub(in crate::network) fn of(instance: &str) -> Self {
        Self::new(format!("ketch-{instance}-vxlan"))
    }

    /// Bridges have come or gone.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::network) fn set_bridges(&self, bridges: BTreeSet<String>) -> Result<(), NetlinkError> {
        self.change(|wanted| {
            let is_other = wanted.bridges != bridges;
            wanted.bridges = bridges;
            is_other
        })
    }
}

impl Content for Guarded {
    fn write(&self, transaction: &mut Transaction, table: &str) {
        write(transaction, table, self);
    }
}

fn write(transaction: &mut Transaction, table: &str, wanted: &Guarded) {
    let family = if wanted.address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let (key, key_length) = address_type(family);
    transaction.table(family, table);
    transaction.set(family, (table, PEERS), SetKind { key, key_length, holds: Holds::Keys });
    let by_name = SetKind { key: TYPE_INTERFACE, key_length: 16, holds: Holds::Keys };
    transaction.set(family, (table, BRIDGES), by_name);
    let peers: Elements = wanted.peers.iter().map(|peer| (octets(*peer), Answer::None)).collect();
    transaction.add(family, (table, PEERS), &peers);
    let bridges: Elements =
        wanted.bridges.iter().map(|bridge| (interface(bridge).to_vec(), Answer::None)).collect();
    transaction.add(family, (table, BRIDGES), &bridges);

    let set = || PEERS.to_owned();
    let bridges = || BRIDGES.to_owned();
    let raw = [
        ("raw-in", PREROUTING, E::SourceInSet { set: set() }),
        ("raw-out", OUTPUT, E::AddressInSet { set: set() }),
    ];
    for (chain, number, peer) in raw {
        let hook = Hook { kind: "filter", number, priority: BEFORE_CONNECTIONS };
        transaction.chain(family, (table, chain), Some(hook));
        let rule = [E::Protocol(UDP), E::DestinationPort(wanted.port), peer, E::Untracked];
        transaction.rule(family, (table, chain), &rule);
    }
    for (chain, number, of, on) in [
        ("input", INPUT, None, "received"),
        ("forward", FORWARD, None, "forwarded"),
        ("output", OUTPUT, Some(E::OfSocket), "sent"),
    ] {
        transaction.chain(family, (table, on), None);
        transaction.chain(family, (table, chain), Some(Hook { kind: "filter", number, priority: 0 }));
        let jump = E::Then(Verdict::Jump(on.to_owned()));
        let to_port = [E::Protocol(UDP), E::DestinationPort(wanted.port)];
        let rule: Vec<E> = to_port.into_iter().chain(of).chain([jump]).collect();
        transaction.rule(family, (table, chain), &rule);
    }
    transaction.rule(
        family,
        (table, "received"),
        &[E::InputInSet { set: bridges() }, E::Then(Verdict::Drop)],
    );
    if !wanted.encrypted.is_empty() {
        write_encrypted(transaction, (family, table), wanted);
    }
    let mut rule = |chain: &str, which: E, verdict: Verdict| {
        transaction.rule(family, (table, chain), &[which, E::Then(verdict)]);
    };
    rule("received", E::SourceInSet { set: set() }, Verdict::Accept);
    for chain in ["forwarded", "sent"] {
        rule(chain, E::AddressInSet { set: set() }, Verdict::Drop);
        // Between containers the port is any port.
        rule(chain, E::OutputInSet { set: bridges() }, Verdict::Accept);
    }
    rule("forwarded", E::InputInSet { set: bridges() }, Verdict::Drop);
    for chain in ["received", "sent"] {
        transaction.rule(family, (table, chain), &[E::Then(Verdict::Drop)]);
    }
}

/// Only where there is such a network: a kernel may lack the words for it.
fn write_encrypted(transaction: &mut Transaction, (family, table): (Family, &str), wanted: &Guarded) {
    let kind = SetKind { key: TYPE_INTEGER, key_length: 4, holds: Holds::Keys };
    transaction.set(family, (table, ENCRYPTED), kind);
    let networks: Elements =
        wanted.encrypted.iter().map(|vni| ((vni << 8).to_be_bytes().to_vec(), Answer::None)).collect();
    transaction.add(family, (table, ENCRYPTED), &networks);
    let of_them = || E::OfNetworkInSet { set: ENCRYPTED.to_owned() };
    let peers = E::SourceInSet { set: PEERS.to_owned() };
    let ours = E::ByAssociation(REQUEST);
    let mut rule = |chain: &str, rule: &[E]| transaction.rule(family, (table, chain), rule);
    rule("received", &[of_them(), ours, peers, E::Then(Verdict::Accept)]);
    rule("received", &[of_them(), E::Then(Verdict::Drop)]);
    let [protocol, port] = [E::Protocol(UDP), E::DestinationPort(wanted.port)];
    rule("output", &[protocol, port, of_them(), E::InPlain, E::Then(Verdict::Drop)]);
}
