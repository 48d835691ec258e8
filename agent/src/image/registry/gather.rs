//! A layer piece by piece from other nodes, several at once, in the order of its bytes; and from the registry, from where these have
//! come to, when it is this node's turn to ask it or nobody else has the rest.
//!
//! Nothing is verified here: that is done with the whole. What is kept is who gave which bytes, so that it can be found out who lied.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::origin::Origin;
use super::transfer::{Phase, Wanted, download};
use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::sharing::{PieceError, Shared, Source, Step};
use crate::locks::locked;

/// What one node is asked for at once, in bytes.
const PIECE: u64 = 2 << 20;
/// So many pieces are asked for before the first has come.
const AHEAD: usize = 4;
/// What goes on to the thread that unpacks at once, in bytes.
const SLICE: usize = 64 << 10;
/// Nodes that together have brought less than [`LEAST`] in so long are not asked any more.
const STALL: Duration = Duration::from_secs(20);
/// In bytes: with less a layer would take hours, and the registry is the better one to ask.
const LEAST: u64 = 512 << 10;
/// Who gives less at once, in bytes, and less than he was asked for, is passed over for the next.
const CRUMB: u64 = 64 << 10;
/// And is not asked any more after so many.
const MOST_CRUMBS: usize = 16;
/// The registry is asked after so many rounds in which no node has given anything.
const IDLE_ROUNDS: usize = 2;
/// Between two questions for what is not there yet.
const PAUSE: Duration = Duration::from_millis(50);
/// A node that has nothing yet may have been named for what it had once: the leader is asked again, and no sooner than after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// Twice as long each time that it names the same nodes, up to this.
const AGAIN_MOST: Duration = Duration::from_secs(8);
/// How often it is told that the registry is asked: others wait for it.
const RENEWAL: Duration = Duration::from_secs(3);

/// Whom one try asks.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// Whomever the leader names.
    All,
    /// One node, and nobody else: what comes is its work.
    One(Source),
    Registry,
}

/// Bytes that a node gave.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) node: String,
    pub(super) from: u64,
    pub(super) length: u64,
    /// Of these bytes: another node, or the registry, may give the rest.
    pub(super) sum: Digest,
}

/// One try to get a layer.
#[derive(Debug)]
pub(super) struct Gather<'a> {
    pub(super) origin: &'a Origin,
    pub(super) shared: &'a Shared,
    pub(super) wanted: &'a Wanted,
    pub(super) way: Way,
    /// Nodes that are not asked.
    pub(super) avoid: BTreeSet<String>,
    pub(super) served: Mutex<Vec<Served>>,
    /// Whether the registry has been asked for some of it.
    pub(super) asked_registry: AtomicBool,
    renewing: Mutex<Option<Renewing>>,
}

/// Tells again and again that the registry is asked, until it is dropped.
#[derive(Debug)]
struct Renewing(AbortHandle);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where what comes goes.
pub(super) struct Sink<'a> {
    pub(super) to: &'a mpsc::Sender<io::Result<Bytes>>,
    pub(super) phase: &'a watch::Sender<Phase>,
    /// As often as the registry is asked.
    pub(super) attempts: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(origin: &'a Origin, shared: &'a Shared, wanted: &'a Wanted, way: Way) -> Self {
        Self {
            origin,
            shared,
            wanted,
            way,
            avoid: BTreeSet::new(),
            served: Mutex::default(),
            asked_registry: AtomicBool::default(),
            renewing: Mutex::default(),
        }
    }

    /// Brings all of it.
    ///
    /// # Errors
    /// Nobody has it; or nobody takes it any more.
    pub(super) async fn run(&self, sink: &Sink<'_>) -> Result<()> {
        let total = self.wanted.descriptor.size;
        let part = self.shared.part(self.wanted.descriptor.digest);
        let (mut done, mut avoid, mut idle) = (0, self.avoid.clone(), 0);
        let pace = Mutex::new(Pace { since: Instant::now(), bytes: 0 });
        let (mut named, mut again) = (Vec::new(), AGAIN);
        while done < total {
            let sources = match &self.way {
                Way::Registry => Vec::new(),
                Way::All if idle == IDLE_ROUNDS => {
                    self.renew();
                    Vec::new()
                }
                Way::One(source) => vec![source.clone()],
                Way::All => match self.shared.peers.find(part, Step::Seeks, avoid.clone()).await {
                    Some(found) if found.registry => {
                        self.renew();
                        Vec::new()
                    }
                    found => found.unwrap_or_default().sources,
                },
            };
            if sources.is_empty() {
                return self.ask_registry(done, sink).await;
            }
            let before = done;
            again = if sources == named { (again * 2).min(AGAIN_MOST) } else { AGAIN };
            named.clone_from(&sources);
            let round = Round::new(&sources, &pace, again);
            let ended = self.ask_nodes(&round, &mut done, sink).await?;
            if matches!(self.way, Way::One(_)) && done < total {
                return Err(Error::new(Kind::Unavailable, "a node does not go on giving a layer"));
            }
            match ended {
                Ended::Waiting => avoid.extend(round.struck()),
                Ended::All => {
                    idle = if done == before { idle + 1 } else { 0 };
                    avoid.extend(sources.iter().map(|source| source.node.clone()));
                    *locked(&pace) = Pace { since: Instant::now(), bytes: 0 };
                }
            }
        }
        Ok(())
    }

    async fn ask_registry(&self, done: u64, sink: &Sink<'_>) -> Result<()> {
        self.asked_registry.store(true, Ordering::Relaxed);
        let fetched = match self.origin.repository().await {
            Ok(repository) => download(repository, self.wanted, done, sink).await,
            Err(error) => Err(error),
        };
        if fetched.is_err() && locked(&self.renewing).take().is_some() {
            self.shared.tell(self.wanted.descriptor.digest, Step::GivesUp);
        }
        fetched
    }

    fn renew(&self) {
        let (shared, digest) = (self.shared.clone(), self.wanted.descriptor.digest);
        let renewing = tokio::spawn(async move {
            loop {
                sleep(RENEWAL).await;
                let _told = shared.peers.find(shared.part(digest), Step::Fetches, BTreeSet::new()).await;
            }
        });
        *locked(&self.renewing) = Some(Renewing(renewing.abort_handle()));
    }

    /// Goes on from `done`: to the end, to where none of the nodes goes on, or not fast enough, or until others may be better ones.
    async fn ask_nodes(&self, round: &Round<'_>, done: &mut u64, sink: &Sink<'_>) -> Result<Ended> {
        let total = self.wanted.descriptor.size;
        let mut pieces = FuturesOrdered::new();
        let mut next = *done;
        loop {
            let is_waiting = matches!(self.way, Way::All) && round.is_waiting();
            while !is_waiting && pieces.len() < AHEAD && next < total {
                let length = PIECE.min(total - next);
                pieces.push_back(self.piece(round, next, length));
                next += length;
            }
            let Some(Piece { parts, ended }) = pieces.next().await else {
                return Ok(if *done < total { Ended::Waiting } else { Ended::All });
            };
            let begun = Instant::now();
            for bytes in parts {
                let count = bytes.len() as u64;
                pass(bytes, done, total, sink).await?;
                // What comes before what is next may never be of use.
                locked(round.pace).bytes += count;
            }
            // The nodes are not asked while the disk is waited for.
            locked(round.pace).since += begun.elapsed();
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// A piece, of one node after another. Each piece begins with another node.
    async fn piece(&self, round: &Round<'_>, from: u64, length: u64) -> Piece {
        let part = self.shared.part(self.wanted.descriptor.digest);
        let mut turn = usize::try_from(from / PIECE).unwrap_or(0);
        let (mut parts, mut have, mut vain) = (Vec::new(), 0, 0);
        while have < length {
            let chosen = round.choose(turn).filter(|_| !locked(round.pace).is_too_slow(Instant::now()));
            let Some((at, source)) = chosen else { return Piece { parts, ended: Some(Ended::All) } };
            let asked = length - have;
            let range = (from + have, u32::try_from(asked).unwrap_or(u32::MAX));
            match self.shared.peers.piece(source.clone(), part, range).await {
                Ok(bytes) if !bytes.is_empty() && bytes.len() as u64 <= asked => {
                    let count = bytes.len() as u64;
                    let (node, sum) = (source.node.clone(), Digest::of(&bytes));
                    locked(&self.served).push(Served { node, from: from + have, length: count, sum });
                    (have, vain) = (have + count, 0);
                    parts.push(bytes);
                    if count < asked.min(CRUMB) {
                        round.crumb(at);
                        turn += 1;
                    }
                }
                Err(PieceError::NotYet) => {
                    round.waiting.store(true, Ordering::Relaxed);
                    (turn, vain) = (turn + 1, vain + 1);
                    if vain >= round.sources.len() && round.is_waiting() && matches!(self.way, Way::All) {
                        return Piece { parts, ended: Some(Ended::Waiting) };
                    }
                    sleep(PAUSE).await;
                }
                lost => {
                    tracing::debug!(node = source.node, layer = %part.blob, "a node gives no piece: {:?}", lost.err());
                    round.strike(at);
                }
            }
        }
        Piece { parts, ended: None }
    }
}

/// What came of a piece.
struct Piece {
    parts: Vec<Bytes>,
    /// Of one that is not whole: nobody goes on, or not yet.
    ended: Option<Ended>,
}

/// Why nodes are not asked any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All is here, or none of them goes on.
    All,
    /// One had nothing yet.
    Waiting,
}

/// Nodes that are asked, until none of them goes on.
struct Round<'a> {
    sources: &'a [Source],
    begun: Instant,
    /// How long the leader is not asked again.
    again: Duration,
    /// Whether one had nothing yet.
    waiting: AtomicBool,
    /// How often each has given a crumb; as often as it takes where it is not asked any more.
    crumbs: Mutex<BTreeMap<usize, usize>>,
    /// Of all rounds one after another in which something is waited for.
    pace: &'a Mutex<Pace>,
}

impl<'a> Round<'a> {
    fn new(sources: &'a [Source], pace: &'a Mutex<Pace>, again: Duration) -> Self {
        Self {
            sources,
            begun: Instant::now(),
            again,
            waiting: AtomicBool::default(),
            crumbs: Mutex::default(),
            pace,
        }
    }

    /// Whether the leader may know better ones by now.
    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) && self.begun.elapsed() >= self.again
    }

    fn struck(&self) -> Vec<String> {
        let crumbs = locked(&self.crumbs);
        let struck = crumbs.iter().filter(|(_, times)| **times >= MOST_CRUMBS);
        struck.filter_map(|(at, _)| Some(self.sources.get(*at)?.node.clone())).collect()
    }

    /// Whose turn it is, of those that are asked.
    fn choose(&self, turn: usize) -> Option<(usize, &'a Source)> {
        let count = self.sources.len();
        let crumbs = locked(&self.crumbs);
        let is_asked = |at: &usize| crumbs.get(at).is_none_or(|it| *it < MOST_CRUMBS);
        let at = (0..count).map(|step| (turn + step) % count).find(is_asked)?;
        self.sources.get(at).map(|source| (at, source))
    }

    fn crumb(&self, at: usize) {
        *locked(&self.crumbs).entry(at).or_default() += 1;
    }

    fn strike(&self, at: usize) {
        let _before = locked(&self.crumbs).insert(at, MOST_CRUMBS);
    }
}

/// What all of them have brought since then, in its order.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn is_too_slow(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) < STALL {
            return false;
        }
        let is_slow = self.bytes < LEAST;
        if !is_slow {
            *self = Self { since: now, bytes: 0 };
        }
        is_slow
    }
}

async fn pass(mut bytes: Bytes, done: &mut u64, total: u64, sink: &Sink<'_>) -> Result<()> {
    while !bytes.is_empty() {
        let slice = bytes.split_to(SLICE.min(bytes.len()));
        *done += slice.len() as u64;
        if sink.to.send(Ok(slice)).await.is_err() {
            return Err(Error::new(Kind::NotModified, "unpacking has ended"));
        }
    }
    let _nobody = sink.phase.send(if *done == total { Phase::Downloaded } else { Phase::Downloading(*done) });
    Ok(())
}
