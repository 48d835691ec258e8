//! Where one service has live tasks: on which rows, apart for each leaf of the [`Layout`] by which it is spread.
//!
//! The table keeps one for each service and counts on in it, so that a batch of four tasks costs a look at where they may go, and
//! none at the thousands that the service has already.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::layout::Layout;

/// A leaf and a row in it.
type Spot = (usize, usize);

#[derive(Debug, Clone, Default)]
pub(super) struct Presence {
    /// By which the rows are apart; all are in one leaf before the service was placed by any.
    layout: Option<Arc<Layout>>,
    live: BTreeMap<Spot, u32>,
    of_leaf: BTreeMap<usize, u64>,
}

impl Presence {
    /// Counts a live task more on that row.
    pub(super) fn add(&mut self, row: usize) {
        self.add_all(row, 1);
    }

    /// The row has so many from now on.
    pub(super) fn set(&mut self, row: usize, live: u32) {
        let spot = self.spot(row);
        if let Some(before) = self.live.remove(&spot)
            && let Some(left) = self.of_leaf.get_mut(&spot.0)
        {
            *left -= u64::from(before);
            if *left == 0 {
                self.of_leaf.remove(&spot.0);
            }
        }
        if live > 0 {
            self.add_all(row, live);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// How many are on the row.
    pub(super) fn on(&self, row: usize) -> u32 {
        self.live.get(&self.spot(row)).copied().unwrap_or_default()
    }

    /// How many are in these leaves.
    pub(super) fn within(&self, leaves: Range<usize>) -> u64 {
        self.of_leaf.range(leaves).map(|(_, live)| live).sum()
    }

    /// The rows of a leaf that have any.
    pub(super) fn rows_of(&self, leaf: usize) -> impl Iterator<Item = usize> {
        self.live.range((leaf, 0)..=(leaf, usize::MAX)).map(|((_, row), _)| *row)
    }

    /// Has the rows apart by that layout.
    pub(super) fn arrange(&mut self, layout: &Arc<Layout>) {
        if !self.layout.as_ref().is_some_and(|known| Arc::ptr_eq(known, layout)) {
            self.rearrange(Some(Arc::clone(layout)));
        }
    }

    /// The layout holds no more: some node is in another leaf.
    pub(super) fn forget(&mut self, layout: &Arc<Layout>) {
        if self.layout.as_ref().is_some_and(|known| Arc::ptr_eq(known, layout)) {
            self.rearrange(None);
        }
    }

    fn rearrange(&mut self, layout: Option<Arc<Layout>>) {
        let before = std::mem::replace(self, Self { layout, ..Self::default() });
        before.live.into_iter().for_each(|((_, row), live)| self.add_all(row, live));
    }

    fn add_all(&mut self, row: usize, live: u32) {
        let spot = self.spot(row);
        *self.live.entry(spot).or_default() += live;
        *self.of_leaf.entry(spot.0).or_default() += u64::from(live);
    }

    fn spot(&self, row: usize) -> Spot {
        (self.layout.as_ref().map_or(0, |layout| layout.leaf_of(row)), row)
    }
}
