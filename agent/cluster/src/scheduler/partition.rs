//! The nodes that may have certain tasks, in the order in which a service that has no task on them takes them, apart for each
//! leaf of a [`Layout`].
//!
//! A partition is kept for all batches that ask the same of a node. It does not follow what is placed: a row that has more live
//! tasks than when it was entered is found too early, and entered anew then. Rows that refuse are struck out. Both hold since a
//! row only fills up, until it is made anew; then it is looked at again. So a batch passes over no node that another one has
//! passed over before.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::filter::{Filter, NodeWants};
use super::layout::Layout;
use super::nodes::NodeRow;
use super::pipeline::Pipeline;
use super::table::Walk;
use crate::constraint::Descriptor;

/// A row's place in its leaf: its live tasks, then its number, which is the order of the nodes' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    live: u32,
    row: u32,
}

impl Place {
    fn first(live: u32) -> Self {
        Self { live, row: 0 }
    }

    fn last(live: u32) -> Self {
        Self { live, row: u32::MAX }
    }

    pub(super) fn row(self) -> usize {
        self.row as usize
    }
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
    leaves: Vec<BTreeSet<Place>>,
    standings: Vec<Standing>,
    /// How many rows are struck out by each filter.
    refused: [usize; Filter::ALL.len()],
    /// When it was last used, by the table's count.
    pub(super) used: u64,
}

impl Partition {
    pub(super) fn of(layout: Arc<Layout>, pipeline: &Pipeline, rows: &[NodeRow]) -> Self {
        let wants = Arc::clone(pipeline.of_node());
        let mut members = vec![Vec::new(); layout.leaves()];
        let mut refused = [0; Filter::ALL.len()];
        let standing = |(index, row): (usize, &NodeRow)| match wants.refusal(row) {
            None => {
                members[layout.leaf_of(index)].push(place_of(index, row.live()));
                Standing::Entered(row.live())
            }
            Some(filter) => {
                refused[filter as usize] += 1;
                Standing::Refused(filter)
            }
        };
        let standings = rows.iter().enumerate().map(standing).collect();
        let leaves = members.into_iter().map(BTreeSet::from_iter).collect();
        Self { layout, wants, leaves, standings, refused, used: 0 }
    }

    pub(super) fn is_of(&self, levels: &[Descriptor], wants: &NodeWants) -> bool {
        self.layout.is_of(levels) && *self.wants == *wants
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
                self.leaves[self.layout.leaf_of(index)].remove(&place_of(index, live));
            }
            Standing::Refused(filter) => self.refused[filter as usize] -= 1,
        }
    }

    fn enter(&mut self, index: usize, live: u32) {
        self.standings[index] = Standing::Entered(live);
        self.leaves[self.layout.leaf_of(index)].insert(place_of(index, live));
    }

    fn refuse(&mut self, index: usize, filter: Filter) {
        self.standings[index] = Standing::Refused(filter);
        self.refused[filter as usize] += 1;
    }

    /// See [`NodeTable::after`](super::table::NodeTable::after).
    pub(super) fn after(&mut self, rows: &[NodeRow], walk: Walk, last: Option<Place>) -> Option<Place> {
        loop {
            let place = self.entered_after(walk, last)?;
            let live = rows[place.row()].live();
            if live == place.live {
                return Some(place);
            }
            self.take_out(place.row());
            self.enter(place.row(), live);
        }
    }

    fn entered_after(&self, walk: Walk, last: Option<Place>) -> Option<Place> {
        let order = &self.leaves[walk.leaf];
        let start = |live| place_of(walk.start, live);
        let up = |live| order.range(start(live)..=Place::last(live)).next();
        let around = |live| order.range(Place::first(live)..start(live)).next();
        let Some(last) = last else {
            let live = order.first()?.live;
            return up(live).or_else(|| around(live)).copied();
        };
        let live = last.live;
        let same = if last >= start(live) {
            order.range((Excluded(last), Included(Place::last(live)))).next().or_else(|| around(live))
        } else {
            order.range((Excluded(last), Excluded(start(live)))).next()
        };
        let more = || {
            let live = order.range((Excluded(Place::last(live)), Unbounded)).next()?.live;
            up(live).or_else(|| around(live))
        };
        same.or_else(more).copied()
    }
}

fn place_of(index: usize, live: u32) -> Place {
    Place { live, row: u32::try_from(index).unwrap_or(u32::MAX) }
}
