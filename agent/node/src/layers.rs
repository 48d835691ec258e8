//! A blob of an image from other nodes, and from the registry where these don't have it: whom to ask for which piece, who has lied,
//! whom not to ask for a while. Nothing that comes is believed: whoever wants it verifies the whole ([`Fetch`]).
//!
//! It reaches others by [`Node`](crate::node::Node), and the disk and the registry by traits, so that the simulation runs it too.

mod asker;
mod doubts;
mod gather;
mod shunned;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::asker::Asker;
use self::doubts::Doubts;
use self::gather::Way;
pub use self::gather::{Gather, Served};
use crate::locks::lock;

/// A node to be asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Its name among nodes.
    pub node: String,
    /// Where it gives layers.
    pub address: String,
}

/// How it is with a blob here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is looked for.
    Seeks,
    /// It is fetched from the registry.
    Fetches,
    /// It is here, and is what it should be.
    Has,
    /// The registry did not give it.
    GivesUp,
}

/// Where to get a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// From these; none: from the registry.
    pub sources: Vec<Source>,
    /// From the registry, for all others.
    pub registry: bool,
}

/// Why there is no piece.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// It may be there soon.
    #[error("not yet")]
    NotYet,
    /// That node has no such blob, or no more of it.
    #[error("not there")]
    NotHere,
    /// It does not answer, or not with a piece.
    #[error("{0}")]
    Lost(String),
}

/// The other nodes, as far as one blob is concerned.
pub trait Nodes: fmt::Debug + Send + Sync + 'static {
    /// Tells how it is with the blob, and asks where to get it; none when nobody knows, and the registry is to be asked at once.
    fn find(&self, step: Step, avoid: BTreeSet<String>) -> BoxFuture<'_, Option<Found>>;

    /// Bytes of it from an offset on, at most so many, and one at least. In bounded time.
    ///
    /// # Errors
    /// [`PieceError`].
    fn piece(&self, from: Source, range: (u64, u32)) -> BoxFuture<'_, Result<Bytes, PieceError>>;

    /// A node has given other bytes than the blob's, which is proven.
    fn blame(&self, node: &str);
}

/// Takes a blob's bytes in one try, in their order, whoever they are from.
pub trait Taker: Sync {
    /// Why it can't.
    type Error: Send;

    /// Some more.
    ///
    /// # Errors
    /// Nobody takes them any more.
    fn take(&self, bytes: Bytes) -> BoxFuture<'_, Result<(), Self::Error>>;

    /// So many bytes have come, and no more for the moment.
    fn has_come_to(&self, _done: u64) {}

    /// Has the registry give the rest, from that byte on.
    ///
    /// # Errors
    /// It does not, or nobody takes it any more.
    fn ask_registry(&self, done: u64) -> BoxFuture<'_, Result<(), Self::Error>>;

    /// That the one node that is asked does not go on.
    fn stopped(&self) -> Self::Error;
}

/// What came of a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The bytes are those of another blob.
    AnotherBlob,
    /// They are wrong otherwise.
    Wrong,
    /// There were not all of them.
    Cut,
    /// This machine can't take them, whoever gives them.
    Own,
}

/// Wants a blob.
pub trait Fetch: Sync {
    /// What it is here once it is known to be the one.
    type Whole: Send;
    type Error: Send;

    /// One try: has [`Gather::run`] bring the bytes, and verifies them.
    ///
    /// # Errors
    /// They did not come, or are others.
    fn attempt<'a>(&'a self, gather: &'a Gather<'_>) -> BoxFuture<'a, Result<Self::Whole, Self::Error>>;

    /// What kind of failure that is.
    fn failure(&self, error: &Self::Error) -> Failure;

    /// Who of these has given other bytes than the blob's, which is here by now.
    fn liars(&self, served: Vec<Served>) -> BoxFuture<'_, BTreeSet<String>>;
}

/// Gets a blob of that many bytes from other nodes, and from the registry when the leader says so. Content that is not the blob's came
/// from somebody: then one node after the other is asked alone, at last the registry, and who lied is told.
///
/// # Errors
/// Nobody gives it, or this machine can't take it.
pub async fn fetch<F: Fetch>(nodes: &Arc<dyn Nodes>, total: u64, wanted: &F) -> Result<F::Whole, F::Error> {
    let mut doubts = Doubts::default();
    loop {
        let way = doubts.next(nodes).await;
        let gather = Gather::new(nodes, total, way, doubts.avoid.clone());
        let got = wanted.attempt(&gather).await;
        let served = std::mem::take(&mut *lock(&gather.served));
        match got {
            Ok(whole) => {
                tell(nodes, Step::Has);
                // With the blob here it is known which bytes were wrong.
                if !doubts.failed.is_empty() {
                    let liars = wanted.liars(std::mem::take(&mut doubts.failed)).await;
                    liars.difference(&doubts.told).for_each(|node| nodes.blame(node));
                }
                return Ok(whole);
            }
            // Nobody but the registry has given anything: that is its last word.
            Err(error) if served.is_empty() && !matches!(gather.way, Way::One(_)) => return Err(error),
            Err(error) => {
                let failure = wanted.failure(&error);
                // Whatever a node gives is its own fault at first; what this machine can't do is not.
                if failure == Failure::Own {
                    return Err(error);
                }
                if let Some(liar) = doubts.add(&gather, served, failure) {
                    nodes.blame(&liar);
                }
            }
        }
    }
}

/// Tells, and waits for nobody.
pub fn tell(nodes: &Arc<dyn Nodes>, step: Step) {
    let nodes = Arc::clone(nodes);
    drop(tokio::spawn(async move { drop(nodes.find(step, BTreeSet::new()).await) }));
}
