//! What is given to other nodes: blobs of an image that is here, as they are on the disk, and of one that is pulled just now as far
//! as they have arrived. Who asks has a right to the image, and gets nothing else than what belongs to it and came by credentials of
//! his: a manifest may name what its author could never pull.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use ketch_node::mark::{Mark, Marks};
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
    turns: Mutex<HashMap<Digest, Weak<AsyncMutex<Before>>>>,
}

/// What came of the pulls for which others wait.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Whoever has waited for one that failed would fail as well.
    pub(super) failed: Option<Error>,
}

/// Of one image: by whose credentials, once for each pull, and what belongs to it.
#[derive(Debug, Default)]
struct Pull {
    by: Vec<Option<Mark>>,
    blobs: HashSet<Digest>,
    /// Whether all of them are known.
    whole: bool,
}

/// A layer's file that grows.
#[derive(Debug)]
struct Arriving {
    file: File,
    by: Option<Mark>,
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
    by: Option<Mark>,
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
    /// Pulls by these look for it.
    Coming(Vec<Mark>),
}

/// Bytes that can be read at once.
#[derive(Debug)]
pub struct Ready {
    images: Images,
    place: Readable,
    offset: u64,
    length: usize,
}

#[derive(Debug)]
enum Readable {
    Whole(Arc<Blob>),
    Arriving(Arc<Arriving>),
}

impl Images {
    /// Waits until nobody else pulls this image with other nodes: tasks of a service come to a node many at once, and the second
    /// finds what the first has pulled.
    pub(super) async fn turn_of(&self, image: Digest) -> OwnedMutexGuard<Before> {
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

    /// Begins to give what a pull of this image gets by these credentials.
    pub(super) fn offer(&self, image: Digest, by: Option<Mark>) -> Offer {
        locked(&self.0.giving.pulls).entry(image).or_default().by.push(by);
        let offer = Offer { images: self.clone(), image, by };
        offer.add([image]);
        offer
    }

    /// Begins to give a file that grows.
    pub(super) fn grow(&self, blob: Digest, file: File, by: Option<Mark>) -> Growing {
        let arriving = Arc::new(Arriving { file, by, written: watch::Sender::default() });
        let _older = locked(&self.0.giving.arriving).insert(blob, Arc::clone(&arriving));
        self.0.giving.tell();
        Growing { images: self.clone(), blob, arriving }
    }

    /// By whose credentials a blob of that image came, or comes; none of what is not given to anybody.
    #[must_use]
    pub fn marks_of(&self, part: Part) -> Marks {
        let by = match self.place(part) {
            Ok(Place::Whole(blob)) => self.marks_on(blob.digest),
            Ok(Place::Arriving(arriving)) => arriving.by.into_iter().collect(),
            Ok(Place::Coming(by)) => by,
            Err(_) => Vec::new(),
        };
        self.salted(by)
    }

    /// Waits until there are bytes of a blob from `offset` on, at most so many, if it belongs to that image and came by these
    /// credentials. They are not verified.
    ///
    /// # Errors
    /// [`NotGiven`].
    pub async fn find_piece(
        &self,
        part: Part,
        by: Mark,
        (offset, length): (u64, usize),
    ) -> Result<Ready, NotGiven> {
        // Both are another node's words.
        let end = offset.checked_add(length as u64).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or(NotGiven::NotHere)?;
        let begun = Instant::now();
        let until = begun + PATIENCE;
        let mut news = self.0.giving.news.subscribe();
        loop {
            news.mark_unchanged();
            let place = match self.place(part)? {
                Place::Whole(blob) if self.marks_on(blob.digest).contains(&by) => Some(Readable::Whole(blob)),
                Place::Arriving(arriving) if arriving.by == Some(by) => {
                    let is_there = arriving.wait((offset, end), until).await?;
                    is_there.then_some(Readable::Arriving(arriving))
                }
                Place::Whole(_) | Place::Arriving(_) => return Err(NotGiven::NotHere),
                Place::Coming(_) => timeout_at(begun + BEGINNING, news.changed())
                    .await
                    .map(|_news| None)
                    .map_err(|_late| NotGiven::NotYet)?,
            };
            if let Some(place) = place {
                return Ok(Ready { images: self.clone(), place, offset, length });
            }
            if Instant::now() >= until {
                return Err(NotGiven::NotYet);
            }
        }
    }

    fn place(&self, part: Part) -> Result<Place, NotGiven> {
        let (coming, is_named) = {
            let pulls = locked(&self.0.giving.pulls);
            let pull = pulls.get(&part.image);
            let is_named = pull.is_some_and(|pull| pull.blobs.contains(&part.blob));
            let coming = pull.filter(|pull| !pull.whole || is_named);
            (coming.map(|pull| pull.by.iter().copied().flatten().collect()), is_named)
        };
        let coming = coming.map(Place::Coming);
        let is_here = self.state().images.values().any(|image| has_part(image, part));
        // Only what is known to belong to the image is read: what it is not known of yet is waited for.
        if is_here || is_named {
            if let Some(blob) = self.blob(part.blob) {
                return Ok(Place::Whole(blob));
            }
            if let Some(arriving) = locked(&self.0.giving.arriving).get(&part.blob) {
                return Ok(Place::Arriving(Arc::clone(arriving)));
            }
        }
        coming.ok_or(NotGiven::NotHere)
    }
}

impl Ready {
    /// As many of them, at most.
    ///
    /// # Errors
    /// There are none any more.
    pub async fn read(self, most: usize) -> Result<Bytes, NotGiven> {
        let Self { images, place, offset, length } = self;
        let length = length.min(most);
        let read = match place {
            Readable::Whole(blob) => {
                let path = images.folders().blob(blob.digest);
                blocking(move || {
                    let read = File::open(&path).and_then(|file| read_at(&file, offset, length));
                    // Held until here: it is not removed meanwhile.
                    drop(blob);
                    read.map_err(|error| Error::internal(format_args!("reading {}", path.display()), &error))
                })
                .await
            }
            Readable::Arriving(arriving) => {
                let there = arriving.written.borrow().bytes.saturating_sub(offset);
                let length = length.min(usize::try_from(there).unwrap_or(usize::MAX));
                let read = move || {
                    read_at(&arriving.file, offset, length)
                        .map_err(|error| Error::internal("reading what has arrived of a layer", &error))
                };
                blocking(read).await
            }
        };
        match read {
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
    /// Waits until it has come to the end of what is wanted, or for some of it; not when it has ended before.
    async fn wait(&self, (offset, end): (u64, u64), until: Instant) -> Result<bool, NotGiven> {
        let mut written = self.written.subscribe();
        drop(timeout_at(until, written.wait_for(|it| it.ended || it.bytes >= end)).await);
        let Written { bytes, ended } = *written.borrow();
        match bytes > offset {
            true => Ok(true),
            false if ended => Ok(false),
            false => Err(NotGiven::NotYet),
        }
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
            if let Some(at) = pull.by.iter().position(|by| *by == self.by) {
                let _by = pull.by.swap_remove(at);
            }
            if pull.by.is_empty() {
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
