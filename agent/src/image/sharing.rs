//! Other nodes that may have what a pull wants: what the pull asks of them, and what is believed of it, which is nothing. Every
//! byte is verified by the digest that it was asked for by. Which nodes there are, and how they are reached, is not known here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ketch_node::layers::{self, Nodes};
pub use ketch_node::layers::{Found, PieceError, Source, Step};

use super::digest::Digest;

/// A blob of an image that is named by the digest of its manifest, or of its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The image.
    pub image: Digest,
    /// The blob.
    pub blob: Digest,
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

    /// The others, as far as a blob is concerned.
    pub(super) fn nodes(&self, blob: Digest) -> Arc<dyn Nodes> {
        Arc::new(OfBlob { peers: Arc::clone(&self.peers), part: self.part(blob) })
    }

    /// Tells, and waits for nobody.
    pub(super) fn tell(&self, blob: Digest, step: Step) {
        layers::tell(&self.nodes(blob), step);
    }
}

#[derive(Debug)]
struct OfBlob {
    peers: Arc<dyn Peers>,
    part: Part,
}

impl Nodes for OfBlob {
    fn find(&self, step: Step, avoid: BTreeSet<String>) -> BoxFuture<'_, Option<Found>> {
        self.peers.find(self.part, step, avoid)
    }

    fn piece(&self, from: Source, range: (u64, u32)) -> BoxFuture<'_, Result<Bytes, PieceError>> {
        self.peers.piece(from, self.part, range)
    }

    fn blame(&self, node: &str) {
        self.peers.blame(node, self.part);
    }
}
