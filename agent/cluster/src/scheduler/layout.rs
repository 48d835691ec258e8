//! The tree over the values of a list of spread preferences: which nodes are together in a leaf. Every node is in one, whether
//! or not it may have a task: what a service has there counts all the same.

use std::collections::BTreeMap;
use std::ops::Range;

use super::nodes::NodeRow;
use crate::constraint::Descriptor;
use crate::objects::Node;

#[derive(Debug)]
pub(super) struct Layout {
    levels: Vec<Descriptor>,
    shape: Shape,
    leaf_of_row: Vec<usize>,
    leaves: usize,
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
    pub(super) fn of(levels: &[Descriptor], rows: &[NodeRow]) -> Self {
        let mut leaves = Vec::new();
        let shape = shape_of((0..rows.len()).collect(), levels, rows, &mut leaves);
        let mut leaf_of_row = vec![0; rows.len()];
        for (leaf, members) in leaves.iter().enumerate() {
            members.iter().for_each(|row| leaf_of_row[*row] = leaf);
        }
        Self { levels: levels.to_vec(), shape, leaf_of_row, leaves: leaves.len() }
    }

    pub(super) fn is_of(&self, levels: &[Descriptor]) -> bool {
        self.levels == levels
    }

    /// Whether a node that was changed so is in the leaf that it was in.
    pub(super) fn has_same_place(&self, old: &Node, new: &Node) -> bool {
        self.levels.iter().all(|level| level.of(old) == level.of(new))
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn leaf_of(&self, row: usize) -> usize {
        self.leaf_of_row[row]
    }

    /// How many leaves there are.
    pub(super) fn leaves(&self) -> usize {
        self.leaves
    }
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
