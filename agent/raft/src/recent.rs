//! The log's last entries in memory, as they were appended: what is written is read three times soon after, to be applied here
//! and to be sent to each follower, and need not be opened and parsed for that.
//!
//! It only repeats what the disk holds: an entry comes in once it is synced, and leaves when it is cut off. Owned by the
//! [`Disk`](crate::disk::Disk).

use std::collections::VecDeque;
use std::ops::Range;

use crate::record::EntryRecord;

/// Of the entries as they are on the disk. A follower that is further behind is served from there.
const MOST_BYTES: usize = 4 << 20;

/// Entries without a gap.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: VecDeque<(EntryRecord, usize)>,
    bytes: usize,
}

impl Recent {
    /// Adds what was appended, with its size.
    pub(crate) fn append(&mut self, entry: EntryRecord, bytes: usize) {
        if self.end().is_some_and(|end| end != entry.id.index) {
            self.clear();
        }
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        while self.bytes > MOST_BYTES
            && let Some((_, bytes)) = self.entries.pop_front()
        {
            self.bytes -= bytes;
        }
    }

    /// The entries of the range that come to so many bytes, at least one; none when its first one is not here.
    pub(crate) fn within(&self, range: Range<u64>, most: usize) -> Option<Vec<EntryRecord>> {
        let (first, end) = (self.entries.front()?.0.id.index, self.end()?);
        if range.is_empty() || range.start < first || range.start >= end {
            return None;
        }
        let from = usize::try_from(range.start - first).ok()?;
        let count = usize::try_from(range.end.min(end) - range.start).ok()?;
        let mut sum = 0_usize;
        let fits = |(_, bytes): &&(EntryRecord, usize)| {
            let is_first = sum == 0;
            sum = sum.saturating_add(*bytes);
            is_first || sum <= most
        };
        let fitting = self.entries.range(from..from + count).take_while(fits);
        Some(fitting.map(|(entry, _)| entry.clone()).collect())
    }

    /// The entries from `index` on are cut off.
    pub(crate) fn truncate(&mut self, index: u64) {
        while let Some((entry, bytes)) = self.entries.back()
            && entry.id.index >= index
        {
            self.bytes -= bytes;
            self.entries.pop_back();
        }
    }

    /// The entries up to this one are cut off.
    pub(crate) fn purge(&mut self, through: u64) {
        while let Some((entry, bytes)) = self.entries.front()
            && entry.id.index <= through
        {
            self.bytes -= bytes;
            self.entries.pop_front();
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// The index after the last one.
    fn end(&self) -> Option<u64> {
        self.entries.back().map(|(entry, _)| entry.id.index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LogIdRecord, PayloadRecord};

    fn of(indexes: Range<u64>) -> Recent {
        let mut recent = Recent::default();
        indexes.for_each(|index| append(&mut recent, index, 10));
        recent
    }

    fn append(recent: &mut Recent, index: u64, bytes: usize) {
        let id = LogIdRecord { term: 1, leader: 1, index };
        recent.append(EntryRecord { id, payload: PayloadRecord::Blank }, bytes);
    }

    fn read(recent: &Recent, range: Range<u64>, most: usize) -> Option<Vec<u64>> {
        recent.within(range, most).map(|all| all.iter().map(|it| it.id.index).collect())
    }

    #[test]
    fn what_is_here_is_read_as_from_the_disk() {
        let recent = of(5..9);
        assert_eq!(read(&recent, 5..9, 1000), Some(vec![5, 6, 7, 8]));
        assert_eq!(read(&recent, 7..100, 1000), Some(vec![7, 8]));
        assert_eq!(read(&recent, 5..9, 25), Some(vec![5, 6]));
        assert_eq!(read(&recent, 6..9, 1), Some(vec![6]), "at least one");
        for missing in [4..9, 9..12, 6..6] {
            assert_eq!(read(&recent, missing.clone(), 1000), None, "{missing:?}");
        }
        assert_eq!(read(&Recent::default(), 0..1, 1000), None);
    }

    #[test]
    fn what_is_cut_off_is_not_read_and_another_one_takes_its_place() {
        let mut recent = of(5..9);
        recent.truncate(7);
        assert_eq!(read(&recent, 7..8, 1000), None);
        append(&mut recent, 7, 10);
        assert_eq!(read(&recent, 5..9, 1000), Some(vec![5, 6, 7]));
        recent.purge(5);
        assert_eq!(read(&recent, 5..9, 1000), None);
        append(&mut recent, 20, 10);
        assert_eq!(read(&recent, 6..9, 1000), None, "there would be a gap");
        assert_eq!(read(&recent, 20..21, 1000), Some(vec![20]));
    }

    #[test]
    fn it_has_a_bound() {
        let mut recent = of(0..4);
        append(&mut recent, 4, MOST_BYTES);
        assert_eq!(read(&recent, 3..5, usize::MAX), None);
        assert_eq!(read(&recent, 4..5, usize::MAX), Some(vec![4]));
        append(&mut recent, 5, MOST_BYTES + 1);
        assert_eq!(read(&recent, 5..6, usize::MAX), None);
    }
}
