//! The log and raft's few other records in redb, on a storage that is given from outside.
//!
//! One table holds the entries by their index, another the vote, the last known commit, the last purged entry and whose
//! disk this is. Each batch is one transaction of redb, so a crash leaves all of it or nothing: what was never synced is
//! gone as if it had not been written, and raft was never told that it was. Whatever else does not open was damaged after
//! others may have relied on it, and is an error: to cut it off would lose acknowledged entries.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ketch_cluster::fault::Fault;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::recent::Recent;
use crate::record::{EntryRecord, LogIdRecord, VoteRecord};
use crate::seal::{By, Place, Seal, SealError};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

/// Records that are sealed anew in one transaction, which others wait for, and what they come to at most but for the last.
const RESEALED: usize = 256;
const RESEALED_BYTES: usize = 4 << 20;

/// Of redb's pages in memory: replication reads what was just written.
const CACHE: usize = 16 << 20;

/// What the disk can't do. The texts say what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("the raft log can't be read or written: {0}")]
    Io(#[from] redb::Error),
    #[error(
        "the data key does not open this raft log: unlock the manager with the key that it was locked with"
    )]
    WrongKey,
    #[error("the raft log is of format {0}, which a newer version of ketch wrote: start that version")]
    Newer(u8),
    #[error(
        "{what} of the raft log is damaged; it may have been acknowledged, so nothing was cut off: remove this \
         manager from the cluster and let it join again, or restore a backup, or, if no other manager is left, \
         start with force-new-cluster, which keeps what comes before it"
    )]
    Damaged { what: String },
    #[error("this raft log belongs to node {found}, not to {expected}")]
    Foreign { found: String, expected: String },
    #[error("the raft log was shut down")]
    Closed,
    #[error("a record of the raft log can't be encoded: {0}")]
    Encoding(#[from] serde_json::Error),
}

macro_rules! from_redb {
    ($($error:ident),+) => {$(
        impl From<redb::$error> for DiskError {
            fn from(error: redb::$error) -> Self {
                Self::Io(error.into())
            }
        }
    )+};
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

/// The records that there is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Identity,
    Vote,
    Committed,
    Purged,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Vote => "vote",
            Self::Committed => "committed",
            Self::Purged => "purged",
        }
    }

    fn place(self) -> Place<'static> {
        Place { table: "state", key: self.name().as_bytes() }
    }
}

impl State {
    const ALL: [Self; 4] = [Self::Identity, Self::Vote, Self::Committed, Self::Purged];
}

#[derive(Debug)]
pub(crate) struct Disk {
    /// None once it was closed.
    database: RwLock<Option<Database>>,
    seal: Arc<Seal>,
    recent: Mutex<Recent>,
}

impl Disk {
    pub(crate) fn open(backend: impl StorageBackend, seal: Arc<Seal>) -> Result<Self, DiskError> {
        let database = Database::builder().set_cache_size(CACHE).create_with_backend(backend)?;
        let disk = Self { database: RwLock::new(Some(database)), seal, recent: Mutex::default() };
        disk.write(Durability::Immediate, |transaction| {
            transaction.open_table(LOG)?;
            transaction.open_table(STATE)?;
            Ok(())
        })?;
        Ok(disk)
    }

    /// Releases the storage, whoever still holds this.
    pub(crate) fn close(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn state<T: DeserializeOwned>(&self, state: State) -> Result<Option<T>, DiskError> {
        let table = self.reading()?.open_table(STATE)?;
        let Some(record) = table.get(state.name())? else { return Ok(None) };
        let plain = self.seal.open(state.place(), record.value()).map_err(|error| match error {
            SealError::Newer(format) => DiskError::Newer(format),
            // It is written first and read first: when it does not open, nothing does.
            SealError::Broken if state == State::Identity => DiskError::WrongKey,
            SealError::Broken => damaged(format!("the record {}", state.name())),
        })?;
        Ok(Some(serde_json::from_slice(&plain)?))
    }

    pub(crate) fn put(
        &self,
        state: State,
        value: &impl Serialize,
        durability: Durability,
    ) -> Result<(), DiskError> {
        self.write(durability, |transaction| self.put_in(transaction, state, value))
    }

    /// Adds entries that follow the last one. One sync for all of them.
    pub(crate) fn append(&self, entries: &[EntryRecord]) -> Result<(), DiskError> {
        let durability = if Fault::LogNotSynced.is_made() { Durability::None } else { Durability::Immediate };
        let mut sizes = Vec::with_capacity(entries.len());
        self.write(durability, |transaction| {
            let mut log = transaction.open_table(LOG)?;
            for entry in entries {
                let index = entry.id.index;
                let sealed = self.seal.close(place_of(&index.to_be_bytes()), &serde_json::to_vec(entry)?);
                let sealed = sealed.map_err(|_| damaged(format!("the new entry {index}")))?;
                log.insert(index, sealed.as_slice())?;
                sizes.push(sealed.len());
            }
            Ok(())
        })?;
        let mut recent = self.recent();
        entries.iter().zip(sizes).for_each(|(entry, bytes)| recent.append(entry.clone(), bytes));
        Ok(())
    }

    /// The first entries of the range, at least one, until they come to so many bytes, if they are in memory: of a short while
    /// ago. None otherwise.
    pub(crate) fn recent_within(&self, range: Range<u64>, most: usize) -> Option<Vec<EntryRecord>> {
        self.recent().within(range, most)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of the range that there are, in order.
    pub(crate) fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<EntryRecord>, DiskError> {
        let mut entries = Vec::new();
        self.walk(range, |entry| entries.push(entry))?;
        Ok(entries)
    }

    /// The first entries of the range, at least one if it has any, until they come to so many bytes as they are on the disk.
    pub(crate) fn entries_within(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<EntryRecord>, DiskError> {
        let log = self.reading()?.open_table(LOG)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        if is_empty((Bound::Included(range.start), Bound::Excluded(range.end))) {
            return Ok(entries);
        }
        for row in log.range::<u64>(range)? {
            let (index, record) = row?;
            bytes += record.value().len();
            if bytes > most && !entries.is_empty() {
                break;
            }
            entries.push(self.entry(index.value(), record.value())?);
        }
        Ok(entries)
    }

    /// Reads everything: no entry may be missing between the last purged one and the last, nor any that is known to be
    /// committed and is in no snapshot.
    pub(crate) fn check(&self, snapshot: Option<LogIdRecord>) -> Result<(), DiskError> {
        self.state::<VoteRecord>(State::Vote)?;
        let committed = self.state::<LogIdRecord>(State::Committed)?;
        let purged = self.state::<LogIdRecord>(State::Purged)?;
        let mut next = purged.map_or(0, |purged| purged.index + 1);
        let mut missing = None;
        self.walk(.., |entry| {
            if entry.id.index != next {
                missing.get_or_insert(next);
            }
            next = entry.id.index + 1;
        })?;
        let held = next.max(snapshot.map_or(0, |last| last.index + 1));
        if committed.is_some_and(|committed| committed.index >= held) {
            missing.get_or_insert(held);
        }
        missing.map_or(Ok(()), |index| Err(damaged(format!("entry {index}"))))
    }

    /// The index of the first entry that does not open; of the one after the last when all do.
    pub(crate) fn readable_before(&self) -> Result<u64, DiskError> {
        let purged = self.state::<LogIdRecord>(State::Purged)?;
        let mut next = purged.map_or(0, |purged| purged.index + 1);
        let read = self.walk(.., |entry| {
            if entry.id.index == next {
                next += 1;
            }
        });
        match read {
            Ok(()) | Err(DiskError::Damaged { .. }) => Ok(next),
            Err(error) => Err(error),
        }
    }

    /// Seals by the newest key what the one before has sealed of the few records.
    pub(crate) fn reseal_state(&self) -> Result<(), DiskError> {
        self.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(STATE)?;
            for state in State::ALL {
                let record = table.get(state.name())?.map(|record| record.value().to_vec());
                let what = || format!("the record {}", state.name());
                if let Some(record) = record
                    && let Some(sealed) =
                        self.resealed(state.place(), &record).map_err(|error| unopened(error, what()))?
                {
                    table.insert(state.name(), sealed.as_slice())?;
                }
            }
            Ok(())
        })
    }

    /// The same of the next entries from `index` on; where it is to go on, none at the log's end.
    pub(crate) fn reseal_entries(&self, index: u64) -> Result<Option<u64>, DiskError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for row in self.reading()?.open_table(LOG)?.range::<u64>(index..)? {
            let (index, record) = row?;
            bytes += record.value().len();
            rows.push(index.value());
            if rows.len() == RESEALED || bytes >= RESEALED_BYTES {
                break;
            }
        }
        let Some(last) = rows.last().copied() else { return Ok(None) };
        self.write(Durability::Immediate, |transaction| {
            let mut log = transaction.open_table(LOG)?;
            for index in rows {
                // It may have been cut off meanwhile.
                let Some(record) = log.get(index)?.map(|record| record.value().to_vec()) else { continue };
                let resealed = self.resealed(place_of(&index.to_be_bytes()), &record);
                if let Some(sealed) = resealed.map_err(|error| unopened(error, format!("entry {index}")))? {
                    log.insert(index, sealed.as_slice())?;
                }
            }
            Ok(())
        })?;
        Ok(last.checked_add(1))
    }

    /// None when it is sealed by the newest key.
    fn resealed(&self, place: Place<'_>, record: &[u8]) -> Result<Option<Vec<u8>>, SealError> {
        match self.seal.ciphers().open(place, record)? {
            (_, By::Newest) => Ok(None),
            (plain, By::Before) => self.seal.close(place, &plain).map(Some),
        }
    }

    pub(crate) fn last(&self) -> Result<Option<LogIdRecord>, DiskError> {
        let log = self.reading()?.open_table(LOG)?;
        let Some((index, record)) = log.last()? else { return self.state(State::Purged) };
        Ok(Some(self.entry(index.value(), record.value())?.id))
    }

    /// Removes the entries from `index` on.
    pub(crate) fn truncate(&self, index: u64) -> Result<(), DiskError> {
        self.recent().truncate(index);
        self.write(Durability::Immediate, |transaction| {
            transaction.open_table(LOG)?.retain_in(index.., |_, _| false)?;
            Ok(())
        })
    }

    /// Removes the entries up to this one, which a snapshot holds, and remembers where they ended.
    pub(crate) fn purge(&self, through: LogIdRecord) -> Result<(), DiskError> {
        self.recent().purge(through.index);
        self.write(Durability::Immediate, |transaction| {
            transaction.open_table(LOG)?.retain_in(..=through.index, |_, _| false)?;
            self.put_in(transaction, State::Purged, &through)
        })
    }

    fn put_in(
        &self,
        transaction: &WriteTransaction,
        state: State,
        value: &impl Serialize,
    ) -> Result<(), DiskError> {
        let sealed = self.seal.close(state.place(), &serde_json::to_vec(value)?);
        let sealed = sealed.map_err(|_| damaged(format!("the new record {}", state.name())))?;
        transaction.open_table(STATE)?.insert(state.name(), sealed.as_slice())?;
        Ok(())
    }

    fn walk(&self, range: impl RangeBounds<u64>, mut each: impl FnMut(EntryRecord)) -> Result<(), DiskError> {
        let log = self.reading()?.open_table(LOG)?;
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(bounds) {
            return Ok(());
        }
        for row in log.range::<u64>(bounds)? {
            let (index, record) = row?;
            each(self.entry(index.value(), record.value())?);
        }
        Ok(())
    }

    fn entry(&self, index: u64, record: &[u8]) -> Result<EntryRecord, DiskError> {
        let plain = self.seal.open(place_of(&index.to_be_bytes()), record);
        let plain = plain.map_err(|error| unopened(error, format!("entry {index}")))?;
        Ok(serde_json::from_slice(&plain)?)
    }

    fn reading(&self) -> Result<ReadTransaction, DiskError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(DiskError::Closed)?.begin_read()?)
    }

    fn write(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = database.as_ref().ok_or(DiskError::Closed)?.begin_write()?;
        transaction.set_durability(durability)?;
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

/// redb panics or errs on a range that ends before it starts, which raft asks for now and then.
fn is_empty(bounds: (Bound<u64>, Bound<u64>)) -> bool {
    match bounds {
        (Bound::Included(start), Bound::Excluded(end)) => start >= end,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        _ => false,
    }
}

fn place_of(index: &[u8]) -> Place<'_> {
    Place { table: "log", key: index }
}

fn unopened(error: SealError, what: String) -> DiskError {
    match error {
        SealError::Newer(format) => DiskError::Newer(format),
        SealError::Broken => damaged(what),
    }
}

fn damaged(what: String) -> DiskError {
    DiskError::Damaged { what }
}

impl From<DiskError> for std::io::Error {
    fn from(error: DiskError) -> Self {
        Self::other(error)
    }
}
