//! Layers between nodes, where the setting `cluster-layer-sharing` asks for it: [`Uploads`] gives them to other nodes, [`Others`]
//! gets them there. Who is asked for what says the leader; that bytes are what they should be is seen to by `image`.

mod rate;
mod shunned;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::id::{NodeId, TaskId};
use ketch_node::calls::{BlobName, LayerSource, LayerStep, PieceAsked};
use ketch_node::executor::{LayerStore, NoPiece, Piece};
use ketch_node::mark::{Mark, Marks};
use ketch_node::wire::{CallError, Refusal};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use self::rate::Rate;
use self::shunned::Shunned;
use crate::config::LayerSharing;
use crate::daemon::Daemon;
use crate::image::Images;
use crate::image::giving::NotGiven;
use crate::image::sharing::{Found, Part, Peers, PieceError, Source, Step};
use crate::locks::locked;
use crate::metrics::LayersCounted;

/// How long a node has for a piece: it waits itself for what has not arrived yet.
const ANSWER: Duration = Duration::from_secs(20);
/// How long somebody waits for his turn here.
const TURN: Duration = Duration::from_secs(4);
/// How long a node is not asked that gave wrong bytes.
const BLAMED: Duration = Duration::from_secs(600);
/// How long one is not asked that did not answer.
const LOST: Duration = Duration::from_secs(60);

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
    shunned: Mutex<Shunned>,
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
        Arc::new(Self { daemon: Arc::downgrade(daemon), shunned: Mutex::default() })
    }

    pub(super) fn for_task(self: &Arc<Self>, task: TaskId) -> Arc<ForTask> {
        Arc::new(ForTask { others: Arc::clone(self), task, unheard: AtomicBool::default() })
    }

    async fn tell(&self, part: Part, step: LayerStep, avoid: BTreeSet<String>) -> Option<Found> {
        let daemon = self.daemon.upgrade()?;
        let node = Arc::clone(daemon.node().ok()?);
        let avoid = avoid
            .into_iter()
            .chain(locked(&self.shunned).present())
            .filter_map(|node| node.parse().ok())
            .collect();
        let found = node.find_layer(name_of(part), step, avoid).await?;
        let source = |it: LayerSource| Source { node: it.node.to_string(), address: it.address };
        Some(Found { sources: found.sources.into_iter().map(source).collect(), registry: found.registry })
    }

    async fn ask(&self, from: Source, asked: PieceAsked) -> Result<Bytes, PieceError> {
        let lost = |why: String| PieceError::Lost(why);
        let daemon = self.daemon.upgrade().ok_or_else(|| lost("the daemon ends".to_owned()))?;
        let node = Arc::clone(daemon.node().map_err(|error| lost(error.message))?);
        let to = from.node.parse::<NodeId>().map_err(|error| lost(error.to_string()))?;
        let source = LayerSource { node: to, address: from.address.clone() };
        let begun = Instant::now();
        let answer = node.piece(&source, &asked, ANSWER).await;
        let bytes = answer.as_ref().ok().filter(|bytes| !bytes.is_empty()).map(Bytes::len);
        daemon.counted.layers.received.ended(bytes, begun.elapsed());
        match answer {
            Ok(bytes) if bytes.is_empty() => Err(PieceError::NotHere),
            Ok(bytes) => Ok(bytes),
            Err(CallError::Refused(Refusal::NotFound(_))) => Err(PieceError::NotHere),
            Err(CallError::Refused(Refusal::Unavailable(_))) => Err(PieceError::NotYet),
            // It is there, and has a reason.
            Err(error @ CallError::Refused(_)) => Err(lost(error.to_string())),
            Err(error) => {
                tracing::info!(node = from.node, "another node gives no layers for now: {error}");
                locked(&self.shunned).add(from.node, LOST);
                Err(lost(error.to_string()))
            }
        }
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
        let step = match step {
            Step::Seeks => LayerStep::Seeks,
            Step::Fetches => LayerStep::Fetches,
            Step::Has => LayerStep::Has,
            Step::GivesUp => LayerStep::GivesUp,
        };
        async move {
            let found = self.others.tell(part, step, avoid).await;
            if step == LayerStep::Seeks {
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
        warn!(node, %image, layer = %blob, "another node gave wrong bytes of a layer, or passed them on: it is not asked for the next {} minutes", BLAMED.as_secs() / 60);
        locked(&self.others.shunned).add(node.to_owned(), BLAMED);
        daemon.counted.layers.wrong.add(1);
        let told = [("image", image.to_string()), ("layer", blob.to_string())];
        let attributes = told.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        daemon.events.publish("node", "wrong-layer", node, attributes);
        let (Ok(ours), Ok(theirs)) = (daemon.node(), node.parse::<NodeId>()) else { return };
        let (ours, name) = (Arc::clone(ours), name_of(part));
        drop(tokio::spawn(async move {
            drop(ours.find_layer(name, LayerStep::Blames(theirs), Vec::new()).await);
        }));
    }
}

#[cfg(test)]
mod tests;
