//! A node's disk, which outlives its agent: a crash takes what was not synced, or leaves a part of it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ketch_ca::folder::Folder;
use ketch_node::world::{Disk, Storage};
use ketch_raft::SnapshotFiles;
use ketch_raft::memory::{MemoryDisk, MemoryFiles};

use crate::locks::lock;
use crate::random::Random;

/// Where the node's keys are, which `ketch-ca` keeps in files: on the machine that simulates.
#[derive(Debug)]
pub(crate) struct SimulatedDisk {
    databases: Mutex<BTreeMap<String, MemoryDisk>>,
    snapshots: Mutex<MemoryFiles>,
    documents: Mutex<BTreeMap<String, Vec<u8>>>,
    keys: PathBuf,
}

impl SimulatedDisk {
    /// Keys are kept in `keys`, which is made when it is needed.
    pub(crate) fn new(keys: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            databases: Mutex::default(),
            snapshots: Mutex::default(),
            documents: Mutex::default(),
            keys,
        })
    }

    /// The agent is killed, which closes nothing on its way out.
    pub(crate) fn cut_off(&self) {
        lock(&self.databases).values().for_each(MemoryDisk::cut_off);
    }

    /// The power is to fail in the middle of the next sync of one of the databases.
    pub(crate) fn fail_at_next_sync(&self) {
        lock(&self.databases).values().for_each(MemoryDisk::fail_at_next_sync);
    }

    /// Not any more.
    pub(crate) fn spare(&self) {
        lock(&self.databases).values().for_each(MemoryDisk::spare);
    }

    /// Whether it has done so.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.databases).values().any(MemoryDisk::has_failed)
    }

    /// The power fails. Of what was written and not synced a part may be there.
    pub(crate) fn crash(&self, random: &mut Random) {
        for disk in lock(&self.databases).values() {
            if random.below(2) == 0 {
                let parts = usize::try_from(random.below(4)).unwrap_or(0);
                let _torn = disk.tear(parts, 4);
            }
            disk.crash();
        }
        lock(&self.snapshots).crash();
    }
}

impl Disk for SimulatedDisk {
    fn database(&self, name: &str) -> io::Result<Storage> {
        Ok(Storage(Box::new(lock(&self.databases).entry(name.to_owned()).or_default().handle())))
    }

    fn snapshots(&self) -> io::Result<Arc<dyn SnapshotFiles>> {
        Ok(Arc::new(lock(&self.snapshots).clone()))
    }

    fn keys(&self) -> io::Result<Folder> {
        Folder::at(&self.keys).map_err(io::Error::other)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(lock(&self.documents).get(name).cloned())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        lock(&self.documents).insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn forget_log(&self) -> io::Result<()> {
        lock(&self.databases).remove("raft");
        *lock(&self.snapshots) = MemoryFiles::default();
        Ok(())
    }

    fn wipe(&self) -> io::Result<()> {
        lock(&self.databases).clear();
        lock(&self.documents).clear();
        *lock(&self.snapshots) = MemoryFiles::default();
        match std::fs::remove_dir_all(&self.keys) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
