//! The layers of an archive that is staged: unpacked some at once, and kept as the very files that are staged.

use std::fs;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::Images;
use super::digest::Digest;
use super::layers::Promised;
use super::load::{Archive, LoadOptions};
use super::progress::Progress;
use super::spec::Descriptor;
use super::state::Layer;
use crate::error::{Error, Result};
use crate::locks::locked;

/// Layers that are unpacked at once, where there are as many processors.
const AT_ONCE: usize = 4;
/// Between two messages, in bytes.
const STEP: u64 = 512 << 10;

/// A layer of an image.
pub(super) struct Wanted {
    /// Its file's in the archive.
    pub(super) name: String,
    pub(super) diff_id: Digest,
    /// What a manifest says of it.
    pub(super) descriptor: Option<Descriptor>,
}

impl Images {
    /// All of them in their order: those that are here already, and those of the archive.
    pub(super) fn load_layers(
        &self,
        archive: &Archive,
        wanted: &[Wanted],
        options: &LoadOptions,
        progress: &Progress,
    ) -> Result<Vec<Arc<Layer>>> {
        let mut loaded: Vec<_> = wanted.iter().map(|layer| self.layer(layer.diff_id).map(Ok)).collect();
        let missing: Vec<usize> = (0..wanted.len())
            .filter(|at| loaded[*at].is_none())
            // One that is in the image twice is unpacked once.
            .filter(|at| !wanted[..*at].iter().any(|before| before.diff_id == wanted[*at].diff_id))
            .collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        // Messages that a client does not take at once are waited for by the runtime.
        let runtime = tokio::runtime::Handle::try_current().ok();
        let work = || {
            let _context = runtime.as_ref().map(tokio::runtime::Handle::enter);
            while let Some(at) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let layer = self.load_layer(archive, &wanted[*at], options, progress);
                if layer.is_err() {
                    next.store(missing.len(), Ordering::Relaxed);
                }
                locked(&done).push((*at, layer));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(AT_ONCE).min(missing.len()) {
                let _handle = scope.spawn(work);
            }
            work();
        });
        for (at, layer) in locked(&done).drain(..) {
            let layer = layer?;
            for same in (0..wanted.len()).filter(|same| wanted[*same].diff_id == wanted[at].diff_id) {
                loaded[same] = Some(Ok(Arc::clone(&layer)));
            }
        }
        let not_here = || Error::invalid("a layer of the archive was not loaded");
        loaded.into_iter().map(|layer| layer.unwrap_or_else(|| Err(not_here()))).collect()
    }

    fn load_layer(
        &self,
        archive: &Archive,
        wanted: &Wanted,
        options: &LoadOptions,
        progress: &Progress,
    ) -> Result<Arc<Layer>> {
        let Wanted { name, diff_id, descriptor } = wanted;
        let missing = || Error::invalid(format!("open {name}: no such file or directory"));
        let file = archive.file(name).ok_or_else(missing)?;
        if let Some(stated) = descriptor.as_ref().filter(|stated| stated.digest != file.digest) {
            let digest = stated.digest;
            return Err(Error::invalid(format!("filesystem layer verification failed for digest {digest}")));
        }
        let stream = fs::File::open(&file.path)
            .map_err(|error| Error::internal(format_args!("opening {name}"), &error))?;
        let staged = locked(&file.staged).take().ok_or_else(missing)?;
        let promised = Promised {
            blob: Some(file.digest),
            diff_id: Some(*diff_id),
            media_type: descriptor.as_ref().map(|descriptor| descriptor.media_type.clone()),
            by: None,
        };
        let layer = if options.quiet {
            self.add_staged_layer(staged, stream, file.digest, &promised)
        } else {
            let told = Told { stream, id: diff_id.short(), current: 0, last: 0, total: file.size, progress };
            self.add_staged_layer(staged, told, file.digest, &promised)
        };
        layer.map_err(|error| match error.message.starts_with("layers from manifest") {
            true => Error::invalid(format!("invalid diffID for layer {name}: expected {diff_id}")),
            false => error,
        })
    }
}

/// Tells how much of a layer has been read.
struct Told<'a> {
    stream: fs::File,
    id: String,
    current: u64,
    last: u64,
    total: u64,
    progress: &'a Progress,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.current += count as u64;
        if self.current - self.last >= STEP || (count == 0 && self.last != self.current) {
            self.last = self.current;
            self.progress.bytes(&self.id, "Loading layer", self.current, self.total);
        }
        Ok(count)
    }
}
