//! The snapshots on disk: at most one that counts, and those that are being written beside it.

pub(crate) mod format;

use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ketch_cluster::objects::Version;
use ketch_cluster::store::{Object, Snapshot, Store};

use crate::files::SnapshotFiles;
use crate::record::SnapshotHead;
use crate::seal::{Era, Seal};
use format::{Digest, FRAME, Frame, Reader, SnapshotError, Writer};

const CURRENT: &str = "snapshot";
/// The end of the name of a file that is not complete.
const UNFINISHED: &str = ".new";

/// Counts the files that were begun, by whichever instance of the process: two of them never write one file.
static BEGUN: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Snapshots {
    files: Arc<dyn SnapshotFiles>,
    seal: Arc<Seal>,
    /// The head of the file [`CURRENT`]; held while that file is opened or replaced.
    current: Mutex<Option<SnapshotHead>>,
    /// Set while `current` is held. Raft leaves a snapshot that is being written to itself when it ends.
    is_closed: AtomicBool,
}

/// A snapshot's file, opened.
pub(crate) struct SnapshotFile {
    source: Box<dyn Read + Send>,
    origin: Origin,
}

enum Origin {
    Current,
    /// Received under this name, and complete.
    Received(String, Era),
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotFile")
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What a snapshot says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) head: SnapshotHead,
    pub(crate) store: Store,
}

/// A snapshot on its way in.
pub(crate) struct Incoming {
    pub(crate) head: SnapshotHead,
    name: String,
    writer: Writer,
    era: Era,
}

impl Snapshots {
    /// Removes what was not finished, and reads the snapshot that counts.
    pub(crate) fn open(
        files: Arc<dyn SnapshotFiles>,
        seal: Arc<Seal>,
    ) -> Result<(Self, Option<Loaded>), SnapshotError> {
        for name in files.names()?.iter().filter(|name| name.ends_with(UNFINISHED)) {
            files.remove(name)?;
        }
        let snapshots = Self { files, seal, current: Mutex::default(), is_closed: AtomicBool::new(false) };
        let Some(source) = snapshots.files.open(CURRENT)? else { return Ok((snapshots, None)) };
        let loaded = snapshots.read(source)?;
        *snapshots.lock() = Some(loaded.head.clone());
        Ok((snapshots, Some(loaded)))
    }

    /// The snapshot that counts, opened.
    pub(crate) fn current(&self) -> io::Result<Option<(SnapshotHead, SnapshotFile)>> {
        let current = self.lock();
        let Some(head) = current.as_ref() else { return Ok(None) };
        let source = self.files.open(CURRENT)?;
        let source = source.ok_or(SnapshotError::Damaged("its file is gone"))?;
        Ok(Some((head.clone(), SnapshotFile { source, origin: Origin::Current })))
    }

    /// Writes a new one, which counts from then on unless a later one does already.
    pub(crate) fn write(&self, head: &SnapshotHead, objects: &[Object]) -> io::Result<()> {
        let mut incoming = self.receive(head.clone())?;
        for frame in frames(objects) {
            incoming.writer.frame(&frame?)?;
        }
        let Incoming { name, writer, era: _until_it_counts, .. } = incoming;
        writer.finish()?;
        self.publish(&name, head)
    }

    /// Seals by the newest key what counts, unless another snapshot takes its place meanwhile.
    pub(crate) fn reseal(&self) -> Result<(), SnapshotError> {
        let Some((head, file)) = self.current()? else { return Ok(()) };
        let mut reader = self.reader(file)?;
        let Incoming { name, mut writer, era: _until_it_counts, .. } = self.begin(head.clone())?;
        while let Frame::Content(content) = reader.next()? {
            writer.frame(&content)?;
        }
        writer.finish()?;
        Ok(self.publish(&name, &head)?)
    }

    /// Starts a file for a snapshot that comes from elsewhere.
    pub(crate) fn receive(&self, head: SnapshotHead) -> io::Result<Incoming> {
        let mut incoming = self.begin(head)?;
        incoming.writer.frame(&serde_json::to_vec(&incoming.head)?)?;
        Ok(incoming)
    }

    fn begin(&self, head: SnapshotHead) -> io::Result<Incoming> {
        // Taken first: a key that changes in between counts as another one for no reason, and no harm is done.
        let era = self.seal.era();
        let name = format!("{CURRENT}.{}{UNFINISHED}", BEGUN.fetch_add(1, Ordering::Relaxed));
        let writer = Writer::new(self.files.create(&name)?, Arc::clone(&self.seal))?;
        Ok(Incoming { head, name, writer, era })
    }

    /// The file is complete; refused when it is not what its sender has.
    pub(crate) fn received(&self, incoming: Incoming, digest: Digest) -> Result<SnapshotFile, SnapshotError> {
        let Incoming { name, writer, era, .. } = incoming;
        if writer.digest() != digest {
            self.files.remove(&name)?;
            return Err(SnapshotError::Damaged("wrong digest"));
        }
        writer.finish()?;
        let source = self.files.open(&name)?.ok_or(SnapshotError::Damaged("its file is gone"))?;
        Ok(SnapshotFile { source, origin: Origin::Received(name, era) })
    }

    /// Forgets a snapshot that was not received to its end.
    pub(crate) fn give_up(&self, incoming: Incoming) -> io::Result<()> {
        self.files.remove(&incoming.name)
    }

    /// Reads a snapshot and makes it the one that counts.
    pub(crate) fn install(&self, file: SnapshotFile) -> Result<Loaded, SnapshotError> {
        let loaded = self.read(file.source)?;
        match file.origin {
            Origin::Received(name, _until_it_counts) => self.publish(&name, &loaded.head)?,
            Origin::Current if self.lock().as_ref() == Some(&loaded.head) => {}
            Origin::Current => self.write(&loaded.head, &loaded.store.snapshot().objects)?,
        }
        Ok(loaded)
    }

    /// A snapshot's content, frame by frame.
    pub(crate) fn reader(&self, file: SnapshotFile) -> Result<Reader, SnapshotError> {
        Reader::new(file.source, &self.seal)
    }

    fn read(&self, source: Box<dyn Read + Send>) -> Result<Loaded, SnapshotError> {
        let mut reader = Reader::new(source, &self.seal)?;
        let Frame::Content(head) = reader.next()? else {
            return Err(SnapshotError::Damaged("it has no head"));
        };
        let head: SnapshotHead = parsed(&head)?;
        let mut objects = Vec::new();
        while let Frame::Content(frame) = reader.next()? {
            objects.extend(parsed::<Vec<Object>>(&frame)?);
        }
        let store = Store::of(Snapshot { version: Version(head.version), objects });
        Ok(Loaded { head, store })
    }

    fn publish(&self, name: &str, head: &SnapshotHead) -> io::Result<()> {
        let mut current = self.lock();
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(io::Error::other("its log was closed meanwhile"));
        }
        if current.as_ref().is_some_and(|current| current.last > head.last) {
            return self.files.remove(name);
        }
        self.files.rename(name, CURRENT)?;
        *current = Some(head.clone());
        Ok(())
    }

    /// Nothing counts any more that is finished from now on: the folder is another instance's.
    pub(crate) fn close(&self) {
        let _held = self.lock();
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SnapshotHead>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Incoming {
    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn frame(&mut self, content: &[u8]) -> io::Result<()> {
        self.writer.frame(content)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(content: &[u8]) -> Result<T, SnapshotError> {
    serde_json::from_slice(content).map_err(|_| SnapshotError::Damaged("a frame does not parse"))
}

/// Lists of objects as JSON, each about [`FRAME`] long.
fn frames(objects: &[Object]) -> impl Iterator<Item = io::Result<Vec<u8>>> + '_ {
    let mut rest = objects.iter();
    std::iter::from_fn(move || {
        let mut frame = vec![b'['];
        while frame.len() < FRAME {
            let Some(object) = rest.next() else { break };
            if frame.len() > 1 {
                frame.push(b',');
            }
            if let Err(error) = serde_json::to_writer(&mut frame, object) {
                return Some(Err(error.into()));
            }
        }
        if frame.len() == 1 {
            return None;
        }
        frame.push(b']');
        Some(Ok(frame))
    })
}
