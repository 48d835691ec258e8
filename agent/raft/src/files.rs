//! The folder that snapshots are kept in, as an interface: the system's is [`Folder`], the simulation's forgets what was
//! not synced.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;

/// A file that is being written.
pub trait SnapshotSink: Write + Send {
    /// Returns once everything written is on disk.
    ///
    /// # Errors
    /// What the disk says.
    fn sync(&mut self) -> io::Result<()>;
}

/// A flat folder of files. Names are plain: letters, digits, dots.
pub trait SnapshotFiles: fmt::Debug + Send + Sync + 'static {
    /// A new, empty file; one of that name is emptied.
    ///
    /// # Errors
    /// What the disk says; the same for all below.
    fn create(&self, name: &str) -> io::Result<Box<dyn SnapshotSink>>;
    /// None when there is no such file. What is read stays the same when the name is given to another file.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read + Send>>>;
    /// Gives a synced file another's name, in place of it. Durable on return.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Nothing happens when there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;
    fn names(&self) -> io::Result<Vec<String>>;
}

/// A folder of the system, which exists.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl SnapshotSink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl SnapshotFiles for Folder {
    fn create(&self, name: &str) -> io::Result<Box<dyn SnapshotSink>> {
        Ok(Box::new(File::create(self.0.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read + Send>>> {
        match File::open(self.0.join(name)) {
            Ok(file) => Ok(Some(Box::new(BufReader::new(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))?;
        File::open(&self.0)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.0)?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}
