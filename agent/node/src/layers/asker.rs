//! How other nodes are asked: through the leader, who names them, and then each by itself; but not those that have lied, or did not
//! answer, a while ago.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ketch_cluster::fault::Fault;
use ketch_cluster::id::NodeId;

use super::shunned::Shunned;
use super::{Found, PieceError, Source, Step};
use crate::calls::{BlobName, LayerSource, LayerStep, PieceAsked};
use crate::locks::lock;
use crate::node::Node;
use crate::wire::{CallError, Refusal};

/// How long a node has for a piece: it waits itself for what has not arrived yet.
const ANSWER: Duration = Duration::from_secs(20);
/// How long one is not asked that did not answer.
const LOST: Duration = Duration::from_secs(60);

/// Of one node, for all that it fetches.
#[derive(Debug, Default)]
pub struct Asker {
    shunned: Mutex<Shunned>,
}

impl Asker {
    /// How long a node is not asked that gave wrong bytes.
    pub const BLAMED: Duration = Duration::from_secs(600);

    /// Tells the leader how it is with a blob, and hears whom to ask; none when nobody says.
    pub async fn find(
        &self,
        node: &Node,
        name: BlobName,
        step: Step,
        avoid: BTreeSet<String>,
    ) -> Option<Found> {
        let step = match step {
            Step::Seeks => LayerStep::Seeks,
            Step::Fetches => LayerStep::Fetches,
            Step::Has => LayerStep::Has,
            Step::GivesUp => LayerStep::GivesUp,
        };
        let shunned = lock(&self.shunned).present();
        let avoid = avoid.into_iter().chain(shunned).filter_map(|node| node.parse().ok()).collect();
        let found = node.find_layer(name, step, avoid).await?;
        let source = |it: LayerSource| Source { node: it.node.to_string(), address: it.address };
        Some(Found { sources: found.sources.into_iter().map(source).collect(), registry: found.registry })
    }

    /// Bytes of a blob, as that node has them: nothing is verified.
    ///
    /// # Errors
    /// [`PieceError`].
    pub async fn piece(&self, node: &Node, from: &Source, asked: &PieceAsked) -> Result<Bytes, PieceError> {
        let to = from.node.parse::<NodeId>().map_err(|error| PieceError::Lost(error.to_string()))?;
        let source = LayerSource { node: to, address: from.address.clone() };
        match node.piece(&source, asked, ANSWER).await {
            Ok(bytes) if bytes.is_empty() => Err(PieceError::NotHere),
            Ok(bytes) => Ok(bytes),
            Err(CallError::Refused(Refusal::NotFound(_))) => Err(PieceError::NotHere),
            Err(CallError::Refused(Refusal::Unavailable(_))) => Err(PieceError::NotYet),
            // It is there, and has a reason.
            Err(error @ CallError::Refused(_)) => Err(PieceError::Lost(error.to_string())),
            Err(error) => {
                tracing::info!(node = from.node, "another node gives no layers for now: {error}");
                lock(&self.shunned).add(from.node.clone(), LOST);
                Err(PieceError::Lost(error.to_string()))
            }
        }
    }

    /// A node has lied, which the leader is told: it is not asked any more for [`BLAMED`](Self::BLAMED).
    pub fn blame(&self, node: &Arc<Node>, liar: &str, name: BlobName) {
        if !Fault::LiarTrusted.is_made() {
            lock(&self.shunned).add(liar.to_owned(), Self::BLAMED);
        }
        let Ok(liar) = liar.parse::<NodeId>() else { return };
        let node = Arc::clone(node);
        drop(tokio::spawn(async move {
            drop(node.find_layer(name, LayerStep::Blames(liar), Vec::new()).await);
        }));
    }
}
