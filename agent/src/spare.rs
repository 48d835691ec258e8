//! Room on the store's disk that is given up when the disk is full: what is removed has to be written down, too, and a full disk would
//! else keep everything. Called by [`crate::store`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// As much as some commits need: a dozen pages each, and those of the file's own record of them.
const SIZE: u64 = 1 << 20;
/// Less is of no use.
const LEAST: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spare(PathBuf);

impl Spare {
    /// Beside a file, by its name.
    pub(crate) fn beside(path: &Path) -> Self {
        Self(path.with_extension("spare"))
    }

    /// Has as much room as there is, up to what is wanted. That there is none is no fault.
    pub(crate) fn take(&self) {
        if std::fs::metadata(&self.0).is_ok_and(|file| file.len() >= SIZE) {
            return;
        }
        let mut size = SIZE;
        while size >= LEAST && self.make(size).is_err() {
            size /= 2;
        }
        if size < LEAST {
            self.give_up();
        }
    }

    fn make(&self, size: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.0)?;
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            Err(rustix::io::Errno::NOTSUP) => fill(&file, size),
            done => Ok(done?),
        }
    }

    /// Gives it to whoever writes next.
    pub(crate) fn give_up(&self) {
        let _absent = std::fs::remove_file(&self.0);
    }
}

/// Where blocks can't be had without writing them.
fn fill(file: &File, size: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(size).unwrap_or_default()];
    std::os::unix::fs::FileExt::write_all_at(file, &zeros, 0)?;
    file.sync_data()
}

/// Whether a failure is one of room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn it_has_blocks_until_it_is_given_up() {
        use std::os::unix::fs::MetadataExt;
        let folder = Folder::new("spare");
        let spare = Spare::beside(&folder.path().join("store.redb"));
        spare.take();
        spare.take();
        let file = std::fs::metadata(folder.path().join("store.spare")).unwrap();
        assert!(file.len() == SIZE && file.blocks() * 512 >= SIZE);
        spare.give_up();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
