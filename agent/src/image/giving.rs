//! What is given to other nodes: blobs of an image that is here, as they are on the disk, and of one that is pulled just now as far
//! as they have arrived. Who asks has a right to the image, and gets nothing else than what belongs to it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout_at};

use super::Images;
use super::digest::Digest;
use super::sharing::Part;
use super::state::{Blob, Image};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::locks::locked;

/// How long what is on its way is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long, where none of it has come: another node may have it, and whoever asks may be the one who is waited for.
const BEGINNING: Duration = Duration::from_millis(200);

/// Why nothing is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotGiven {
    /// It is no blob of that image, or is not here.
    NotHere,
    /// It is on its way.
    NotYet,
}

/// What is pulled just now.
#[derive(Debug, Default)]
pub(super) struct Giving {
    pulls: Mutex<HashMap<Digest, Pull>>,
    arriving: Mutex<HashMap<Digest, Arc<Arriving>>>,
    /// Counts what changes.
    news: watch::Sender<u64>,
    /// Of each image that is pulled by several, one after another.
    turns: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

/// Of one image: how often at once, and what belongs to it.
#[derive(Debug, Default)]
struct Pull {
    count: usize,
    blobs: HashSet<Digest>,
    /// Whether all of them are known.
    whole: bool,
}

/// A layer's file that grows.
#[derive(Debug)]
struct Arriving {
    file: File,
    written: watch::Sender<Written>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Written {
    bytes: u64,
    ended: bool,
}

/// A pull that gives what it gets, until it is dropped.
#[derive(Debug)]
pub(super) struct Offer {
    images: Images,
    image: Digest,
}

/// A file that is given while it grows, until this is dropped.
#[derive(Debug)]
pub(super) struct Growing {
    images: Images,
    blob: Digest,
    arriving: Arc<Arriving>,
}

enum Place {
    Whole(Arc<Blob>),
    Arriving(Arc<Arriving>),
    Coming,
}

impl Images {
    /// Waits until nobody else pulls this image with other nodes: tasks of a service come to a node many at once, and the second
    /// finds what the first has pulled.
    pub(super) async fn turn_of(&self, image: Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = locked(&self.0.giving.turns);
            turns.retain(|_, turn| turn.strong_count() > 0);
            turns.get(&image).and_then(Weak::upgrade).unwrap_or_else(|| {
                let turn = Arc::default();
                let _none = turns.insert(image, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Begins to give what a pull of this image gets.
    pub(super) fn offer(&self, image: Digest) -> Offer {
        locked(&self.0.giving.pulls).entry(image).or_default().count += 1;
        let offer = Offer { images: self.clone(), image };
        offer.add([image]);
        offer
    }

    /// Begins to give a file that grows.
    pub(super) fn grow(&self, blob: Digest, file: File) -> Growing {
        let arriving = Arc::new(Arriving { file, written: watch::Sender::default() });
        let _older = locked(&self.0.giving.arriving).insert(blob, Arc::clone(&arriving));
        self.0.giving.tell();
        Growing { images: self.clone(), blob, arriving }
    }

    /// Bytes of a blob from `offset` on, at most so many, if it belongs to that image. They are not verified.
    ///
    /// # Errors
    /// [`NotGiven`].
    pub async fn give(&self, part: Part, offset: u64, length: usize) -> Result<Bytes, NotGiven> {
        let begun = Instant::now();
        let until = begun + PATIENCE;
        let mut news = self.0.giving.news.subscribe();
        loop {
            news.mark_unchanged();
            match self.place(part)? {
                Place::Whole(blob) => return self.read_part(blob, offset, length).await,
                Place::Arriving(arriving) => {
                    if let Some(bytes) = arriving.read(offset, length, until).await? {
                        return Ok(bytes);
                    }
                }
                Place::Coming => {
                    if timeout_at(begun + BEGINNING, news.changed()).await.is_err() {
                        return Err(NotGiven::NotYet);
                    }
                }
            }
            if Instant::now() >= until {
                return Err(NotGiven::NotYet);
            }
        }
    }

    fn place(&self, part: Part) -> Result<Place, NotGiven> {
        let coming = {
            let pulls = locked(&self.0.giving.pulls);
            let pull = pulls.get(&part.image);
            pull.is_some_and(|pull| !pull.whole || pull.blobs.contains(&part.blob))
        };
        let here = self.state().images.values().any(|image| has_part(image, part));
        if !here && !coming {
            return Err(NotGiven::NotHere);
        }
        // Only what is known to belong to the image is read: what it is not known of yet is waited for.
        let known = here
            || locked(&self.0.giving.pulls).get(&part.image).is_some_and(|it| it.blobs.contains(&part.blob));
        if !known {
            return Ok(Place::Coming);
        }
        if let Some(blob) = self.blob(part.blob) {
            return Ok(Place::Whole(blob));
        }
        if let Some(arriving) = locked(&self.0.giving.arriving).get(&part.blob) {
            return Ok(Place::Arriving(Arc::clone(arriving)));
        }
        if coming { Ok(Place::Coming) } else { Err(NotGiven::NotHere) }
    }

    async fn read_part(&self, blob: Arc<Blob>, offset: u64, length: usize) -> Result<Bytes, NotGiven> {
        let path = self.folders().blob(blob.digest);
        let read = blocking(move || {
            let read = File::open(&path).and_then(|file| read_at(&file, offset, length));
            // Held until here: it is not removed meanwhile.
            drop(blob);
            read.map_err(|error| Error::internal(format_args!("reading {}", path.display()), &error))
        });
        match read.await {
            Ok(bytes) if bytes.is_empty() && length > 0 => Err(NotGiven::NotHere),
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                tracing::warn!("giving a layer: {}", error.message);
                Err(NotGiven::NotHere)
            }
        }
    }
}

/// Whether a blob is one of an image's that was pulled by that digest.
fn has_part(image: &Image, part: Part) -> bool {
    let Part { image: of, blob } = part;
    image.record.manifests.contains(&of)
        && (image.id == blob
            || image.record.manifests.contains(&blob)
            || image.layers.iter().any(|layer| layer.has_form(blob)))
}

fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

impl Arriving {
    /// Waits until so much is there, or its end; none when it has ended before.
    async fn read(
        self: &Arc<Self>,
        offset: u64,
        length: usize,
        until: Instant,
    ) -> Result<Option<Bytes>, NotGiven> {
        let mut written = self.written.subscribe();
        let wanted = offset + length as u64;
        drop(timeout_at(until, written.wait_for(|it| it.ended || it.bytes >= wanted)).await);
        let Written { bytes, ended } = *written.borrow();
        if bytes <= offset {
            return if ended { Ok(None) } else { Err(NotGiven::NotYet) };
        }
        let length = length.min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
        let arriving = Arc::clone(self);
        let read = blocking(move || {
            read_at(&arriving.file, offset, length)
                .map_err(|error| Error::internal("reading what has arrived of a layer", &error))
        });
        read.await.map(Some).map_err(|_| NotGiven::NotHere)
    }
}

impl Giving {
    /// Has those look again who wait for something.
    pub(super) fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }
}

impl Offer {
    /// These belong to the image.
    pub(super) fn add(&self, blobs: impl IntoIterator<Item = Digest>) {
        if let Some(pull) = locked(&self.images.0.giving.pulls).get_mut(&self.image) {
            pull.blobs.extend(blobs);
        }
        self.images.0.giving.tell();
    }

    /// And there are no others.
    pub(super) fn is_all(&self) {
        if let Some(pull) = locked(&self.images.0.giving.pulls).get_mut(&self.image) {
            pull.whole = true;
        }
        self.images.0.giving.tell();
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut pulls = locked(&self.images.0.giving.pulls);
        if let Some(pull) = pulls.get_mut(&self.image) {
            pull.count -= 1;
            if pull.count == 0 {
                let _ended = pulls.remove(&self.image);
            }
        }
        drop(pulls);
        self.images.0.giving.tell();
    }
}

impl Growing {
    /// So many bytes are in the file.
    pub(super) fn written(&self, bytes: u64) {
        self.arriving.written.send_modify(|it| it.bytes = bytes);
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let mut arriving = locked(&self.images.0.giving.arriving);
        if arriving.get(&self.blob).is_some_and(|it| Arc::ptr_eq(it, &self.arriving)) {
            let _ended = arriving.remove(&self.blob);
        }
        drop(arriving);
        self.arriving.written.send_modify(|it| it.ended = true);
        self.images.0.giving.tell();
    }
}
