//! A set of members of a leaf, by their numbers: one bit for each, so that the next one is found 64 at a look.

use std::ops::Range;

const WORD: usize = u64::BITS as usize;

/// It has as many words as the greatest member that was ever in it asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Members(Vec<u64>);

impl Members {
    /// An empty one, which does not grow up to so many.
    pub(super) fn with_room_for(members: usize) -> Self {
        Self(vec![0; members.div_ceil(WORD)])
    }

    pub(super) fn insert(&mut self, member: usize) {
        let number = member / WORD;
        if number >= self.0.len() {
            self.0.resize(number + 1, 0);
        }
        self.0[number] |= bit(member);
    }

    pub(super) fn remove(&mut self, member: usize) {
        if let Some(word) = self.0.get_mut(member / WORD) {
            *word &= !bit(member);
        }
    }

    /// Up from the least.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let end = self.0.len() * WORD;
        std::iter::successors(self.next(0..end, None), move |last| self.next(last + 1..end, None))
    }

    /// The first within these numbers that is not among the others.
    pub(super) fn next(&self, within: Range<usize>, others: Option<&Self>) -> Option<usize> {
        let first = within.start / WORD;
        let mut mask = u64::MAX << (within.start % WORD);
        for number in first..within.end.div_ceil(WORD).min(self.0.len()) {
            let word = self.0[number] & mask & !others.map_or(0, |it| it.word(number));
            if word != 0 {
                let found = number * WORD + word.trailing_zeros() as usize;
                return (found < within.end).then_some(found);
            }
            mask = u64::MAX;
        }
        None
    }

    fn word(&self, number: usize) -> u64 {
        self.0.get(number).copied().unwrap_or_default()
    }
}

fn bit(member: usize) -> u64 {
    1 << (member % WORD)
}
