//! The members of a leaf by their live tasks: those with the fewest first, and among equal ones by their numbers, around the ring.
//!
//! Members are numbered from 0 up. Each count of live tasks that some member has is a level with one bit for each member: what is
//! placed moves a member up, which is a bit here and a bit there, and the next member of a level is found 64 at a look.

use super::members::Members;

#[derive(Debug, Clone)]
pub(super) struct Order {
    /// How many there may be.
    members: usize,
    /// By live tasks; none is empty. They are few, for tasks are spread, and there may be a leaf for each node.
    levels: Vec<Level>,
}

#[derive(Debug, Clone)]
struct Level {
    live: u32,
    count: usize,
    members: Members,
}

/// The members of a level as somebody walks them: up from `start`, then those before it.
#[derive(Debug, Clone, Copy)]
struct Ring<'m> {
    start: usize,
    end: usize,
    without: Option<&'m Members>,
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) live: u32,
    pub(super) member: usize,
}

impl Order {
    /// Of so many members, none of which is in it yet.
    pub(super) fn of(members: usize) -> Self {
        Self { members, levels: Vec::new() }
    }

    fn find(&self, live: u32) -> Result<usize, usize> {
        self.levels.binary_search_by_key(&live, |level| level.live)
    }

    /// Enters a member that is not in it.
    pub(super) fn enter(&mut self, Spot { live, member }: Spot) {
        let place = self.find(live).unwrap_or_else(|place| {
            let members = Members::with_room_for(self.members);
            self.levels.insert(place, Level { live, count: 0, members });
            place
        });
        let level = &mut self.levels[place];
        level.members.insert(member);
        level.count += 1;
    }

    /// Takes out a member that is in it, there.
    pub(super) fn take_out(&mut self, Spot { live, member }: Spot) {
        let Ok(place) = self.find(live) else { return };
        let level = &mut self.levels[place];
        level.members.remove(member);
        level.count -= 1;
        if level.count == 0 {
            self.levels.remove(place);
        }
    }

    /// The one after `last`, the first when there is no last, for who begins each level at the member `start` and passes over those
    /// `without` which it walks. `last` may have moved on.
    pub(super) fn after(&self, start: usize, without: Option<&Members>, last: Option<Spot>) -> Option<Spot> {
        let ring = Ring { start, end: self.members, without };
        let next = match last.map(|last| (last, self.find(last.live))) {
            None => 0,
            Some((_, Err(next))) => next,
            Some((Spot { live, member }, Ok(place))) => {
                if let Some(member) = self.levels[place].after(ring, member) {
                    return Some(Spot { live, member });
                }
                place + 1
            }
        };
        let first = |level: &Level| Some(Spot { live: level.live, member: level.first(ring)? });
        self.levels.get(next..)?.iter().find_map(first)
    }
}

impl Level {
    fn first(&self, ring: Ring<'_>) -> Option<usize> {
        let Ring { start, end, without } = ring;
        self.members.next(start..end, without).or_else(|| self.members.next(0..start, without))
    }

    fn after(&self, ring: Ring<'_>, last: usize) -> Option<usize> {
        let Ring { start, end, without } = ring;
        if last < start {
            return self.members.next(last + 1..start, without);
        }
        self.members.next(last + 1..end, without).or_else(|| self.members.next(0..start, without))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// By a look at every member.
    fn walk_of_all(spots: &BTreeMap<usize, u32>, start: usize, without: &BTreeSet<usize>) -> Vec<Spot> {
        let walked = spots.iter().filter(|(member, _)| !without.contains(member));
        let mut all: Vec<_> = walked.map(|(member, live)| (*live, *member < start, *member)).collect();
        all.sort_unstable();
        all.into_iter().map(|(live, _, member)| Spot { live, member }).collect()
    }

    fn walk(order: &Order, start: usize, without: Option<&Members>) -> Vec<Spot> {
        let first = order.after(start, without, None);
        std::iter::successors(first, |last| order.after(start, without, Some(*last))).collect()
    }

    proptest! {
        #[test]
        fn a_walk_is_by_live_tasks_then_around_the_ring(
            members in 1_usize..200,
            turns in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..6, any::<bool>()), 0..300),
            start in any::<prop::sample::Index>(),
            without in prop::collection::btree_set(0_usize..200, 0..100),
        ) {
            let mut order = Order::of(members);
            let mut spots = BTreeMap::new();
            for (member, live, stays) in turns {
                let member = member.index(members);
                if let Some(live) = spots.remove(&member) {
                    order.take_out(Spot { live, member });
                }
                if stays {
                    spots.insert(member, live);
                    order.enter(Spot { live, member });
                }
            }
            // One past the last member as well: a service may begin after all of a leaf.
            let start = start.index(members + 1);
            prop_assert_eq!(walk(&order, start, None), walk_of_all(&spots, start, &BTreeSet::new()));
            let mut passed_over = Members::default();
            without.iter().for_each(|member| passed_over.insert(*member));
            prop_assert_eq!(walk(&order, start, Some(&passed_over)), walk_of_all(&spots, start, &without));
        }
    }

    #[test]
    fn one_that_has_moved_is_found_once_more_after_the_last() {
        let mut order = Order::of(3);
        (0..3).for_each(|member| order.enter(Spot { live: 0, member }));
        let last = order.after(1, None, None);
        assert_eq!(last, Some(Spot { live: 0, member: 1 }));
        order.take_out(Spot { live: 0, member: 1 });
        order.enter(Spot { live: 1, member: 1 });
        let rest: Vec<_> =
            std::iter::successors(order.after(1, None, last), |last| order.after(1, None, Some(*last)))
                .map(|spot| spot.member)
                .collect();
        assert_eq!(rest, [2, 0, 1]);
    }
}
