//! Layers between nodes, where the setting `cluster-layer-sharing` asks for it: [`Uploads`] gives them to other nodes, [`Others`]
//! gets them there. Who is asked for what says the leader; that bytes are what they should be is seen to by `image`.

mod rate;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::id::TaskId;
use ketch_node::calls::{BlobName, PieceAsked};
use ketch_node::executor::{LayerStore, NoPiece, Piece};
use ketch_node::layers::Asker;
use ketch_node::mark::{Mark, Marks};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use self::rate::Rate;
use crate::config::LayerSharing;
use crate::daemon::Daemon;
use crate::image::Images;
use crate::image::giving::NotGiven;
use crate::image::sharing::{Found, Part, Peers, PieceError, Source, Step};
use crate::metrics::LayersCounted;

/// How long somebody waits for his turn here.
const TURN: Duration = Duration::from_secs(4);

/// What this node gives.
#[derive(Debug)]
pub(super) struct Uploads {
    images: Images,
    sharing: LayerSharing,
    turns: Arc<Semaphore>,
    rate: Option<Rate>,
    counted: Arc<LayersCounted>,
}

impl Uploads {
    /// None where the settings do not ask for it.
    pub(super) fn of(daemon: &Daemon) -> Option<Arc<Self>> {
        let sharing = daemon.config.layer_sharing?;
        // Without knowing by whose credentials things came none of them is given: others ask the registry.
        if let Err(error) = daemon.images.keep_marks() {
            warn!("no layers are given to other nodes: {}", error.message);
        }
        Some(Arc::new(Self {
            images: daemon.images.clone(),
            sharing,
            turns: Arc::new(Semaphore::new(sharing.uploads)),
            rate: sharing.rate.map(Rate::new),
            counted: Arc::clone(&daemon.counted.layers),
        }))
    }

    async fn give(&self, asked: PieceAsked, by: Mark) -> Result<Piece, NoPiece> {
        let part = part_of(&asked.name).ok_or(NoPiece::NotHere)?;
        let length = usize::try_from(asked.length).unwrap_or(0);
        // What has not come yet is waited for first: nobody's turn passes meanwhile.
        let ready = self.images.find_piece(part, by, (asked.offset, length)).await.map_err(no_piece)?;
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(NoPiece::NotYet) };
        let mut length = u64::from(asked.length);
        if let Some(rate) = &self.rate {
            length = rate.take(length, TURN).await.ok_or(NoPiece::NotYet)?;
        }
        let given = ready.read(usize::try_from(length).unwrap_or(0)).await;
        if let Some(rate) = &self.rate {
            rate.give_back(length - given.as_ref().map_or(0, |bytes| bytes.len() as u64));
        }
        given.map(|bytes| Piece { bytes, turn }).map_err(no_piece)
    }
}

fn no_piece(why: NotGiven) -> NoPiece {
    match why {
        NotGiven::NotHere => NoPiece::NotHere,
        NotGiven::NotYet => NoPiece::NotYet,
    }
}

impl LayerStore for Uploads {
    fn port(&self) -> u16 {
        self.sharing.port
    }

    fn marks(&self, name: &BlobName) -> Marks {
        part_of(name).map(|part| self.images.marks_of(part)).unwrap_or_default()
    }

    fn piece(&self, asked: PieceAsked, by: Mark) -> BoxFuture<'_, Result<Piece, NoPiece>> {
        async move {
            let begun = Instant::now();
            let given = self.give(asked, by).await;
            self.counted.given.ended(given.as_ref().ok().map(|piece| piece.bytes.len()), begun.elapsed());
            given
        }
        .boxed()
    }
}

fn part_of(name: &BlobName) -> Option<Part> {
    Some(Part { image: name.image.parse().ok()?, blob: name.blob.parse().ok()? })
}

fn name_of(part: Part) -> BlobName {
    BlobName { image: part.image.to_string(), blob: part.blob.to_string() }
}

/// The other nodes, as the leader names them.
#[derive(Debug)]
pub(super) struct Others {
    daemon: Weak<Daemon>,
    asker: Asker,
}

/// The same for one pull, of a task.
#[derive(Debug)]
pub(super) struct ForTask {
    others: Arc<Others>,
    task: TaskId,
    /// Whether the leader has not answered the last time that this pull has looked for something.
    unheard: AtomicBool,
}

impl Others {
    pub(super) fn new(daemon: &Arc<Daemon>) -> Arc<Self> {
        Arc::new(Self { daemon: Arc::downgrade(daemon), asker: Asker::default() })
    }

    pub(super) fn for_task(self: &Arc<Self>, task: TaskId) -> Arc<ForTask> {
        Arc::new(ForTask { others: Arc::clone(self), task, unheard: AtomicBool::default() })
    }

    async fn tell(&self, part: Part, step: Step, avoid: BTreeSet<String>) -> Option<Found> {
        let daemon = self.daemon.upgrade()?;
        let node = Arc::clone(daemon.node().ok()?);
        self.asker.find(&node, name_of(part), step, avoid).await
    }

    async fn ask(&self, from: Source, asked: PieceAsked) -> Result<Bytes, PieceError> {
        let lost = |why: String| PieceError::Lost(why);
        let daemon = self.daemon.upgrade().ok_or_else(|| lost("the daemon ends".to_owned()))?;
        let node = Arc::clone(daemon.node().map_err(|error| lost(error.message))?);
        let begun = Instant::now();
        let answer = self.asker.piece(&node, &from, &asked).await;
        daemon.counted.layers.received.ended(answer.as_ref().ok().map(Bytes::len), begun.elapsed());
        answer
    }
}

impl ForTask {
    /// Whether nobody has said, the last time, whom to ask: another node may have what the registry does not give.
    pub(super) fn is_unheard(&self) -> bool {
        self.unheard.load(Ordering::Relaxed)
    }
}

impl Peers for ForTask {
    fn find(&self, part: Part, step: Step, avoid: BTreeSet<String>) -> BoxFuture<'_, Option<Found>> {
        async move {
            let seeks = step == Step::Seeks;
            let found = self.others.tell(part, step, avoid).await;
            if seeks {
                self.unheard.store(found.is_none(), Ordering::Relaxed);
            }
            found
        }
        .boxed()
    }

    fn piece(
        &self,
        from: Source,
        part: Part,
        (offset, length): (u64, u32),
    ) -> BoxFuture<'_, Result<Bytes, PieceError>> {
        let length = length.min(PieceAsked::MOST);
        self.others.ask(from, PieceAsked { name: name_of(part), task: self.task, offset, length }).boxed()
    }

    fn blame(&self, node: &str, part: Part) {
        let Some(daemon) = self.others.daemon.upgrade() else { return };
        let Part { image, blob } = part;
        warn!(node, %image, layer = %blob, "another node gave wrong bytes of a layer, or passed them on: it is not asked for the next {} minutes", Asker::BLAMED.as_secs() / 60);
        daemon.counted.layers.wrong.add(1);
        let told = [("image", image.to_string()), ("layer", blob.to_string())];
        let attributes = told.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        daemon.events.publish("node", "wrong-layer", node, attributes);
        let Ok(ours) = daemon.node() else { return };
        self.others.asker.blame(ours, node, name_of(part));
    }
}

#[cfg(test)]
mod tests;
