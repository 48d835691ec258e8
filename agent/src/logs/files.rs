//! The files of one log: the one that is written, and those that were, `.1` the newest of them, `.gz` where they are compressed.
//!
//! Readers hold open files, never names: a rotation under them takes nothing away. Written by one thread at a time (`queue`).

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::watch;
use tracing::warn;

use super::entry::Entry;
use super::options::Rotation;
use super::{json_file, local};

use crate::locks::locked;

/// How many rotations a follower may be behind before it loses what is oldest.
const KEPT_FOR_FOLLOWERS: usize = 16;
/// Of a file that is being compressed.
const STAGED: &str = ".gz.tmp";

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON object on a line.
    Json,
    /// A protobuf message between its lengths.
    Local,
}

/// Where the writer is: what its followers wait for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Of the file that is written; one more after each rotation.
    pub(super) generation: u64,
    /// Whether nothing will be written any more.
    pub(super) closed: bool,
}

/// The files.
#[derive(Debug)]
pub(super) struct LogFiles {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    rotation: Rotation,
    /// A JSON object, or nothing.
    attributes: String,
    open: Mutex<Open>,
    /// Held while files are renamed, and while a reader opens all of them.
    names: Mutex<()>,
    /// Held by the one compression that may run: they share a staged file.
    compressing: Mutex<()>,
    pub(super) progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Open {
    size: u64,
    /// By generation, the one that is written last.
    files: VecDeque<(u64, Arc<File>)>,
}

/// A file that a reader reads: as it is, or to be expanded first.
#[derive(Debug)]
pub(super) enum Source {
    Plain(Arc<File>),
    Gzip(File),
}

impl LogFiles {
    /// Not open yet: a write does that where nothing else has.
    pub(super) fn new(path: PathBuf, format: Format, rotation: Rotation, attributes: String) -> Self {
        Self {
            path,
            format,
            rotation,
            attributes,
            open: Mutex::new(Open { size: 0, files: VecDeque::new() }),
            names: Mutex::default(),
            compressing: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// Opens the file to append to it, and makes it where it is not there.
    pub(super) fn open(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Of a compression that was cut off; its source is still there.
        let _none = fs::remove_file(numbered(&self.path, 1, STAGED));
        let file = appended(&self.path)?;
        // A write that was cut off must not swallow what comes behind it.
        let size = match (self.format, file.metadata()?.len()) {
            (Format::Json, size) if ends_a_line(&file, size)? => size,
            (Format::Json, size) => {
                (&file).write_all(b"\n")?;
                size + 1
            }
            (Format::Local, size) => {
                let whole = local::whole(&file, size)?;
                if whole < size {
                    file.set_len(whole)?;
                }
                whole
            }
        };
        // Whoever follows a log that could not be opened until now finds a file that is new.
        let generation = self.progress.borrow().generation + 1;
        *locked(&self.open) = Open { size, files: VecDeque::from([(generation, Arc::new(file))]) };
        self.progress.send_modify(|progress| progress.generation = generation);
        Ok(())
    }

    /// Appends entries, and changes the file where it is full.
    pub(super) fn write(self: &Arc<Self>, entries: &[Entry]) -> io::Result<()> {
        if locked(&self.open).files.is_empty() {
            self.open()?;
        }
        let mut buffer = Vec::new();
        for entry in entries {
            let size = locked(&self.open).size + buffer.len() as u64;
            if self.rotation.size.is_some_and(|limit| size >= limit) {
                self.append(&mut buffer)?;
                self.rotate()?;
            }
            match self.format {
                Format::Json => json_file::encode(entry, &self.attributes, &mut buffer),
                Format::Local => local::encode(entry, &mut buffer),
            }
        }
        self.append(&mut buffer)?;
        self.progress.send_modify(|_| {});
        Ok(())
    }

    /// Nothing will be written any more.
    pub(super) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    fn append(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let file = {
            let open = locked(&self.open);
            open.files.back().map(|(_, file)| Arc::clone(file))
        };
        let Some(file) = file else { return Ok(()) };
        // As it is now: somebody may have emptied it to have room.
        let before = file.metadata()?.len();
        let written = (&*file).write_all(buffer);
        if written.is_err() && file.metadata()?.len() > before {
            // Where the disk is full: a record without its end would hide all that follow it.
            file.set_len(before)?;
        }
        locked(&self.open).size = before + if written.is_ok() { buffer.len() as u64 } else { 0 };
        buffer.clear();
        written
    }

    fn rotate(self: &Arc<Self>) -> io::Result<()> {
        let names = locked(&self.names);
        if self.rotation.files < 2 {
            present(fs::remove_file(&self.path))?;
        } else {
            self.shift()?;
        }
        let file = Arc::new(appended(&self.path)?);
        let generation = self.progress.borrow().generation + 1;
        {
            let mut open = locked(&self.open);
            let kept = if self.progress.receiver_count() > 0 { KEPT_FOR_FOLLOWERS } else { 0 };
            while open.files.len() > kept {
                drop(open.files.pop_front());
            }
            open.files.push_back((generation, file));
            open.size = 0;
        }
        self.progress.send_modify(|progress| progress.generation = generation);
        drop(names);
        if self.rotation.compress {
            let files = Arc::clone(self);
            drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = files.compress() {
                    warn!("compressing {}: {error}", numbered(&files.path, 1, "").display());
                }
            }));
        }
        Ok(())
    }

    /// Each file gets the next number; the one that has the last is removed.
    fn shift(&self) -> io::Result<()> {
        let last = self.rotation.files - 1;
        for suffix in ["", ".gz"] {
            present(fs::remove_file(numbered(&self.path, last, suffix)))?;
            for number in (1..last).rev() {
                let from = numbered(&self.path, number, suffix);
                present(fs::rename(from, numbered(&self.path, number + 1, suffix)))?;
            }
        }
        // Somebody may have moved it by hand.
        present(fs::rename(&self.path, numbered(&self.path, 1, "")))
    }

    /// All old files that are not yet, the oldest first: rotations may be faster than this.
    fn compress(&self) -> io::Result<()> {
        let _alone = locked(&self.compressing);
        while let Some(source) = self.uncompressed()? {
            self.compress_one(source)?;
        }
        Ok(())
    }

    fn uncompressed(&self) -> io::Result<Option<File>> {
        let _names = locked(&self.names);
        for number in (1..self.rotation.files).rev() {
            match File::open(numbered(&self.path, number, "")) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Other rotations may move the file on meanwhile: it is found again by its inode.
    fn compress_one(&self, mut source: File) -> io::Result<()> {
        let staged = numbered(&self.path, 1, STAGED);
        let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&staged)?;
        let mut encoder = GzEncoder::new(target, Compression::default());
        let _bytes = io::copy(&mut source, &mut encoder)?;
        drop(encoder.finish()?);
        let inode = source.metadata()?.ino();
        let _names = locked(&self.names);
        for number in 1..self.rotation.files {
            let plain = numbered(&self.path, number, "");
            if fs::metadata(&plain).is_ok_and(|metadata| metadata.ino() == inode) {
                fs::rename(&staged, numbered(&self.path, number, ".gz"))?;
                return fs::remove_file(&plain);
            }
        }
        // Rotated out of all names.
        present(fs::remove_file(&staged))
    }

    /// All that is there, the oldest first, and the generation of the last.
    pub(super) fn sources(&self) -> io::Result<(Vec<Source>, u64)> {
        let _names = locked(&self.names);
        let mut sources = old_sources(&self.path)?;
        let open = locked(&self.open);
        let Some((generation, file)) = open.files.back() else { return Ok((sources, 0)) };
        // Readers use offsets of their own.
        sources.push(Source::Plain(Arc::clone(file)));
        Ok((sources, *generation))
    }

    /// The file after that of `generation`, or the oldest that is kept after it.
    pub(super) fn after(&self, generation: u64) -> Option<(u64, Arc<File>)> {
        let open = locked(&self.open);
        open.files
            .iter()
            .find(|(number, _)| *number > generation)
            .map(|(number, file)| (*number, Arc::clone(file)))
    }
}

/// The files of a log that nobody writes, the oldest first.
pub(super) fn ended_sources(path: &Path) -> io::Result<Vec<Source>> {
    let mut sources = old_sources(path)?;
    match File::open(path) {
        Ok(file) => sources.push(Source::Plain(Arc::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(sources)
}

fn old_sources(path: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for number in 1.. {
        let source = match File::open(numbered(path, number, "")) {
            Ok(file) => Source::Plain(Arc::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match File::open(numbered(path, number, ".gz")) {
                    Ok(file) => Source::Gzip(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        sources.push(source);
    }
    sources.reverse();
    Ok(sources)
}

fn numbered(path: &Path, number: usize, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{suffix}"));
    PathBuf::from(name)
}

fn appended(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

fn ends_a_line(file: &File, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// A file that is not there is as good as renamed or removed.
fn present(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
