//! A blob piece by piece from other nodes, several at once, in the order of its bytes; and from the registry, from where these have
//! come to, when it is this node's turn to ask it or nobody else has the rest.
//!
//! Nothing is verified here: that is done with the whole. What is kept is who gave which bytes, so that it can be found out who lied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use sha2::{Digest, Sha256};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::{Nodes, PieceError, Source, Step, Taker, tell};
use crate::locks::lock;

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
pub struct Served {
    pub node: String,
    /// Where in the blob.
    pub from: u64,
    /// In bytes.
    pub length: u64,
    /// Of these bytes: another node, or the registry, may give the rest.
    sum: [u8; 32],
}

impl Served {
    fn of(node: &str, from: u64, bytes: &[u8]) -> Self {
        let sum = Sha256::digest(bytes).into();
        Self { node: node.to_owned(), from, length: bytes.len() as u64, sum }
    }

    /// Whether it gave these.
    #[must_use]
    pub fn was(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.length && <[u8; 32]>::from(Sha256::digest(bytes)) == self.sum
    }
}

/// One try to get a blob.
pub struct Gather<'a> {
    nodes: &'a Arc<dyn Nodes>,
    /// Of the blob, in bytes.
    total: u64,
    pub(super) way: Way,
    /// Nodes that are not asked.
    pub(super) avoid: BTreeSet<String>,
    pub(super) served: Mutex<Vec<Served>>,
    /// Whether the registry has been asked for some of it.
    pub(super) asked_registry: AtomicBool,
    renewing: Mutex<Option<Renewing>>,
}

impl fmt::Debug for Gather<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("way", &self.way).field("avoid", &self.avoid).finish_non_exhaustive()
    }
}

/// Tells again and again that the registry is asked, until it is dropped.
#[derive(Debug)]
struct Renewing(AbortHandle);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<'a> Gather<'a> {
    pub(super) fn new(nodes: &'a Arc<dyn Nodes>, total: u64, way: Way, avoid: BTreeSet<String>) -> Self {
        Self {
            nodes,
            total,
            way,
            avoid,
            served: Mutex::default(),
            asked_registry: AtomicBool::default(),
            renewing: Mutex::default(),
        }
    }

    /// Brings all of it.
    ///
    /// # Errors
    /// Nobody has it; or nobody takes it any more.
    pub async fn run<T: Taker>(&self, taker: &T) -> Result<(), T::Error> {
        let total = self.total;
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
                Way::All => match self.nodes.find(Step::Seeks, avoid.clone()).await {
                    Some(found) if found.registry => {
                        self.renew();
                        Vec::new()
                    }
                    found => found.unwrap_or_default().sources,
                },
            };
            if sources.is_empty() {
                return self.ask_registry(done, taker).await;
            }
            let before = done;
            again = if sources == named { (again * 2).min(AGAIN_MOST) } else { AGAIN };
            named.clone_from(&sources);
            let round = Round::new(&sources, &pace, again);
            let ended = self.ask_nodes(&round, &mut done, taker).await?;
            if matches!(self.way, Way::One(_)) && done < total {
                return Err(taker.stopped());
            }
            match ended {
                Ended::Waiting => avoid.extend(round.struck()),
                Ended::All => {
                    idle = if done == before { idle + 1 } else { 0 };
                    avoid.extend(sources.iter().map(|source| source.node.clone()));
                    *lock(&pace) = Pace { since: Instant::now(), bytes: 0 };
                }
            }
        }
        Ok(())
    }

    async fn ask_registry<T: Taker>(&self, done: u64, taker: &T) -> Result<(), T::Error> {
        self.asked_registry.store(true, Ordering::Relaxed);
        let fetched = taker.ask_registry(done).await;
        if fetched.is_err() && lock(&self.renewing).take().is_some() {
            tell(self.nodes, Step::GivesUp);
        }
        fetched
    }

    fn renew(&self) {
        let nodes = Arc::clone(self.nodes);
        let renewing = tokio::spawn(async move {
            loop {
                sleep(RENEWAL).await;
                let _told = nodes.find(Step::Fetches, BTreeSet::new()).await;
            }
        });
        *lock(&self.renewing) = Some(Renewing(renewing.abort_handle()));
    }

    /// Goes on from `done`: to the end, to where none of the nodes goes on, or not fast enough, or until others may be better ones.
    async fn ask_nodes<T: Taker>(
        &self,
        round: &Round<'_>,
        done: &mut u64,
        taker: &T,
    ) -> Result<Ended, T::Error> {
        let total = self.total;
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
                pass(bytes, done, taker).await?;
                // What comes before what is next may never be of use.
                lock(round.pace).bytes += count;
            }
            // The nodes are not asked while the disk is waited for.
            lock(round.pace).since += begun.elapsed();
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// A piece, of one node after another. Each piece begins with another node.
    async fn piece(&self, round: &Round<'_>, from: u64, length: u64) -> Piece {
        let mut turn = usize::try_from(from / PIECE).unwrap_or(0);
        let (mut parts, mut have, mut vain) = (Vec::new(), 0, 0);
        while have < length {
            let chosen = round.choose(turn).filter(|_| !lock(round.pace).is_too_slow(Instant::now()));
            let Some((at, source)) = chosen else { return Piece { parts, ended: Some(Ended::All) } };
            let asked = length - have;
            let range = (from + have, u32::try_from(asked).unwrap_or(u32::MAX));
            match self.nodes.piece(source.clone(), range).await {
                Ok(bytes) if !bytes.is_empty() && bytes.len() as u64 <= asked => {
                    let count = bytes.len() as u64;
                    lock(&self.served).push(Served::of(&source.node, from + have, &bytes));
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
                    tracing::debug!(node = source.node, "a node gives no piece: {:?}", lost.err());
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
        let crumbs = lock(&self.crumbs);
        let struck = crumbs.iter().filter(|(_, times)| **times >= MOST_CRUMBS);
        struck.filter_map(|(at, _)| Some(self.sources.get(*at)?.node.clone())).collect()
    }

    /// Whose turn it is, of those that are asked.
    fn choose(&self, turn: usize) -> Option<(usize, &'a Source)> {
        let count = self.sources.len();
        let crumbs = lock(&self.crumbs);
        let is_asked = |at: &usize| crumbs.get(at).is_none_or(|it| *it < MOST_CRUMBS);
        let at = (0..count).map(|step| (turn + step) % count).find(is_asked)?;
        self.sources.get(at).map(|source| (at, source))
    }

    fn crumb(&self, at: usize) {
        *lock(&self.crumbs).entry(at).or_default() += 1;
    }

    fn strike(&self, at: usize) {
        let _before = lock(&self.crumbs).insert(at, MOST_CRUMBS);
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

async fn pass<T: Taker>(mut bytes: Bytes, done: &mut u64, taker: &T) -> Result<(), T::Error> {
    while !bytes.is_empty() {
        let slice = bytes.split_to(SLICE.min(bytes.len()));
        *done += slice.len() as u64;
        taker.take(slice).await?;
    }
    taker.has_come_to(*done);
    Ok(())
}
