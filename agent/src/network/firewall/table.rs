//! Tables, chains, sets, rules and elements as requests of one nf_tables transaction.

use rustix::io::Errno;

use super::Family;
use super::expression::{self, Expression, Verdict};
use crate::network::netlink::{Attributes, Batch, NLM_F_ACK, NLM_F_CREATE, NetlinkError, Socket, attributes};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// nf_tables among netfilter's subsystems; the high byte of a request's type.
pub(super) const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
const NEW_OBJECT: u16 = 18;
const GET_OBJECT: u16 = 19;
/// To the end of what a chain has.
const NLM_F_APPEND: u16 = 0x800;

const SET_IS_MAP: u32 = 8;
const VERDICTS: u32 = 0xffff_ff00;
const NFTA_LIST_ELEM: u16 = 1;

/// How nft(8) names what a set has: its own numbers, which the kernel only keeps.
pub(super) const TYPE_INTEGER: u32 = 4;
pub(super) const TYPE_IPV4: u32 = 7;
pub(super) const TYPE_IPV6: u32 = 8;
pub(super) const TYPE_ETHERNET: u32 = 9;
pub(super) const TYPE_PROTOCOL: u32 = 12;
pub(super) const TYPE_PORT: u32 = 13;
pub(super) const TYPE_INTERFACE: u32 = 41;

/// How many packets a counter has counted.
///
/// # Errors
/// The kernel's; `ENOENT`: there is none.
pub(super) fn counted(
    socket: &mut Socket,
    family: Family,
    (table, counter): (&str, &str),
) -> Result<u64, NetlinkError> {
    let mut list = Attributes::default();
    list.text(1, table).text(2, counter).ordered(3, expression::OBJECT_IS_COUNTER);
    let number = if family == Family::Ipv4 { 2 } else { 10 };
    let action = format!("reading the counter {counter}");
    let message = socket.one(&action, (SUBSYSTEM << 8) | GET_OBJECT, &[number, 0, 0, 0], &list)?;
    Ok(packets(message.body.get(4..).unwrap_or_default()).unwrap_or_default())
}

/// Whether there is such a table, whoever has made it.
///
/// # Errors
/// The kernel's.
pub(super) fn is_there(socket: &mut Socket, family: Family, table: &str) -> Result<bool, NetlinkError> {
    let mut list = Attributes::default();
    list.text(1, table);
    let number = if family == Family::Ipv4 { 2 } else { 10 };
    let action = format!("looking for the table {table}");
    match socket.one(&action, (SUBSYSTEM << 8) | GET_TABLE, &[number, 0, 0, 0], &list) {
        Ok(_) => Ok(true),
        Err(error) if error.errno == Errno::NOENT => Ok(false),
        Err(error) => Err(error),
    }
}

/// Of a counter as the kernel tells it.
fn packets(list: &[u8]) -> Option<u64> {
    let part = |list, kind| attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value);
    Some(u64::from_be_bytes(part(part(list, 4)?, 2)?.try_into().ok()?))
}

/// Several types behind each other are one type.
pub(super) fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| (all << 6) | one)
}

/// Where a chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// `filter`, `nat`.
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

pub(super) const PREROUTING: u32 = 0;
pub(super) const INPUT: u32 = 1;
pub(super) const FORWARD: u32 = 2;
pub(super) const OUTPUT: u32 = 3;
pub(super) const POSTROUTING: u32 = 4;

/// What a set or map holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetKind {
    pub(super) key: u32,
    pub(super) key_length: u32,
    pub(super) holds: Holds,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Holds {
    Keys,
    Verdicts,
    Values { kind: u32, length: u32 },
}

/// An element's answer.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    None,
    Verdict(Verdict),
    Value(Vec<u8>),
}

/// Elements of a set, by key.
pub(super) type Elements = Vec<(Vec<u8>, Answer)>;

/// Requests that take effect together, or not at all.
#[derive(Debug, Default)]
pub(in crate::network) struct Transaction {
    batch: Batch,
    requests: usize,
    of: Tables,
}

/// Whose tables a transaction changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tables {
    /// `ip` and `ip6`.
    #[default]
    Hosts,
    /// `bridge`: a request's family says only where addresses are in a frame.
    Bridges,
}

impl Transaction {
    /// Of what bridges forward.
    pub(super) fn of_bridges() -> Self {
        Self { of: Tables::Bridges, ..Self::default() }
    }

    fn push(&mut self, action: String, (kind, flags): (u16, u16), family: Family, list: &Attributes) {
        if self.requests == 0 {
            self.boundary(BATCH_BEGIN);
        }
        self.requests += 1;
        let family = match (self.of, family) {
            (Tables::Hosts, Family::Ipv4) => 2,
            (Tables::Hosts, Family::Ipv6) => 10,
            (Tables::Bridges, _) => 7,
        };
        self.batch.push(action, ((SUBSYSTEM << 8) | kind, flags), &[family, 0, 0, 0], list);
    }

    fn boundary(&mut self, kind: u16) {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        self.batch.push("changing the packet filter", (kind, 0), &[0, 0, high, low], &Attributes::default());
    }

    /// Sends it.
    pub(super) fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        if self.requests == 0 {
            return Ok(());
        }
        self.boundary(BATCH_END);
        socket.run_until(&self.batch, self.requests)
    }

    /// A table that is not there is well: it is made first.
    pub(super) fn remove_table(&mut self, family: Family, table: &str) {
        let mut list = Attributes::default();
        list.text(1, table);
        self.push(format!("making the table {table}"), (NEW_TABLE, NLM_F_CREATE | NLM_F_ACK), family, &list);
        self.push(format!("removing the table {table}"), (DELETE_TABLE, NLM_F_ACK), family, &list);
    }

    pub(super) fn table(&mut self, family: Family, table: &str) {
        let mut list = Attributes::default();
        list.text(1, table);
        self.push(format!("making the table {table}"), (NEW_TABLE, NLM_F_CREATE | NLM_F_ACK), family, &list);
    }

    /// A counter that rules name, at zero.
    pub(super) fn counter(&mut self, family: Family, (table, counter): (&str, &str)) {
        let mut list = Attributes::default();
        list.text(1, table).text(2, counter).ordered(3, expression::OBJECT_IS_COUNTER).nest(4, |_| {});
        self.push(
            format!("making the counter {counter}"),
            (NEW_OBJECT, NLM_F_CREATE | NLM_F_ACK),
            family,
            &list,
        );
    }

    pub(super) fn chain(&mut self, family: Family, (table, chain): (&str, &str), hook: Option<Hook>) {
        let mut list = Attributes::default();
        list.text(1, table).text(3, chain);
        if let Some(hook) = hook {
            list.nest(4, |place| {
                place.ordered(1, hook.number).ordered(2, hook.priority.cast_unsigned());
            });
            // Accept: what is nobody's business of ours goes on.
            list.ordered(5, 1).text(7, hook.kind);
        }
        self.push(format!("making the chain {chain}"), (NEW_CHAIN, NLM_F_CREATE | NLM_F_ACK), family, &list);
    }

    pub(super) fn rule(&mut self, family: Family, (table, chain): (&str, &str), rule: &[Expression]) {
        let mut list = Attributes::default();
        list.text(1, table).text(2, chain);
        let expressions = expression::encode(family, rule);
        list.nest(4, |inner| {
            inner.header(expressions.as_slice());
        });
        let flags = NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK;
        self.push(format!("making the rule {rule:?}"), (NEW_RULE, flags), family, &list);
    }

    /// Takes all rules of a chain away.
    pub(super) fn empty(&mut self, family: Family, (table, chain): (&str, &str)) {
        let mut list = Attributes::default();
        list.text(1, table).text(2, chain);
        self.push(format!("emptying the chain {chain}"), (DELETE_RULE, NLM_F_ACK), family, &list);
    }

    pub(super) fn set(&mut self, family: Family, (table, set): (&str, &str), kind: SetKind) {
        let mut list = Attributes::default();
        list.text(1, table).text(2, set);
        let flags = if matches!(kind.holds, Holds::Keys) { 0 } else { SET_IS_MAP };
        list.ordered(3, flags).ordered(4, kind.key).ordered(5, kind.key_length);
        match kind.holds {
            Holds::Keys => {}
            Holds::Verdicts => {
                list.ordered(6, VERDICTS).ordered(7, 0);
            }
            Holds::Values { kind, length } => {
                list.ordered(6, kind).ordered(7, length);
            }
        }
        if matches!(kind.key, TYPE_INTERFACE | TYPE_INTEGER) {
            // For nft(8), to which names are numbers: the key's byte order (0), four bytes, the host's (1).
            let [a, b, c, d] = 1_u32.to_ne_bytes();
            list.bytes(13, &[0, 4, a, b, c, d]);
        }
        // A number by which requests of this transaction could name it; any will do.
        list.ordered(10, u32::try_from(self.requests).unwrap_or_default() + 1);
        self.push(format!("making the set {set}"), (NEW_SET, NLM_F_CREATE | NLM_F_ACK), family, &list);
    }

    /// Takes a chain with its rules away; nothing may lead to it any more.
    pub(super) fn remove_chain(&mut self, family: Family, (table, chain): (&str, &str)) {
        let mut list = Attributes::default();
        list.text(1, table).text(3, chain);
        self.push(format!("removing the chain {chain}"), (DELETE_CHAIN, NLM_F_ACK), family, &list);
    }

    /// Takes a set away that no rule looks into any more.
    pub(super) fn remove_set(&mut self, family: Family, (table, set): (&str, &str)) {
        let mut list = Attributes::default();
        list.text(1, table).text(2, set);
        self.push(format!("removing the set {set}"), (DELETE_SET, NLM_F_ACK), family, &list);
    }

    /// Adds elements to a set.
    pub(super) fn add(&mut self, family: Family, place: (&str, &str), elements: &[(Vec<u8>, Answer)]) {
        self.elements("adding to", (NEW_ELEMENT, NLM_F_CREATE | NLM_F_ACK), family, place, elements);
    }

    /// Takes them away.
    pub(super) fn take(&mut self, family: Family, place: (&str, &str), elements: &[(Vec<u8>, Answer)]) {
        self.elements("taking from", (DELETE_ELEMENT, NLM_F_ACK), family, place, elements);
    }

    fn elements(
        &mut self,
        action: &str,
        request: (u16, u16),
        family: Family,
        (table, set): (&str, &str),
        elements: &[(Vec<u8>, Answer)],
    ) {
        // An attribute has at most 64 KiB.
        for some in elements.chunks(256) {
            let mut list = Attributes::default();
            list.text(1, table).text(2, set).nest(3, |all| {
                for (key, answer) in some {
                    all.nest(NFTA_LIST_ELEM, |element| {
                        element.nest(1, |data| expression::value(data, key));
                        match answer {
                            Answer::None => {}
                            Answer::Verdict(verdict) => {
                                element.nest(2, |data| expression::verdict(data, verdict));
                            }
                            Answer::Value(value) => {
                                element.nest(2, |data| expression::value(data, value));
                            }
                        }
                    });
                }
            });
            self.push(format!("{action} the set {set}"), request, family, &list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_packets_are_read_and_a_cut_answer_is_none() {
        let mut list = Attributes::default();
        list.text(2, "opened").nest(4, |data| {
            data.bytes(1, &900_u64.to_be_bytes()).bytes(2, &7_u64.to_be_bytes());
        });
        assert_eq!(packets(list.as_slice()), Some(7));
        for length in 0..list.len() {
            assert!(matches!(packets(&list.as_slice()[..length]), None | Some(7)), "{length}");
        }
    }
}
