//! The members of a leaf by their live tasks: those with the fewest first, and among equal ones by their numbers, around the ring.
//!
//! Members are numbered from 0 up. Each count of live tasks that some member has is a level with one bit for each member: what is
//! placed moves a member up, which is a bit here and a bit there, and the next member of a level is found 64 at a look.

use std::ops::Range;

const WORD: usize = u64::BITS as usize;

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
    words: Vec<u64>,
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
            let words = vec![0; self.members.div_ceil(WORD)];
            self.levels.insert(place, Level { live, count: 0, words });
            place
        });
        let level = &mut self.levels[place];
        level.words[member / WORD] |= 1 << (member % WORD);
        level.count += 1;
    }

    /// Takes out a member that is in it, there.
    pub(super) fn take_out(&mut self, Spot { live, member }: Spot) {
        let Ok(place) = self.find(live) else { return };
        let level = &mut self.levels[place];
        level.words[member / WORD] &= !(1 << (member % WORD));
        level.count -= 1;
        if level.count == 0 {
            self.levels.remove(place);
        }
    }

    /// The one after `last`, the first when there is no last, for who begins each level at the member `start`. `last` may have moved on.
    pub(super) fn after(&self, start: usize, last: Option<Spot>) -> Option<Spot> {
        let next = match last.map(|last| (last, self.find(last.live))) {
            None => 0,
            Some((_, Err(next))) => next,
            Some((Spot { live, member }, Ok(place))) => {
                if let Some(member) = self.levels[place].after(start, member, self.members) {
                    return Some(Spot { live, member });
                }
                place + 1
            }
        };
        let level = self.levels.get(next)?;
        level.first(start, self.members).map(|member| Spot { live: level.live, member })
    }
}

impl Level {
    fn first(&self, start: usize, members: usize) -> Option<usize> {
        self.next(start..members).or_else(|| self.next(0..start))
    }

    fn after(&self, start: usize, last: usize, members: usize) -> Option<usize> {
        if last < start {
            return self.next(last + 1..start);
        }
        self.next(last + 1..members).or_else(|| self.next(0..start))
    }

    /// The first within these.
    fn next(&self, within: Range<usize>) -> Option<usize> {
        if within.is_empty() {
            return None;
        }
        let first = within.start / WORD;
        let mut word = self.words[first] & (u64::MAX << (within.start % WORD));
        let mut rest = first + 1..within.end.div_ceil(WORD);
        let mut number = first;
        while word == 0 {
            number = rest.next()?;
            word = self.words[number];
        }
        let found = number * WORD + word.trailing_zeros() as usize;
        (found < within.end).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// By a look at every member.
    fn walk_of_all(spots: &BTreeMap<usize, u32>, start: usize) -> Vec<Spot> {
        let mut all: Vec<_> = spots.iter().map(|(member, live)| (*live, *member < start, *member)).collect();
        all.sort_unstable();
        all.into_iter().map(|(live, _, member)| Spot { live, member }).collect()
    }

    fn walk(order: &Order, start: usize) -> Vec<Spot> {
        std::iter::successors(order.after(start, None), |last| order.after(start, Some(*last))).collect()
    }

    proptest! {
        #[test]
        fn a_walk_is_by_live_tasks_then_around_the_ring(
            members in 1_usize..200,
            turns in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..6, any::<bool>()), 0..300),
            start in any::<prop::sample::Index>(),
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
            prop_assert_eq!(walk(&order, start), walk_of_all(&spots, start));
        }
    }

    #[test]
    fn one_that_has_moved_is_found_once_more_after_the_last() {
        let mut order = Order::of(3);
        (0..3).for_each(|member| order.enter(Spot { live: 0, member }));
        let last = order.after(1, None);
        assert_eq!(last, Some(Spot { live: 0, member: 1 }));
        order.take_out(Spot { live: 0, member: 1 });
        order.enter(Spot { live: 1, member: 1 });
        let rest: Vec<_> = std::iter::successors(order.after(1, last), |last| order.after(1, Some(*last)))
            .map(|spot| spot.member)
            .collect();
        assert_eq!(rest, [2, 0, 1]);
    }
}
