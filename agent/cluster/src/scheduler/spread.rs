//! The choice among the nodes: down the emptier branch of each spread preference, then the best node of the leaf.
//!
//! It is lazy: a branch is looked into when it is one of the emptiest, so that few tasks of a large service cost a look at the few leaves
//! that lack one; and a leaf asks the filters about no node before its turn. Nodes that have a task of the service, or on which it failed
//! too often, come after all others: they are looked at when their leaf has no other node left, the others in the order of the
//! [`Partition`](super::partition::Partition).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

use super::effort;
use super::layout::Shape;
use super::members::Members;
use super::nodes::{Rank, start_of};
use super::partition::Place;
use super::pipeline::Pipeline;
use super::table::NodeTable;

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
    /// The place after `last` in a leaf, of those that nobody has been refused and that have no task of the service.
    fn after(&mut self, way: (usize, usize), last: Option<Place>) -> Option<Place> {
        effort::look();
        self.table.after(self.partition, way, last)
    }

    /// The member of a leaf with which this service begins.
    fn start_in(&self, leaf: usize) -> usize {
        let members = self.table.partition(self.partition).layout().members(leaf);
        members.partition_point(|row| *row < self.start)
    }

    fn rank(&self, row: usize) -> Rank {
        let failures = self.failures.get(&row).copied().unwrap_or_default();
        self.ranked(row, (failures, self.live_on(row)))
    }

    /// How many live tasks of the service are on it.
    fn live_on(&self, row: usize) -> u32 {
        self.table.rows()[row].live_of(self.pipeline.wants.service)
    }

    /// Its rank with so many failures and tasks of the service.
    fn ranked(&self, row: usize, of_service: (u32, u32)) -> Rank {
        self.table.rows()[row].rank(start_of(self.pipeline.wants.service), of_service)
    }

    /// Asks the filters, and remembers for others what they will be told as well. Of a row that is not struck out those are asked that
    /// what is placed can alter.
    fn may_have_one(&mut self, row: usize) -> bool {
        if self.table.partition(self.partition).is_struck(row) {
            return false;
        }
        let refusal = self.pipeline.refusal_of_full(&self.table.rows()[row]);
        debug_assert_eq!(
            refusal,
            self.pipeline.refusal(&self.table.rows()[row]),
            "the partition is of other wants, or behind"
        );
        if let Some(filter) = refusal.filter(|filter| filter.lasts()) {
            self.table.strike(self.partition, row, filter);
        }
        refusal.is_none()
    }

    /// The rows of a leaf that come late.
    fn late_ones(&self, leaf: usize) -> impl Iterator<Item = Reverse<(Rank, usize)>> {
        let layout = self.table.partition(self.partition).layout();
        let with_tasks = self.table.arranged().and_then(|it| it.members_of(leaf));
        let with_tasks =
            with_tasks.into_iter().flat_map(Members::iter).map(move |it| layout.members(leaf)[it]);
        let failed = self.failures.keys().copied().filter(move |row| layout.leaf_of(*row) == leaf);
        let late = with_tasks.chain(failed.filter(|row| self.live_on(*row) == 0));
        late.inspect(|_| effort::look()).map(|row| Reverse((self.rank(row), row)))
    }

    /// Live tasks of the service in these leaves, on nodes that are refused too.
    fn tasks_within(&self, leaves: Range<usize>) -> u64 {
        self.table.arranged().map_or(0, |it| it.within(leaves))
    }
}

/// A branch, and what is known of it. It is kept with its layout from one batch to the next for the memory that its heaps have: what it
/// knows is of the batch that it was last [begun](Tree::begin) for.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    leaves: Range<usize>,
    /// Live tasks of the service in it.
    of_service: u64,
    /// Whether what is below it is of this batch.
    is_seen: bool,
    below: Below,
}

#[derive(Debug, Clone)]
enum Below {
    Leaf(Leaf),
    Inner(Inner),
}

#[derive(Debug, Clone)]
struct Inner {
    branches: Vec<Tree>,
    /// Branches by their tasks, whose best node is not known.
    unknown: BinaryHeap<Reverse<(u64, usize)>>,
    /// Branches that have a node for the next task by what they are chosen by: the tasks in each, then its best node.
    known: BinaryHeap<Reverse<(u64, Rank, usize)>>,
}

#[derive(Debug, Clone)]
struct Leaf {
    number: usize,
    /// The member with which the service begins.
    start: usize,
    /// How far the partition's order has been walked.
    walked: Option<Place>,
    /// Whether it was walked to its end: then those that come late are next.
    is_walked: bool,
    late: BinaryHeap<Reverse<(Rank, usize)>>,
    /// The node that gets the next task, once it was asked for.
    next: Option<(Rank, usize)>,
}

impl Tree {
    pub(super) fn of(shape: &Shape) -> Self {
        Self { leaves: shape.leaves.clone(), of_service: 0, is_seen: false, below: Below::of(shape) }
    }

    /// For a batch, before its first task is placed.
    pub(super) fn begin(&mut self, candidates: &Candidates<'_>) {
        self.of_service = candidates.tasks_within(self.leaves.clone());
        self.is_seen = false;
    }

    /// Has `put` place one task on the row that comes next. False when no row can have it.
    pub(super) fn place(
        &mut self,
        candidates: &mut Candidates<'_>,
        put: &mut dyn FnMut(&mut NodeTable, usize),
    ) -> bool {
        if self.best(candidates).is_none() {
            return false;
        }
        let placed = match &mut self.below {
            Below::Leaf(leaf) => leaf.place(candidates, put),
            Below::Inner(inner) => inner.place(candidates, put),
        };
        self.of_service += u64::from(placed);
        placed
    }

    /// The rank of the node that comes next; none when no node can have a task.
    fn best(&mut self, candidates: &mut Candidates<'_>) -> Option<Rank> {
        if !self.is_seen {
            self.below.begin(candidates);
            self.is_seen = true;
        }
        match &mut self.below {
            Below::Leaf(leaf) => leaf.best(candidates),
            Below::Inner(inner) => inner.best(candidates),
        }
    }
}

impl Below {
    fn of(shape: &Shape) -> Self {
        if shape.branches.is_empty() {
            return Self::Leaf(Leaf::of(shape.leaves.start));
        }
        let branches = shape.branches.iter().map(Tree::of).collect();
        Self::Inner(Inner { branches, unknown: BinaryHeap::new(), known: BinaryHeap::new() })
    }

    fn begin(&mut self, candidates: &Candidates<'_>) {
        match self {
            Self::Leaf(leaf) => leaf.begin(candidates),
            Self::Inner(inner) => inner.begin(candidates),
        }
    }
}

impl Inner {
    fn begin(&mut self, candidates: &Candidates<'_>) {
        self.branches.iter_mut().for_each(|branch| branch.begin(candidates));
        self.known.clear();
        self.unknown.clear();
        let all = self.branches.iter().enumerate();
        self.unknown.extend(all.map(|(index, it)| Reverse((it.of_service, index))));
    }

    /// Looks into the branches that have as few tasks as the first known one.
    fn best(&mut self, candidates: &mut Candidates<'_>) -> Option<Rank> {
        while let Some(Reverse((tasks, index))) = self.unknown.peek().copied()
            && self.known.peek().is_none_or(|Reverse((fewest, ..))| tasks <= *fewest)
        {
            self.unknown.pop();
            let best = self.branches[index].best(candidates);
            self.known.extend(best.map(|rank| Reverse((tasks, rank, index))));
        }
        self.known.peek().map(|Reverse((_, rank, _))| *rank)
    }

    fn place(&mut self, candidates: &mut Candidates<'_>, put: &mut dyn FnMut(&mut NodeTable, usize)) -> bool {
        let Some(Reverse((_, _, index))) = self.known.pop() else { return false };
        let placed = self.branches[index].place(candidates, put);
        self.unknown.push(Reverse((self.branches[index].of_service, index)));
        placed
    }
}

impl Leaf {
    fn of(number: usize) -> Self {
        Self { number, start: 0, walked: None, is_walked: false, late: BinaryHeap::new(), next: None }
    }

    fn begin(&mut self, candidates: &Candidates<'_>) {
        self.start = candidates.start_in(self.number);
        self.walked = None;
        self.is_walked = false;
        self.late.clear();
        self.next = None;
    }

    fn place(&mut self, candidates: &mut Candidates<'_>, put: &mut dyn FnMut(&mut NodeTable, usize)) -> bool {
        let Some((_, row)) = self.next.take() else { return false };
        put(candidates.table, row);
        if self.is_walked {
            self.late.push(Reverse((candidates.rank(row), row)));
        }
        true
    }

    fn best(&mut self, candidates: &mut Candidates<'_>) -> Option<Rank> {
        if self.next.is_none() {
            self.next = self.find_next(candidates);
        }
        self.next.map(|(rank, _)| rank)
    }

    /// A node that a filter refuses is passed over for good: it can't get better while this batch is placed.
    fn find_next(&mut self, candidates: &mut Candidates<'_>) -> Option<(Rank, usize)> {
        if !self.is_walked {
            while let Some(place) = candidates.after((self.number, self.start), self.walked) {
                self.walked = Some(place);
                let row = place.row;
                if !candidates.failures.contains_key(&row) && candidates.may_have_one(row) {
                    return Some((candidates.ranked(row, (0, 0)), row));
                }
            }
            self.is_walked = true;
            self.late.extend(candidates.late_ones(self.number));
        }
        while let Some(Reverse((rank, row))) = self.late.pop() {
            if candidates.may_have_one(row) {
                return Some((rank, row));
            }
        }
        None
    }
}
