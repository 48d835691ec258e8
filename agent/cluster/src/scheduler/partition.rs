//! The nodes in the order in which a service that has no task on them takes them, apart for each value of a preference.
//!
//! A partition is kept for all batches with the same preferences, and follows what the pass places; so a batch looks at
//! no more nodes than it has to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::nodes::NodeRow;
use crate::constraint::Descriptor;

/// A node's place: its live tasks, the bits of its id, its row.
pub(super) type Place = (u32, u128, usize);

#[derive(Debug)]
pub(super) struct Partition {
    levels: Vec<Descriptor>,
    shape: Shape,
    leaf_of_row: Vec<usize>,
    leaves: Vec<BTreeSet<Place>>,
}

/// The tree over the descriptors' values. What has the same value everywhere is no level of it.
#[derive(Debug)]
pub(super) enum Shape {
    /// By its number.
    Leaf(usize),
    Inner(Vec<Shape>),
}

impl Partition {
    pub(super) fn of(levels: &[Descriptor], rows: &[NodeRow]) -> Self {
        let mut leaves = Vec::new();
        let shape = shape_of((0..rows.len()).collect(), levels, rows, &mut leaves);
        let mut leaf_of_row = vec![0; rows.len()];
        for (leaf, members) in leaves.iter().enumerate() {
            members.iter().for_each(|row| leaf_of_row[*row] = leaf);
        }
        let in_order =
            |members: Vec<usize>| members.into_iter().map(|row| place_of(row, &rows[row])).collect();
        let leaves = leaves.into_iter().map(in_order).collect();
        Self { levels: levels.to_vec(), shape, leaf_of_row, leaves }
    }

    pub(super) fn is_of(&self, levels: &[Descriptor]) -> bool {
        self.levels == levels
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn leaf_of(&self, row: usize) -> usize {
        self.leaf_of_row[row]
    }

    /// A row whose count of live tasks has changed.
    pub(super) fn moved(&mut self, from: Place, to: Place) {
        let leaf = &mut self.leaves[self.leaf_of_row[to.2]];
        leaf.remove(&from);
        leaf.insert(to);
    }

    /// The place after `last` in a leaf, the first when there is no last: the fewest live tasks first, and among equal ones
    /// up from `start`, around the ring of ids.
    pub(super) fn after(&self, leaf: usize, start: u128, last: Option<Place>) -> Option<Place> {
        let order = &self.leaves[leaf];
        let up = |live| order.range((live, start, 0)..=(live, u128::MAX, usize::MAX)).next();
        let around = |live| order.range((live, 0, 0)..(live, start, 0)).next();
        let Some(last) = last else {
            let (live, ..) = *order.first()?;
            return up(live).or_else(|| around(live)).copied();
        };
        let (live, id, _) = last;
        let end_of_live = (live, u128::MAX, usize::MAX);
        let same = if id >= start {
            order.range((Excluded(last), Included(end_of_live))).next().or_else(|| around(live))
        } else {
            order.range((Excluded(last), Excluded((live, start, 0)))).next()
        };
        let more = || {
            let (live, ..) = *order.range((Excluded(end_of_live), Unbounded)).next()?;
            up(live).or_else(|| around(live))
        };
        same.or_else(more).copied()
    }
}

pub(super) fn place_of(index: usize, row: &NodeRow) -> Place {
    (row.live(), row.node.id.bits(), index)
}

/// The tree of these rows; its leaves' members are added to `leaves`.
fn shape_of(
    members: Vec<usize>,
    levels: &[Descriptor],
    rows: &[NodeRow],
    leaves: &mut Vec<Vec<usize>>,
) -> Shape {
    for (index, descriptor) in levels.iter().enumerate() {
        let mut parts = BTreeMap::<_, Vec<usize>>::new();
        for row in &members {
            parts.entry(descriptor.of(&rows[*row].node)).or_default().push(*row);
        }
        if parts.len() > 1 {
            let deeper = &levels[index + 1..];
            return Shape::Inner(
                parts.into_values().map(|part| shape_of(part, deeper, rows, leaves)).collect(),
            );
        }
    }
    leaves.push(members);
    Shape::Leaf(leaves.len() - 1)
}
