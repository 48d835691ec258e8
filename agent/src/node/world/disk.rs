//! The node's folder: databases, `snapshots`, `certificates`, documents. Only root enters it: it holds keys.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_ca::folder::Folder as Keys;
use ketch_node::world::{Disk, Storage};
use ketch_raft::{Folder as Snapshots, SnapshotFiles};
use redb::backends::FileBackend;
use rustix::fs::{Advice, fadvise};
use tracing::warn;

use crate::removal;

/// A document that is being written.
const STAGED: &str = ".new";

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// What a wipe has left when the machine went down in it goes now.
    pub(super) fn new(path: PathBuf) -> Self {
        let folder = Self(path);
        if let Err(error) = removal::remove(&folder.leaving()) {
            warn!("removing {}: {error}", folder.leaving().display());
        }
        folder
    }

    /// What a wipe removes is there first, in one step: half a node must never be found.
    fn leaving(&self) -> PathBuf {
        self.0.with_extension("leaving")
    }

    /// Where `name` is; the folder is made.
    fn place(&self, name: &str) -> io::Result<PathBuf> {
        let plain = !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !plain {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no plain name")));
        }
        make(&self.0)?;
        Ok(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

/// A folder for root alone, whoever has made it.
fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

impl Disk for Folder {
    fn database(&self, name: &str) -> io::Result<Storage> {
        let path = self.place(name)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        self.sync()?;
        let failed =
            |error: &dyn std::fmt::Display| io::Error::other(format!("opening {}: {error}", path.display()));
        // redb leaves that to whoever opens the file.
        file.try_lock().map_err(|error| failed(&error))?;
        // What could not be written stays in memory as if it had been: a log that is opened again must see what the disk has.
        fadvise(&file, 0, None, Advice::DontNeed)?;
        let backend = FileBackend::new(file).map_err(|error| failed(&error))?;
        Ok(Storage(Box::new(backend)))
    }

    fn snapshots(&self) -> io::Result<Arc<dyn SnapshotFiles>> {
        let path = self.place("snapshots")?;
        make(&path)?;
        self.sync()?;
        Ok(Arc::new(Snapshots::new(path)))
    }

    fn keys(&self) -> io::Result<Keys> {
        let path = self.place("certificates")?;
        make(&path)?;
        self.sync()?;
        Keys::at(&path).map_err(io::Error::other)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.place(name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.place(name)?;
        let staged = self.0.join(format!(".{name}{STAGED}"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, &path)?;
        self.sync()
    }

    fn forget_log(&self) -> io::Result<()> {
        for name in ["raft", "snapshots"] {
            removal::remove(&self.place(name)?)?;
        }
        self.sync()
    }

    fn wipe(&self) -> io::Result<()> {
        if !self.0.try_exists()? {
            return Ok(());
        }
        let leaving = self.leaving();
        removal::remove(&leaving)?;
        match fs::rename(&self.0, &leaving) {
            Ok(()) => {}
            // It is mounted there: then it has no other name.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return removal::clear(&self.0),
            Err(error) => return Err(error),
        }
        if let Some(above) = self.0.parent() {
            File::open(above)?.sync_all()?;
        }
        removal::remove(&leaving)
    }
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend;

    use super::*;
    use crate::scratch;

    fn disk(test: &str) -> (scratch::Folder, Folder) {
        let scratch = scratch::Folder::new(test);
        let folder = Folder::new(scratch.path().join("swarm"));
        (scratch, folder)
    }

    #[test]
    fn documents_are_whole_and_root_alone_sees_them() {
        let (_scratch, disk) = disk("documents");
        assert_eq!(disk.read("node.json").unwrap(), None);
        disk.write("node.json", b"one").unwrap();
        disk.write("node.json", b"two").unwrap();
        assert_eq!(disk.read("node.json").unwrap().unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&disk.0), mode(&disk.0.join("node.json"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 1, "nothing is left of the writing");
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let (_scratch, disk) = disk("names");
        for name in ["", "../x", "a/b", ".hidden"] {
            assert_eq!(disk.write(name, b"x").unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn a_database_is_one_processes() {
        let (_scratch, disk) = disk("database");
        let storage = disk.database("raft.redb").unwrap();
        storage.set_len(10).unwrap();
        storage.write(3, b"word").unwrap();
        storage.sync_data().unwrap();
        assert!(disk.database("raft.redb").is_err(), "it is open already");
        drop(storage);
        let again = disk.database("raft.redb").unwrap();
        let mut word = [0; 4];
        again.read(3, &mut word).unwrap();
        assert_eq!((&word, again.len().unwrap()), (b"word", 10));
    }

    #[test]
    fn a_wipe_leaves_nothing() {
        let (_scratch, disk) = disk("wipe");
        disk.wipe().unwrap();
        disk.write("node.json", b"x").unwrap();
        disk.snapshots().unwrap().create("1").unwrap();
        disk.keys().unwrap().write_roots("roots").unwrap();
        disk.wipe().unwrap();
        assert_eq!(fs::read_dir(disk.0.parent().unwrap()).unwrap().count(), 0);
        assert_eq!(disk.read("node.json").unwrap(), None);
        assert!(disk.keys().unwrap().read_roots().unwrap().is_none());
    }
}
