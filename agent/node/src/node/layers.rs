//! This node gets layers from others, as the leader says.

use std::time::Duration;

use bytes::Bytes;
use ketch_cluster::id::NodeId;

use super::{Node, State};
use crate::calls::{BlobName, LayerFound, LayerSource, LayerStep, PieceAsked};
use crate::wire::{CallError, Destination};
use crate::world::Expected;

/// Until another node is reached: those that nobody reaches are passed over for others.
const DIAL: Duration = Duration::from_secs(2);

impl Node {
    /// Tells the leader how it is with a blob, and hears whom to get it from; none when nobody answers, who is not waited for.
    pub async fn find_layer(
        &self,
        name: BlobName,
        step: LayerStep,
        avoid: Vec<NodeId>,
    ) -> Option<LayerFound> {
        let State::Active(member) = self.state() else { return None };
        member.worker().find_layer(name, step, avoid).await
    }

    /// Bytes of a blob, as another node has them: nothing is verified.
    ///
    /// # Errors
    /// It does not answer, or does not give them.
    pub async fn piece(
        &self,
        from: &LayerSource,
        asked: &PieceAsked,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let links = self.links().map_err(|error| CallError::Lost(error.to_string()))?;
        let to = Destination::member(from.address.as_str(), Expected::Node(from.node));
        let body = serde_json::to_vec(asked).map_err(|error| CallError::Unreadable(error.to_string()))?;
        links.reach(&to, DIAL).await?;
        let most = usize::try_from(asked.length).unwrap_or(0);
        links.fetch(&to, (PieceAsked::PATH, body.into()), (within, most)).await
    }
}
