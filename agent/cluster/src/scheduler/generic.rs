//! Generic resources: how many of each kind a task wants, what of a node's is given, and which of the rest it gets.

use std::collections::{BTreeMap, BTreeSet};

use crate::objects::GenericResource;

/// What a task reserves: how many of each kind, never none of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GenericWants(BTreeMap<String, u64>);

impl GenericWants {
    pub(super) fn of(reservations: &[GenericResource]) -> Self {
        let mut wants = BTreeMap::<String, u64>::new();
        for resource in reservations.iter().filter(|resource| resource.amount() > 0) {
            let amount = wants.entry(resource.kind().to_owned()).or_default();
            *amount = amount.saturating_add(resource.amount());
        }
        Self(wants)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What of a node's generic resources its tasks have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Given {
    counts: BTreeMap<String, u64>,
    values: BTreeMap<String, BTreeSet<String>>,
}

impl Given {
    /// A task has these.
    pub(super) fn add(&mut self, resources: &[GenericResource]) {
        for resource in resources {
            match resource {
                GenericResource::Count { kind, amount } => {
                    let count = self.counts.entry(kind.clone()).or_default();
                    *count = count.saturating_add(*amount);
                }
                GenericResource::Named { kind, values } => {
                    self.values.entry(kind.clone()).or_default().extend(values.iter().cloned());
                }
            }
        }
    }

    /// What a task that wants these gets of a node that has `all`: of named ones the first that are free. None when
    /// there are not enough.
    pub(super) fn choose(
        &self,
        all: &[GenericResource],
        wants: &GenericWants,
    ) -> Option<Vec<GenericResource>> {
        wants
            .0
            .iter()
            .map(|(kind, amount)| {
                all.iter().filter(|it| it.kind() == kind).find_map(|it| self.part_of(it, *amount))
            })
            .collect()
    }

    fn part_of(&self, all: &GenericResource, wanted: u64) -> Option<GenericResource> {
        match all {
            GenericResource::Count { kind, amount } => {
                let given = self.counts.get(kind).copied().unwrap_or_default();
                let enough = given.checked_add(wanted).is_some_and(|sum| sum <= *amount);
                enough.then(|| GenericResource::Count { kind: kind.clone(), amount: wanted })
            }
            GenericResource::Named { kind, values } => {
                let given = self.values.get(kind);
                let free = values.iter().filter(|value| !given.is_some_and(|given| given.contains(*value)));
                let wanted = usize::try_from(wanted).ok()?;
                let chosen: BTreeSet<String> = free.take(wanted).cloned().collect();
                (chosen.len() == wanted)
                    .then(|| GenericResource::Named { kind: kind.clone(), values: chosen })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(kind: &str, amount: u64) -> GenericResource {
        GenericResource::Count { kind: kind.to_owned(), amount }
    }

    fn named(kind: &str, values: &[&str]) -> GenericResource {
        GenericResource::Named {
            kind: kind.to_owned(),
            values: values.iter().map(|&it| it.to_owned()).collect(),
        }
    }

    #[test]
    fn names_are_given_once() {
        let all = [named("GPU", &["a", "b", "c"])];
        let mut given = Given::default();
        let two = GenericWants::of(&[count("GPU", 1), count("GPU", 1)]);
        let first = given.choose(&all, &two).unwrap();
        assert_eq!(first, [named("GPU", &["a", "b"])]);
        given.add(&first);
        assert_eq!(given.choose(&all, &two), None);
        assert_eq!(
            given.choose(&all, &GenericWants::of(&[count("GPU", 1)])),
            Some(vec![named("GPU", &["c"])])
        );
    }

    #[test]
    fn counts_never_exceed_what_there_is() {
        let all = [count("SSD", 4)];
        let mut given = Given::default();
        given.add(&[count("SSD", 3)]);
        assert_eq!(given.choose(&all, &GenericWants::of(&[count("SSD", 1)])), Some(vec![count("SSD", 1)]));
        assert_eq!(given.choose(&all, &GenericWants::of(&[count("SSD", 2)])), None);
        assert_eq!(given.choose(&all, &GenericWants::of(&[count("SSD", u64::MAX)])), None);
        assert_eq!(given.choose(&all, &GenericWants::of(&[count("HDD", 1)])), None);
    }

    #[test]
    fn none_of_a_kind_is_no_want() {
        assert!(GenericWants::of(&[count("GPU", 0)]).is_empty());
        assert_eq!(Given::default().choose(&[], &GenericWants::of(&[count("GPU", 0)])), Some(Vec::new()));
    }
}
