//! Raft's door to the [`Disk`]: entries, vote, commit.
//!
//! An append returns when it is on disk. Several proposals that arrive meanwhile become one batch, and one sync.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use ketch_cluster::fault::Fault;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use redb::Durability;

use crate::Blocking;
use crate::consensus::{Entry, LogId, Types, Vote};
use crate::disk::{Disk, State};
use crate::record::{EntryRecord, LogIdRecord, VoteRecord};

#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    pub(crate) disk: Arc<Disk>,
    pub(crate) blocking: Blocking,
}

impl LogStore {
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, crate::DiskError> + Send + 'static,
    ) -> io::Result<T> {
        let disk = Arc::clone(&self.disk);
        self.blocking.run(move || Ok(work(&disk)?)).await
    }
}

/// A message's entries come to so many bytes, unless it is one alone: a few of the largest transactions of users.
const MOST_IN_A_MESSAGE: usize = 4 << 20;

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if let (Bound::Included(start), Bound::Excluded(end)) = bounds
            && let Some(records) = self.disk.recent_within(start..end, usize::MAX)
        {
            return records.into_iter().map(EntryRecord::entry).collect();
        }
        let records = self.on_disk(move |disk| disk.entries(bounds)).await?;
        records.into_iter().map(EntryRecord::entry).collect()
    }

    /// What one message to a follower carries.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let records = match self.disk.recent_within(start..end, MOST_IN_A_MESSAGE) {
            Some(records) => records,
            None => self.on_disk(move |disk| disk.entries_within(start..end, MOST_IN_A_MESSAGE)).await?,
        };
        records.into_iter().map(EntryRecord::entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let vote = self.on_disk(|disk| disk.state::<VoteRecord>(State::Vote)).await?;
        Ok(vote.map(Vote::from))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let (purged, last) =
            self.on_disk(|disk| Ok((disk.state::<LogIdRecord>(State::Purged)?, disk.last()?))).await?;
        Ok(LogState { last_purged_log_id: purged.map(LogId::from), last_log_id: last.map(LogId::from) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if Fault::VoteNotKept.is_made() {
            return Ok(());
        }
        let record = VoteRecord::from(vote);
        self.on_disk(move |disk| disk.put(State::Vote, &record, Durability::Immediate)).await
    }

    /// Without a sync of its own: the next append carries it, and an older one only means that a restarted manager
    /// applies later what it learns from the leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(record) = committed.as_ref().map(LogIdRecord::from) else { return Ok(()) };
        self.on_disk(move |disk| disk.put(State::Committed, &record, Durability::None)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.on_disk(|disk| disk.state::<LogIdRecord>(State::Committed)).await?;
        Ok(committed.map(LogId::from))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<_> = entries.into_iter().map(|entry| EntryRecord::from(&entry)).collect();
        self.on_disk(move |disk| disk.append(&records)).await?;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        self.on_disk(move |disk| disk.truncate(from)).await
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        let through = LogIdRecord::from(&id);
        self.on_disk(move |disk| disk.purge(through)).await
    }
}
