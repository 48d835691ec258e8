//! The nodes that may have certain tasks, in the order in which a service that has no task on them takes them, apart for each
//! leaf of a [`Layout`].
//!
//! A partition is kept for all batches that ask the same of a node. It does not follow what is placed: a row that has more live
//! tasks than when it was entered is found too early, and entered anew then. Rows that refuse are struck out. Both hold since a
//! row only fills up, until it is made anew; then it is looked at again. So a batch passes over no node that another one has
//! passed over before.

use std::sync::Arc;

use super::filter::{Filter, NodeWants};
use super::layout::Layout;
use super::nodes::NodeRow;
use super::order::{Order, Spot};
use super::pipeline::Pipeline;
use super::table::Walk;

/// Where a walk is: at that row, which is there in its leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    spot: Spot,
}

/// Of a row.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// It is in its leaf, with so many live tasks.
    Entered(u32),
    /// It is struck out, by the first filter that refuses it.
    Refused(Filter),
}

#[derive(Debug, Clone)]
pub(super) struct Partition {
    layout: Arc<Layout>,
    wants: Arc<NodeWants>,
    leaves: Vec<Order>,
    standings: Vec<Standing>,
    /// How many rows are struck out by each filter.
    refused: [usize; Filter::ALL.len()],
    /// When it was last used, by the table's count.
    pub(super) used: u64,
}

impl Partition {
    pub(super) fn of(layout: Arc<Layout>, pipeline: &Pipeline, rows: &[NodeRow]) -> Self {
        let mut it = Self {
            wants: Arc::clone(pipeline.of_node()),
            leaves: layout.leaves().map(Order::of).collect(),
            // As good as any: each is settled now.
            standings: vec![Standing::Refused(Filter::Ready); rows.len()],
            refused: [0; Filter::ALL.len()],
            used: 0,
            layout,
        };
        rows.iter().enumerate().for_each(|(index, row)| it.settle(index, row));
        it
    }

    pub(super) fn is_of(&self, preferences: &[String], wants: &NodeWants) -> bool {
        self.layout.is_of(preferences) && *self.wants == *wants
    }

    pub(super) fn wants(&self) -> &NodeWants {
        &self.wants
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn shared_layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// A row that was made anew, of a node that is in the same leaf.
    pub(super) fn look_again(&mut self, index: usize, row: &NodeRow) {
        self.take_out(index);
        self.settle(index, row);
    }

    /// Enters one that is not in its leaf, or strikes it out.
    fn settle(&mut self, index: usize, row: &NodeRow) {
        match self.wants.refusal(row) {
            None => self.enter(index, row.live()),
            Some(filter) => self.refuse(index, filter),
        }
    }

    /// The row is passed over from now on.
    pub(super) fn strike(&mut self, index: usize, filter: Filter) {
        self.take_out(index);
        self.refuse(index, filter);
    }

    /// How many rows each filter refuses, when all are refused by one.
    pub(super) fn refused(&self) -> Option<[usize; Filter::ALL.len()]> {
        (self.refused.iter().sum::<usize>() == self.standings.len()).then_some(self.refused)
    }

    fn take_out(&mut self, index: usize) {
        match self.standings[index] {
            Standing::Entered(live) => {
                let (leaf, member) = self.layout.seat_of(index);
                self.leaves[leaf].take_out(Spot { live, member });
            }
            Standing::Refused(filter) => self.refused[filter as usize] -= 1,
        }
    }

    fn enter(&mut self, index: usize, live: u32) {
        self.standings[index] = Standing::Entered(live);
        let (leaf, member) = self.layout.seat_of(index);
        self.leaves[leaf].enter(Spot { live, member });
    }

    fn refuse(&mut self, index: usize, filter: Filter) {
        self.standings[index] = Standing::Refused(filter);
        self.refused[filter as usize] += 1;
    }

    /// Whether the row is struck out.
    pub(super) fn is_struck(&self, index: usize) -> bool {
        matches!(self.standings[index], Standing::Refused(_))
    }

    /// See [`NodeTable::after`](super::table::NodeTable::after).
    pub(super) fn after(&mut self, rows: &[NodeRow], walk: Walk<'_>, last: Option<Place>) -> Option<Place> {
        let mut last = last.map(|it| it.spot);
        loop {
            let spot = self.leaves[walk.leaf].after(walk.start, walk.without, last)?;
            let row = self.layout.members(walk.leaf)[spot.member];
            let live = rows[row].live();
            if live == spot.live {
                return Some(Place { row, spot });
            }
            self.take_out(row);
            self.enter(row, live);
            // It is further on now: what was before it need not be passed over again.
            last = Some(spot);
        }
    }
}
