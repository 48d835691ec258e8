//! Who may go to which ports: what rules have of it, in each table that asks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::expression::{Compare, Expression as E, octets};
use super::rules::address_type;
use super::table::{Answer, Elements, Holds, SetKind, Transaction};
use super::{Family, Transport};

/// Ports that some may go to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::network) struct Pass {
    /// By which interface they come; `None`: by any.
    pub(in crate::network) interface: Option<String>,
    /// Who they are; `None`: anybody.
    pub(in crate::network) from: Option<BTreeSet<IpAddr>>,
    pub(in crate::network) transport: Transport,
    /// The first and the last.
    pub(in crate::network) ports: (u16, u16),
}

impl Pass {
    /// Its sources of one family; `None`: there are none.
    fn sources(&self, family: Family) -> Option<Elements> {
        let from = self.from.iter().flatten().filter(|address| family.has(**address));
        let elements: Elements = from.map(|address| (octets(*address), Answer::None)).collect();
        (!elements.is_empty()).then_some(elements)
    }

    /// Whether it says anything of a family.
    fn is_of(&self, family: Family) -> bool {
        self.from.is_none() || self.sources(family).is_some()
    }
}

/// Has a chain end in `then` for those who may pass. Its sets are named after it.
pub(super) fn write(
    transaction: &mut Transaction,
    family: Family,
    (table, chain): (&str, &str),
    (passes, then): (&[Pass], &[E]),
) {
    let (key, key_length) = address_type(family);
    for (number, pass) in passes.iter().enumerate().filter(|(_, pass)| pass.is_of(family)) {
        let set = set_of(chain, number);
        let mut rule: Vec<E> = Vec::new();
        rule.extend(pass.interface.clone().map(|name| E::InputIs(Compare::Equal, name)));
        rule.push(E::Protocol(pass.transport.number()));
        rule.push(E::DestinationPorts(pass.ports.0..=pass.ports.1));
        if let Some(sources) = pass.sources(family) {
            transaction.set(family, (table, &set), SetKind { key, key_length, holds: Holds::Keys });
            transaction.add(family, (table, &set), &sources);
            rule.push(E::SourceInSet { set });
        }
        rule.extend_from_slice(then);
        transaction.rule(family, (table, chain), &rule);
    }
}

/// Takes the sets away that a chain had, which is gone.
pub(super) fn remove_sets(
    transaction: &mut Transaction,
    family: Family,
    (table, chain): (&str, &str),
    passes: &[Pass],
) {
    let with_set = passes.iter().enumerate().filter(|(_, pass)| pass.sources(family).is_some());
    for (number, _) in with_set {
        transaction.remove_set(family, (table, &set_of(chain, number)));
    }
}

fn set_of(chain: &str, number: usize) -> String {
    format!("{chain}-from-{number}")
}
