//! The tree over the values of a list of spread preferences: which nodes are together in a leaf. Every node is in one, whether
//! or not it may have a task: what a service has there counts all the same.

use std::collections::BTreeMap;
use std::ops::Range;

use super::nodes::NodeRow;
use crate::constraint::Descriptor;
use crate::objects::Node;

#[derive(Debug)]
pub(super) struct Layout {
    /// As its users wrote them: told apart without a look at what they mean.
    preferences: Vec<String>,
    levels: Vec<Descriptor>,
    shape: Shape,
    /// The rows of each leaf, in their order.
    leaves: Vec<Vec<usize>>,
    /// The leaf of each row, and which member of it the row is.
    seats: Vec<(u32, u32)>,
}

/// A part of the tree over the descriptors' values. What has the same value everywhere is no level of it.
#[derive(Debug)]
pub(super) struct Shape {
    /// The numbers of its leaves: those of one part are next to each other.
    pub(super) leaves: Range<usize>,
    /// None of a leaf.
    pub(super) branches: Vec<Shape>,
}

impl Layout {
    /// A preference that reads nothing of a node is none.
    pub(super) fn of(preferences: &[String], rows: &[NodeRow]) -> Self {
        let levels: Vec<_> = preferences.iter().filter_map(|text| Descriptor::parse(text)).collect();
        let mut leaves = Vec::new();
        let shape = shape_of((0..rows.len()).collect(), &levels, rows, &mut leaves);
        let mut seats = vec![(0, 0); rows.len()];
        for (leaf, members) in leaves.iter().enumerate() {
            for (member, row) in members.iter().enumerate() {
                seats[*row] = (narrow(leaf), narrow(member));
            }
        }
        Self { preferences: preferences.to_vec(), levels, shape, leaves, seats }
    }

    pub(super) fn is_of(&self, preferences: &[String]) -> bool {
        self.preferences == preferences
    }

    /// Whether a node that was changed so is in the leaf that it was in.
    pub(super) fn has_same_place(&self, old: &Node, new: &Node) -> bool {
        self.levels.iter().all(|level| level.of(old) == level.of(new))
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn leaf_of(&self, row: usize) -> usize {
        self.seat_of(row).0
    }

    /// The row's leaf, and which member of it it is.
    pub(super) fn seat_of(&self, row: usize) -> (usize, usize) {
        let (leaf, member) = self.seats[row];
        (leaf as usize, member as usize)
    }

    /// How many rows each leaf has.
    pub(super) fn leaves(&self) -> impl Iterator<Item = usize> {
        self.leaves.iter().map(Vec::len)
    }

    /// The rows of a leaf, in their order.
    pub(super) fn members(&self, leaf: usize) -> &[usize] {
        &self.leaves[leaf]
    }
}

/// Half the memory: there are fewer nodes than that.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The tree of these rows; its leaves' members are added to `leaves`.
fn shape_of(
    members: Vec<usize>,
    levels: &[Descriptor],
    rows: &[NodeRow],
    leaves: &mut Vec<Vec<usize>>,
) -> Shape {
    let first = leaves.len();
    for (index, descriptor) in levels.iter().enumerate() {
        let mut parts = BTreeMap::<_, Vec<usize>>::new();
        for row in &members {
            parts.entry(descriptor.of(&rows[*row].node)).or_default().push(*row);
        }
        if parts.len() > 1 {
            let deeper = &levels[index + 1..];
            let branches = parts.into_values().map(|part| shape_of(part, deeper, rows, leaves)).collect();
            return Shape { leaves: first..leaves.len(), branches };
        }
    }
    leaves.push(members);
    Shape { leaves: first..leaves.len(), branches: Vec::new() }
}
