//! From a stream to a layer: summed, inflated, summed again and unpacked as it arrives, and believed only when both sums are
//! those that were promised.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::Arc;

use ketch_node::mark::Mark;

use super::Images;
use super::ahead::read_ahead;
use super::digest::{Digest, Summing};
use super::direct::DirectFile;
use super::giving::Growing;
use super::inflate::Inflate;
use super::spec::{Descriptor, OCI_LAYER};
use super::staging::Staged;
use super::state::{Blob, LAYERS, Layer, LayerRecord};
use super::unpack::{Limits, UnpackError, Unpacker};
use crate::error::{Error, Kind, Result};
use crate::locks::locked;
use crate::tar::Reader;

/// As many members as a layer may have; the largest in use have a tenth.
const MOST_ENTRIES: u64 = 10_000_000;
/// What a layer leaves of the file system, in bytes.
const LEFT_FREE: u64 = 256 << 20;
/// dockerd's words.
const NOT_THE_BLOB: &str = "filesystem layer verification failed for digest";

/// What the settings let a layer have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Of its files, in bytes; none: what fits on the disk.
    pub bytes: Option<u64>,
    /// Files; none: ten million.
    pub files: Option<u64>,
}

/// What a layer's stream has to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Promised {
    /// Of the stream.
    pub(super) blob: Option<Digest>,
    /// Of its content.
    pub(super) diff_id: Option<Digest>,
    /// What a manifest calls it.
    pub(super) media_type: Option<String>,
    /// By whose credentials it comes.
    pub(super) by: Option<Mark>,
}

/// Reads on behalf of two: what passes is written to a file too, which is complete at the end.
struct Copying<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Copying<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        if count == 0 {
            self.to.flush()?;
        }
        Ok(count)
    }
}

/// Writes a file, and tells how much of it can be read.
struct Giving {
    file: DirectFile,
    growing: Option<Growing>,
}

impl Giving {
    fn tell(&self) {
        if let Some(growing) = &self.growing {
            growing.written(self.file.readable());
        }
    }
}

impl Write for Giving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.tell();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.tell();
        Ok(())
    }
}

/// A layer that is not yet believed.
struct Unpacked {
    folder: Staged,
    blob: Digest,
    blob_size: u64,
    diff_id: Digest,
    tar_size: u64,
    size: u64,
    plain: bool,
}

impl Images {
    /// The layer, if it is here.
    pub(super) fn layer(&self, diff_id: Digest) -> Option<Arc<Layer>> {
        self.state().layers.get(&diff_id).cloned()
    }

    /// Reads a layer to its end and keeps it, with its stream as a blob. Blocks.
    ///
    /// # Errors
    /// The stream's, the disk's, a hostile tar, or another content than promised; nothing of it is left then.
    pub(super) fn add_layer(&self, stream: impl Read + Send, promised: &Promised) -> Result<Arc<Layer>> {
        let (file, staged) = self.staging().file().map_err(|error| failed("staging a layer", &error))?;
        let unpacked = self
            .unpack(Summing::new(Copying { from: stream, to: DirectFile::new(file, u64::MAX) }), promised)?;
        self.keep_layer(unpacked, staged, promised)
    }

    /// The same, and other nodes are given what has come of it. It is left in the page cache: they read it there.
    ///
    /// # Errors
    /// As [`Images::add_layer`].
    pub(super) fn add_given_layer(
        &self,
        stream: impl Read + Send,
        promised: &Promised,
    ) -> Result<Arc<Layer>> {
        let staging = |error: io::Error| failed("staging a layer", &error);
        let (file, staged) = self.staging().file().map_err(staging)?;
        let growing = match promised.blob {
            Some(blob) => {
                let file = fs::File::open(staged.path()).map_err(staging)?;
                Some(self.grow(blob, file, promised.by))
            }
            None => None,
        };
        let to = Giving { file: DirectFile::new(file, 0), growing };
        let unpacked = self.unpack(Summing::new(Copying { from: stream, to }), promised)?;
        self.keep_layer(unpacked, staged, promised)
    }

    /// The same of a file that is staged already, and whose digest is this. `stream` reads it. Blocks.
    ///
    /// # Errors
    /// As [`Images::add_layer`]
    pub(super) fn add_staged_layer(
        &self,
        staged: Staged,
        stream: impl Read + Send,
        digest: Digest,
        promised: &Promised,
    ) -> Result<Arc<Layer>> {
        let unpacked = self.unpack(Summing::known(stream, digest), promised)?;
        self.keep_layer(unpacked, staged, promised)
    }

    /// As much as is allowed and fits.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let Limits { bytes, entries } = self.free()?;
        let bounds = *locked(&self.0.bounds);
        Ok(Limits {
            bytes: bytes.min(bounds.bytes.unwrap_or(u64::MAX)),
            entries: entries.min(bounds.files.unwrap_or(MOST_ENTRIES)),
        })
    }

    /// As much as fits, with something left for others.
    pub(super) fn free(&self) -> Result<Limits> {
        let about = rustix::fs::statvfs(&self.folders().layers)
            .map_err(|error| failed("asking for free space", &error.into()))?;
        let bytes = about.f_bavail.saturating_mul(about.f_frsize).saturating_sub(LEFT_FREE);
        // Some file systems count no files.
        let entries = if about.f_files == 0 { u64::MAX } else { about.f_favail };
        Ok(Limits { bytes, entries })
    }

    fn unpack<R: Read + Send>(&self, stream: Summing<R>, promised: &Promised) -> Result<Unpacked> {
        let stage = || self.0.unpacking.folder().map_err(|error| failed("staging a layer", &error));
        let (folder, trash) = (stage()?, stage()?);
        // What is made of no member's saying is as a root is.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|error| failed("staging a layer", &error))?;
        self.ids().give(folder.path()).map_err(|error| failed("staging a layer", &error))?;
        let mut unpacker = Unpacker::new(folder.path(), trash.path(), self.limits()?)
            .map_err(|error| failed("staging a layer", &error))?
            .for_users(self.ids());
        let read = |error: io::Error| Error::invalid(format!("reading a layer: {error}"));
        let known = stream.known_digest();
        let inflate = Inflate::new(stream).map_err(read)?;
        let plain = inflate.is_plain();
        let unpacking = read_ahead(inflate, |content| -> Result<_, UnpackError> {
            let content = match known.filter(|_| plain) {
                Some(digest) => Summing::known(content, digest),
                None => Summing::new(content),
            };
            let mut reader = Reader::new(content);
            unpacker.unpack(&mut reader)?;
            // The sums are of everything, what is behind the tar's end too; a compression's own sum is there.
            let mut content = reader.into_inner();
            let _rest = io::copy(&mut content, &mut io::sink()).map_err(UnpackError::Read)?;
            let (_, diff_id, tar_size) = content.finish();
            Ok((diff_id, tar_size))
        });
        let (unpacked, inflate) = unpacking.map_err(|error| failed("unpacking a layer", &error))?;
        let (diff_id, tar_size) = match unpacked {
            Ok(sums) => sums,
            Err(error) => {
                if matches!(error, UnpackError::Read(_)) {
                    verify_rest(inflate, promised)?;
                }
                let kind = match error {
                    UnpackError::Make(..) => Kind::Internal,
                    _ => Kind::InvalidArgument,
                };
                return Err(Error { kind, ..Error::internal("unpacking a layer", &error) });
            }
        };
        let stream = inflate.into_summing().map_err(read)?;
        let (_, blob, blob_size) = stream.finish();
        drop(trash);
        Ok(Unpacked { folder, blob, blob_size, diff_id, tar_size, size: unpacker.size, plain })
    }

    fn keep_layer(&self, unpacked: Unpacked, file: Staged, promised: &Promised) -> Result<Arc<Layer>> {
        for (wanted, found, what) in [
            (promised.blob, unpacked.blob, NOT_THE_BLOB),
            (promised.diff_id, unpacked.diff_id, "layers from manifest don't match image configuration:"),
        ] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(Error::invalid(format!("{what} {wanted}")));
            }
        }
        let media_type = match (&promised.media_type, unpacked.plain) {
            (Some(media_type), _) => media_type.clone(),
            (None, true) => OCI_LAYER.to_owned(),
            (None, false) => super::spec::DOCKER_LAYER.to_owned(),
        };
        self.mark(unpacked.blob, promised.by)?;
        let form = Descriptor::new(media_type, unpacked.blob, unpacked.blob_size);
        let blob = self.keep_blob(file, unpacked.blob, unpacked.blob_size)?;
        let _changing = self.changing();
        if let Some(layer) = self.layer(unpacked.diff_id) {
            return Ok(layer);
        }
        let number = self.state().next_layer();
        let record =
            LayerRecord { number, size: unpacked.size, tar_size: unpacked.tar_size, forms: vec![form] };
        let kept = self.folders().layer(&record);
        unpacked.folder.keep(&kept).map_err(|error| failed("keeping a layer", &error))?;
        if let Err(error) = self.store().put(LAYERS, &unpacked.diff_id.to_string(), &record) {
            drop(self.staging().discard(&kept));
            return Err(error);
        }
        let layer = Arc::new(Layer {
            diff_id: unpacked.diff_id,
            record,
            blobs: vec![blob],
            gzip: std::sync::Mutex::default(),
        });
        let _none = self.state().layers.insert(layer.diff_id, Arc::clone(&layer));
        Ok(layer)
    }

    /// The blob, if it is here.
    pub(super) fn blob(&self, digest: Digest) -> Option<Arc<Blob>> {
        self.state().blobs.get(&digest).cloned()
    }

    /// Keeps a staged file, whose digest is this.
    pub(super) fn keep_blob(&self, file: Staged, digest: Digest, size: u64) -> Result<Arc<Blob>> {
        let _changing = self.changing();
        if let Some(blob) = self.blob(digest) {
            return Ok(blob);
        }
        file.keep(&self.folders().blob(digest)).map_err(|error| failed("keeping a blob", &error))?;
        let blob = Arc::new(Blob { digest, size });
        let _none = self.state().blobs.insert(digest, Arc::clone(&blob));
        self.0.giving.tell();
        Ok(blob)
    }

    /// Keeps bytes.
    pub(super) fn add_blob(&self, bytes: &[u8]) -> Result<Arc<Blob>> {
        let digest = Digest::of(bytes);
        if let Some(blob) = self.blob(digest) {
            return Ok(blob);
        }
        let (mut file, staged) = self.staging().file().map_err(|error| failed("staging a blob", &error))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_data())
            .map_err(|error| failed("writing a blob", &error))?;
        self.keep_blob(staged, digest, bytes.len() as u64)
    }

    /// A blob's bytes.
    pub(super) fn read_blob(&self, digest: Digest) -> Result<Vec<u8>> {
        fs::read(self.folders().blob(digest)).map_err(|error| failed("reading a blob", &error))
    }
}

/// Whether a stream that can't be read on is what was promised, as far as its digest tells: content that is not what was promised
/// is told of as that, not as whatever is wrong in it.
fn verify_rest<R: Read>(inflate: Inflate<Summing<R>>, promised: &Promised) -> Result<()> {
    // A stream that does not go on has its own story, which its reader tells.
    let Ok(stream) = inflate.into_summing() else { return Ok(()) };
    let (_, found, _) = stream.finish();
    match promised.blob.filter(|wanted| *wanted != found) {
        Some(wanted) => Err(Error::invalid(format!("{NOT_THE_BLOB} {wanted}"))),
        None => Ok(()),
    }
}

/// Whether a layer was refused because its bytes are another blob's, whatever they are.
pub(super) fn is_another_blob(error: &Error) -> bool {
    error.message.starts_with(NOT_THE_BLOB)
}

fn failed(action: &str, error: &io::Error) -> Error {
    Error::internal(action, error)
}
