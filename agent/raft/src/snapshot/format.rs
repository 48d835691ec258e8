//! The format of a snapshot's file: a row of sealed frames, so that neither end holds more than one in memory.
//!
//! ```text
//! format (1 byte) | id of the file (16 random bytes) | frame | frame | ...
//! frame: kind (1 byte) | length of what follows (4 bytes, little end first) | sealed bytes
//! ```
//! The first frame holds the head, the others a list of objects each, the last one the SHA-256 over the lengths and the
//! contents of all before it. A frame is bound to its file, its number and its kind: none can be left out, moved or
//! brought from another snapshot, and a file that ends early has no last frame.

use std::io::{self, Read};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::files::SnapshotSink;
use crate::seal::{Ciphers, FORMAT, Place, Seal, SealError};

/// A frame is closed when its content reaches this; one object may make it longer.
pub(crate) const FRAME: usize = 256 << 10;
/// No honest frame is longer.
const LONGEST: u32 = 64 << 20;

pub(crate) type Digest = [u8; 32];

/// Why a snapshot's file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot can't be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("the snapshot is of format {0}, which a newer version of ketch wrote: start that version")]
    Newer(u8),
    #[error(
        "the snapshot is damaged ({0}): remove this manager from the cluster and let it join again, or restore a backup"
    )]
    Damaged(&'static str),
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        Self::other(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Content = 0,
    End = 1,
}

/// What a frame is bound to.
struct Position {
    file: [u8; 16],
    number: u64,
}

impl Position {
    fn key(&self, kind: Kind) -> Vec<u8> {
        [&self.file[..], &self.number.to_be_bytes(), &[kind as u8]].concat()
    }
}

/// Adds one frame's content to the digest over all.
fn add(digest: &mut Sha256, content: &[u8]) {
    digest.update((content.len() as u64).to_le_bytes());
    digest.update(content);
}

pub(crate) struct Writer {
    sink: Box<dyn SnapshotSink>,
    seal: Arc<Seal>,
    position: Position,
    digest: Sha256,
}

impl Writer {
    pub(crate) fn new(mut sink: Box<dyn SnapshotSink>, seal: Arc<Seal>) -> io::Result<Self> {
        let file = seal.random();
        sink.write_all(&[FORMAT])?;
        sink.write_all(&file)?;
        Ok(Self { sink, seal, position: Position { file, number: 0 }, digest: Sha256::new() })
    }

    pub(crate) fn frame(&mut self, content: &[u8]) -> io::Result<()> {
        add(&mut self.digest, content);
        self.put(Kind::Content, content)
    }

    /// Of what was written so far.
    pub(crate) fn digest(&self) -> Digest {
        self.digest.clone().finalize().into()
    }

    /// Closes the file, which is on disk then.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let digest = self.digest();
        self.put(Kind::End, &digest)?;
        self.sink.sync()
    }

    fn put(&mut self, kind: Kind, content: &[u8]) -> io::Result<()> {
        let key = self.position.key(kind);
        let place = Place { table: "snapshot", key: &key };
        let sealed = self.seal.close(place, content).map_err(io::Error::other)?;
        let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or_else(|| io::Error::other("a frame of a snapshot is too long"))?;
        self.position.number += 1;
        self.sink.write_all(&[kind as u8])?;
        self.sink.write_all(&length.to_le_bytes())?;
        self.sink.write_all(&sealed)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Content(Vec<u8>),
    /// The last one; the digest was right.
    End(Digest),
}

pub(crate) struct Reader {
    source: Box<dyn Read + Send>,
    /// Those of the beginning: the file may be sealed anew meanwhile, and is another one then.
    ciphers: Arc<Ciphers>,
    position: Position,
    digest: Sha256,
}

impl Reader {
    pub(crate) fn new(mut source: Box<dyn Read + Send>, seal: &Seal) -> Result<Self, SnapshotError> {
        let [format] = exactly(&mut source)?;
        match format {
            FORMAT => {}
            newer if newer > FORMAT => return Err(SnapshotError::Newer(newer)),
            _ => return Err(SnapshotError::Damaged("of no format")),
        }
        let file = exactly(&mut source)?;
        let position = Position { file, number: 0 };
        Ok(Self { source, ciphers: seal.ciphers(), position, digest: Sha256::new() })
    }

    pub(crate) fn next(&mut self) -> Result<Frame, SnapshotError> {
        let [kind] = exactly(&mut self.source)?;
        let kind = match kind {
            0 => Kind::Content,
            1 => Kind::End,
            _ => return Err(SnapshotError::Damaged("a frame of no kind")),
        };
        let length = u32::from_le_bytes(exactly(&mut self.source)?);
        if length > LONGEST {
            return Err(SnapshotError::Damaged("a frame that is too long"));
        }
        let mut sealed = Vec::new();
        self.source.by_ref().take(u64::from(length)).read_to_end(&mut sealed)?;
        let content = self.open(kind, &sealed)?;
        self.position.number += 1;
        match kind {
            Kind::Content => {
                add(&mut self.digest, &content);
                Ok(Frame::Content(content))
            }
            Kind::End => self.end(&content),
        }
    }

    fn open(&self, kind: Kind, sealed: &[u8]) -> Result<Vec<u8>, SnapshotError> {
        let key = self.position.key(kind);
        let opened = self.ciphers.open(Place { table: "snapshot", key: &key }, sealed);
        opened.map(|(content, _)| content).map_err(|error| match error {
            SealError::Newer(format) => SnapshotError::Newer(format),
            SealError::Broken => SnapshotError::Damaged("broken seal"),
        })
    }

    fn end(&self, content: &[u8]) -> Result<Frame, SnapshotError> {
        let digest: Digest = self.digest.clone().finalize().into();
        if content == digest {
            return Ok(Frame::End(digest));
        }
        Err(SnapshotError::Damaged("wrong digest"))
    }
}

fn exactly<const N: usize>(source: &mut impl Read) -> Result<[u8; N], SnapshotError> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Damaged("it ends early"),
        _ => SnapshotError::Io(error),
    })?;
    Ok(bytes)
}
