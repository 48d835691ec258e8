//! Other nodes that may have what a pull wants: what the pull asks of them, and what is believed of it, which is nothing. Every
//! byte is verified by the digest that it was asked for by. Which nodes there are, and how they are reached, is not known here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::digest::Digest;

/// A blob of an image that is named by the digest of its manifest, or of its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The image.
    pub image: Digest,
    /// The blob.
    pub blob: Digest,
}

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

/// The other nodes.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Tells how it is with a blob, and asks where to get it; none when nobody knows, and the registry is to be asked at once.
    fn find(&self, part: Part, step: Step, avoid: BTreeSet<String>) -> BoxFuture<'_, Option<Found>>;

    /// Bytes of a blob, at most so many, and one at least. In bounded time.
    ///
    /// # Errors
    /// [`PieceError`].
    fn piece(&self, from: Source, part: Part, range: (u64, u32)) -> BoxFuture<'_, Result<Bytes, PieceError>>;

    /// A node has given other bytes than the blob's, which is proven.
    fn blame(&self, node: &str, part: Part);
}

/// What a pull shares with others.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) image: Digest,
    pub(super) peers: Arc<dyn Peers>,
}

impl Shared {
    pub(super) fn part(&self, blob: Digest) -> Part {
        Part { image: self.image, blob }
    }

    /// Tells, and waits for nobody.
    pub(super) fn tell(&self, blob: Digest, step: Step) {
        let (peers, part) = (Arc::clone(&self.peers), self.part(blob));
        drop(tokio::spawn(async move { drop(peers.find(part, step, BTreeSet::new()).await) }));
    }
}
