//! Spread preferences: nodes as a tree over the values of descriptors, in which each task goes down the emptier branch.
//!
//! Without preferences the tree is one leaf, and this is the choice among all nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::nodes::{NodeTable, Rank};
use crate::constraint::Descriptor;

/// A node of the table as one service sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its row in the table.
    pub(super) row: usize,
    /// Live tasks of the service on it.
    pub(super) of_service: u32,
    /// None when a filter refuses it: its tasks count in its branch all the same.
    pub(super) rank: Option<Rank>,
}

#[derive(Debug)]
pub(super) struct Tree {
    /// Live tasks of the service in it.
    of_service: u64,
    below: Below,
}

#[derive(Debug)]
enum Below {
    /// The nodes that may have the next task.
    Leaf(BinaryHeap<Reverse<(Rank, usize)>>),
    /// `open` holds the branches with such a node by what they are chosen by: the tasks in each, then its best node.
    Inner { branches: Vec<Tree>, open: BinaryHeap<Reverse<(u64, Rank, usize)>> },
}

impl Tree {
    /// The tree of these nodes, one level for each of the descriptors. One that has the same value everywhere is no level.
    pub(super) fn of(candidates: Vec<Candidate>, levels: &[Descriptor], table: &NodeTable) -> Self {
        let of_service = candidates.iter().map(|it| u64::from(it.of_service)).sum();
        for (index, descriptor) in levels.iter().enumerate() {
            let parts = parts_of(&candidates, descriptor, table);
            if parts.len() > 1 {
                let branches =
                    parts.into_iter().map(|part| Self::of(part, &levels[index + 1..], table)).collect();
                return Self { of_service, below: Below::inner(branches) };
            }
        }
        let nodes = candidates.into_iter().filter_map(|it| Some(Reverse((it.rank?, it.row))));
        Self { of_service, below: Below::Leaf(nodes.collect()) }
    }

    /// Has `put` place one task on the row that comes next; it answers the row's new rank, or none when the row can't have
    /// one more. False when there is no row.
    pub(super) fn place(&mut self, put: &mut dyn FnMut(usize) -> Option<Rank>) -> bool {
        let placed = match &mut self.below {
            Below::Leaf(nodes) => nodes.pop().is_some_and(|Reverse((_, row))| {
                nodes.extend(put(row).map(|rank| Reverse((rank, row))));
                true
            }),
            Below::Inner { branches, open } => open.pop().is_some_and(|Reverse((_, _, index))| {
                let placed = branches[index].place(put);
                open.extend(branches[index].as_choice(index));
                placed
            }),
        };
        self.of_service += u64::from(placed);
        placed
    }

    /// The rank of the node that comes next.
    fn best(&self) -> Option<Rank> {
        match &self.below {
            Below::Leaf(nodes) => nodes.peek().map(|Reverse((rank, _))| *rank),
            Below::Inner { open, .. } => open.peek().map(|Reverse((_, rank, _))| *rank),
        }
    }

    fn as_choice(&self, index: usize) -> Option<Reverse<(u64, Rank, usize)>> {
        self.best().map(|rank| Reverse((self.of_service, rank, index)))
    }
}

impl Below {
    fn inner(branches: Vec<Tree>) -> Self {
        let open =
            branches.iter().enumerate().filter_map(|(index, branch)| branch.as_choice(index)).collect();
        Self::Inner { branches, open }
    }
}

/// The candidates by what the descriptor reads of each; a node without such a label is with those where it is empty.
fn parts_of(
    candidates: &[Candidate],
    descriptor: &Descriptor,
    table: &NodeTable,
) -> impl ExactSizeIterator<Item = Vec<Candidate>> + use<> {
    let mut parts = BTreeMap::<_, Vec<Candidate>>::new();
    for candidate in candidates {
        parts.entry(descriptor.of(&table.rows()[candidate.row].node)).or_default().push(*candidate);
    }
    parts.into_values().collect::<Vec<_>>().into_iter()
}
