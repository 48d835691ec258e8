//! Disks that lose what was not synced: of the tests here, of those of the node, and of the simulation. Not in any product.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::{SnapshotFiles, SnapshotSink};

/// What is synced is remembered by pages of so many bytes: a sync costs what was written, not what the disk holds.
const PAGE: usize = 4096;

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// The pages in which the two may differ.
    dirty: BTreeSet<usize>,
    /// Handles of before a crash write no more.
    boots: u64,
    syncs: u64,
    power: Power,
    is_full: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Power {
    #[default]
    Stays,
    FailsAtNextSync,
    /// It did, and nobody has crashed the disk since.
    Failed,
}

impl Bytes {
    fn touch(&mut self, range: std::ops::Range<usize>) {
        self.dirty.extend(range.start / PAGE..range.end.div_ceil(PAGE));
    }

    fn resize(&mut self, length: usize) {
        let before = self.now.len();
        self.now.resize(length, 0);
        self.touch(before.min(length)..before.max(length));
    }

    fn sync(&mut self) {
        copy(&mut self.dirty, &self.now, &mut self.synced);
    }

    fn lose(&mut self) {
        copy(&mut self.dirty, &self.synced, &mut self.now);
    }
}

/// Makes `target` what `source` is, when they differ in these pages at most.
fn copy(pages: &mut BTreeSet<usize>, source: &[u8], target: &mut Vec<u8>) {
    target.resize(source.len(), 0);
    for page in std::mem::take(pages) {
        let end = ((page + 1) * PAGE).min(source.len());
        let start = (page * PAGE).min(end);
        target[start..end].copy_from_slice(&source[start..end]);
    }
}

/// A disk that outlives its managers.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Bytes>>);

/// The same, as one start of a manager has it.
#[derive(Debug)]
pub struct Handle {
    disk: MemoryDisk,
    boot: u64,
}

impl MemoryDisk {
    /// As it is from now on, until the next crash.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { disk: self.clone(), boot: lock(&self.0).boots }
    }

    /// Whoever has it open is killed: what it has written stays, and older handles fail. So nothing is synced or tidied up by what
    /// is only dropped.
    pub fn cut_off(&self) {
        lock(&self.0).boots += 1;
    }

    /// The power fails: what was not synced is gone, and older handles fail.
    pub fn crash(&self) {
        let mut bytes = lock(&self.0);
        bytes.lose();
        bytes.boots += 1;
        bytes.power = Power::Stays;
    }

    /// The next sync does not return, nor does anything after it.
    pub fn fail_at_next_sync(&self) {
        lock(&self.0).power = Power::FailsAtNextSync;
    }

    /// Syncs work again, unless one has failed.
    pub fn spare(&self) {
        let mut bytes = lock(&self.0);
        if bytes.power == Power::FailsAtNextSync {
            bytes.power = Power::Stays;
        }
    }

    /// Whether that has happened, until the [`crash`](Self::crash).
    #[must_use]
    pub fn has_failed(&self) -> bool {
        lock(&self.0).power == Power::Failed
    }

    /// Nothing more can be written while it is full.
    pub fn fill(&self, is_full: bool) {
        lock(&self.0).is_full = is_full;
    }

    /// Of what was written and not synced, the first `parts` of `whole` reach the disk after all. False when there is too little
    /// of it.
    pub fn tear(&self, parts: usize, whole: usize) -> bool {
        let mut bytes = lock(&self.0);
        let Bytes { now, synced, dirty, .. } = &mut *bytes;
        synced.resize(now.len().max(synced.len()), 0);
        let written = dirty.iter().flat_map(|page| page * PAGE..((page + 1) * PAGE).min(now.len()));
        let differ: Vec<_> = written.filter(|at| now[*at] != synced[*at]).collect();
        if differ.len() <= whole {
            return false;
        }
        for at in differ.iter().take(differ.len() * parts / whole) {
            synced[*at] = now[*at];
        }
        true
    }

    /// How often it was synced.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        lock(&self.0).syncs
    }
}

impl Handle {
    fn with<T>(&self, work: impl FnOnce(&mut Bytes) -> io::Result<T>) -> io::Result<T> {
        let mut bytes = lock(&self.disk.0);
        if bytes.boots != self.boot {
            return Err(io::Error::other("the power failed"));
        }
        work(&mut bytes)
    }
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX - length);
    start..start + length
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.with(|bytes| Ok(bytes.now.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|bytes| {
            let source = bytes.now.get(range(offset, out.len()));
            out.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|bytes| {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            if bytes.is_full && len > bytes.now.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.resize(len);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|bytes| {
            if bytes.power == Power::FailsAtNextSync {
                bytes.power = Power::Failed;
                bytes.boots += 1;
                return Err(io::Error::other("the power failed"));
            }
            bytes.sync();
            bytes.syncs += 1;
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|bytes| {
            if bytes.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let range = range(offset, data.len());
            let target = bytes.now.get_mut(range.clone());
            target.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
            bytes.touch(range);
            Ok(())
        })
    }
}

type Contents = BTreeMap<String, Arc<Vec<u8>>>;

/// A folder that outlives its managers. A file is there after a crash when it was synced and renamed.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles {
    now: Arc<Mutex<Contents>>,
    durable: Arc<Mutex<Contents>>,
    is_full: Arc<AtomicBool>,
}

struct Sink {
    name: String,
    written: Vec<u8>,
    files: MemoryFiles,
}

impl MemoryFiles {
    /// The power fails.
    pub fn crash(&self) {
        lock(&self.now).clone_from(&lock(&self.durable));
    }

    /// Nothing more can be written while it is full.
    pub fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// A file's bytes.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.now).get(name).map(|content| content.to_vec())
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let content = Arc::new(content);
        lock(&self.now).insert(name.to_owned(), Arc::clone(&content));
        lock(&self.durable).insert(name.to_owned(), content);
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.files.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for Sink {
    fn sync(&mut self) -> io::Result<()> {
        let content = Arc::new(self.written.clone());
        lock(&self.files.now).insert(self.name.clone(), content);
        Ok(())
    }
}

impl SnapshotFiles for MemoryFiles {
    fn create(&self, name: &str) -> io::Result<Box<dyn SnapshotSink>> {
        lock(&self.now).insert(name.to_owned(), Arc::default());
        Ok(Box::new(Sink { name: name.to_owned(), written: vec![], files: self.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read + Send>>> {
        let content = self.content(name);
        Ok(content.map(|content| Box::new(Cursor::new(content)) as Box<dyn Read + Send>))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut now = lock(&self.now);
        let content = now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        now.insert(to.to_owned(), content);
        lock(&self.durable).clone_from(&now);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.now).remove(name);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.now).keys().cloned().collect())
    }
}
