//! Where one service has live tasks: on which rows, apart for each leaf of the [`Layout`] by which it is spread.
//!
//! The table keeps one for each service and counts on in it, so that a batch of four tasks costs a look at where they may go, and
//! none at the thousands that the service has already. How many are on a row the row itself says.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::layout::Layout;
use super::members::Members;

#[derive(Debug, Clone, Default)]
pub(super) struct Presence {
    /// By which the rows are apart; all are in one leaf before the service was placed by any.
    layout: Option<Arc<Layout>>,
    /// Those that have any.
    leaves: BTreeMap<usize, Part>,
}

/// What is in one leaf.
#[derive(Debug, Clone, Default)]
struct Part {
    live: u64,
    /// The members on which they are.
    members: Members,
}

impl Presence {
    /// Counts a live task more on that row.
    pub(super) fn add(&mut self, row: usize) {
        self.change(row, 0, 1);
    }

    /// Counts `after` on that row instead of `before`. After none there is none left on it.
    pub(super) fn change(&mut self, row: usize, before: u32, after: u32) {
        let (leaf, member) = self.layout.as_ref().map_or((0, row), |layout| layout.seat_of(row));
        let part = self.leaves.entry(leaf).or_default();
        part.live = part.live + u64::from(after) - u64::from(before);
        if after > 0 {
            part.members.insert(member);
        } else {
            part.members.remove(member);
        }
        if part.live == 0 {
            self.leaves.remove(&leaf);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// How many are in these leaves.
    pub(super) fn within(&self, leaves: Range<usize>) -> u64 {
        self.leaves.range(leaves).map(|(_, part)| part.live).sum()
    }

    /// The members of a leaf that have any; none is nobody.
    pub(super) fn members_of(&self, leaf: usize) -> Option<&Members> {
        self.leaves.get(&leaf).map(|part| &part.members)
    }

    /// Has the rows apart by that layout. `live` says how many are on a row.
    pub(super) fn arrange(&mut self, layout: &Arc<Layout>, live: impl Fn(usize) -> u32) {
        if !self.is_by(layout) {
            self.rearrange(Some(Arc::clone(layout)), live);
        }
    }

    /// The layout holds no more: some node is in another leaf.
    pub(super) fn forget(&mut self, layout: &Arc<Layout>, live: impl Fn(usize) -> u32) {
        if self.is_by(layout) {
            self.rearrange(None, live);
        }
    }

    fn is_by(&self, layout: &Arc<Layout>) -> bool {
        self.layout.as_ref().is_some_and(|known| Arc::ptr_eq(known, layout))
    }

    fn rearrange(&mut self, layout: Option<Arc<Layout>>, live: impl Fn(usize) -> u32) {
        let before = std::mem::replace(self, Self { layout, ..Self::default() });
        for (leaf, part) in &before.leaves {
            for member in part.members.iter() {
                let row = before.layout.as_ref().map_or(member, |it| it.members(*leaf)[member]);
                self.change(row, 0, live(row));
            }
        }
    }
}
