//! The choice among the nodes: down the emptier branch of each spread preference, then the best node of the leaf.
//!
//! A leaf asks the filters about no node before its turn. Nodes that have a task of the service, or on which it failed
//! too often, come after all others: they wait in a heap, the others in the order of the
//! [`Partition`](super::partition::Partition).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::layout::{Layout, Shape};
use super::nodes::Rank;
use super::partition::Place;
use super::pipeline::Pipeline;
use super::table::{NodeTable, Walk};

/// The nodes as the tasks of one batch see them.
#[derive(Debug)]
pub(super) struct Candidates<'p> {
    pub(super) table: &'p mut NodeTable,
    pub(super) pipeline: &'p Pipeline,
    /// Of late, by row: only where there are too many.
    pub(super) failures: &'p BTreeMap<usize, u32>,
    /// Which of the table's.
    pub(super) partition: usize,
    /// The row with which this service begins.
    pub(super) start: usize,
}

impl Candidates<'_> {
    fn layout(&self) -> &Layout {
        self.table.partition(self.partition).layout()
    }

    /// The place after `last` in a leaf, of those that nobody has been refused.
    fn after(&mut self, leaf: usize, last: Option<Place>) -> Option<Place> {
        self.table.after(Walk { partition: self.partition, leaf, start: self.start }, last)
    }

    fn rank(&self, row: usize) -> Rank {
        let failures = self.failures.get(&row).copied().unwrap_or_default();
        self.table.rows()[row].rank(self.pipeline.wants.service, failures)
    }

    /// Asks the filters, and remembers for others what they will be told as well.
    fn may_have_one(&mut self, row: usize) -> bool {
        let refusal = self.pipeline.refusal(&self.table.rows()[row]);
        if let Some(filter) = refusal.filter(|filter| filter.lasts()) {
            self.table.strike(self.partition, row, filter);
        }
        refusal.is_none()
    }

    /// Whether it comes after all nodes that have neither tasks nor failures of the service.
    fn comes_late(&self, row: usize) -> bool {
        self.table.rows()[row].live_of(self.pipeline.wants.service) > 0 || self.failures.contains_key(&row)
    }

    /// The rows that come late, by their leaf.
    fn late_ones(&self) -> BTreeMap<usize, Vec<usize>> {
        let with_tasks = self.table.rows_with(self.pipeline.wants.service);
        let with_failures = self
            .failures
            .keys()
            .copied()
            .filter(|row| self.table.rows()[*row].live_of(self.pipeline.wants.service) == 0);
        let mut late = BTreeMap::<usize, Vec<usize>>::new();
        for row in with_tasks.chain(with_failures) {
            late.entry(self.layout().leaf_of(row)).or_default().push(row);
        }
        late
    }
}

#[derive(Debug)]
pub(super) struct Tree {
    /// Live tasks of the service in it, on nodes that are refused too.
    of_service: u64,
    below: Below,
}

#[derive(Debug)]
enum Below {
    Leaf(Leaf),
    /// `open` holds the branches that have a node for the next task by what they are chosen by: the tasks in each, then its
    /// best node.
    Inner {
        branches: Vec<Tree>,
        open: BinaryHeap<Reverse<(u64, Rank, usize)>>,
    },
}

#[derive(Debug)]
struct Leaf {
    number: usize,
    /// How far the partition's order has been walked.
    walked: Option<Place>,
    late: BinaryHeap<Reverse<(Rank, usize)>>,
    /// The node that gets the next task; none when no node can have it.
    next: Option<(Rank, usize)>,
}

impl Tree {
    pub(super) fn of(candidates: &mut Candidates<'_>) -> Self {
        let mut late = candidates.late_ones();
        let layout = candidates.table.partition(candidates.partition).shared_layout();
        Self::of_shape(layout.shape(), &mut late, candidates)
    }

    fn of_shape(
        shape: &Shape,
        late: &mut BTreeMap<usize, Vec<usize>>,
        candidates: &mut Candidates<'_>,
    ) -> Self {
        match shape {
            Shape::Leaf(number) => {
                let late = late.remove(number).unwrap_or_default();
                let service = candidates.pipeline.wants.service;
                let rows = late.iter().map(|row| &candidates.table.rows()[*row]);
                let of_service = rows.map(|row| u64::from(row.live_of(service))).sum();
                let late = late.into_iter().map(|row| Reverse((candidates.rank(row), row))).collect();
                let mut leaf = Leaf { number: *number, walked: None, late, next: None };
                leaf.find_next(candidates);
                Self { of_service, below: Below::Leaf(leaf) }
            }
            Shape::Inner(shapes) => {
                let branches: Vec<_> =
                    shapes.iter().map(|shape| Self::of_shape(shape, late, candidates)).collect();
                let open =
                    branches.iter().enumerate().filter_map(|(index, it)| it.as_choice(index)).collect();
                let of_service = branches.iter().map(|branch| branch.of_service).sum();
                Self { of_service, below: Below::Inner { branches, open } }
            }
        }
    }

    /// Has `put` place one task on the row that comes next. False when no row can have it.
    pub(super) fn place(
        &mut self,
        candidates: &mut Candidates<'_>,
        put: &mut dyn FnMut(&mut NodeTable, usize),
    ) -> bool {
        let placed = match &mut self.below {
            Below::Leaf(leaf) => leaf.next.take().is_some_and(|(_, row)| {
                put(candidates.table, row);
                leaf.late.push(Reverse((candidates.rank(row), row)));
                leaf.find_next(candidates);
                true
            }),
            Below::Inner { branches, open } => open.pop().is_some_and(|Reverse((_, _, index))| {
                let placed = branches[index].place(candidates, put);
                open.extend(branches[index].as_choice(index));
                placed
            }),
        };
        self.of_service += u64::from(placed);
        placed
    }

    fn as_choice(&self, index: usize) -> Option<Reverse<(u64, Rank, usize)>> {
        let best = match &self.below {
            Below::Leaf(leaf) => leaf.next.map(|(rank, _)| rank),
            Below::Inner { open, .. } => open.peek().map(|Reverse((_, rank, _))| *rank),
        };
        best.map(|rank| Reverse((self.of_service, rank, index)))
    }
}

impl Leaf {
    /// A node that a filter refuses is passed over for good: it can't get better while this batch is placed.
    fn find_next(&mut self, candidates: &mut Candidates<'_>) {
        while let Some(place) = candidates.after(self.number, self.walked) {
            self.walked = Some(place);
            let row = place.row();
            if !candidates.comes_late(row) && candidates.may_have_one(row) {
                self.next = Some((candidates.rank(row), row));
                return;
            }
        }
        while let Some(Reverse((rank, row))) = self.late.pop() {
            if candidates.may_have_one(row) {
                self.next = Some((rank, row));
                return;
            }
        }
    }
}
