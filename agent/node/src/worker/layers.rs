//! The worker asks the leader about layers: whom to get one from, and who may have one from this node. Only in a session: without
//! one nobody is waited for.

use std::time::Duration;

use ketch_cluster::id::NodeId;

use super::Worker;
use crate::calls::{BlobName, LayerAsked, LayerFound, LayerRightAsked, LayerStep};

/// How long the leader has: after that the registry is asked.
const ANSWER: Duration = Duration::from_secs(3);

impl Worker {
    /// Tells the leader how it is with a blob, and hears whom to get it from; none when nobody answers.
    pub async fn find_layer(
        &self,
        name: BlobName,
        step: LayerStep,
        avoid: Vec<NodeId>,
    ) -> Option<LayerFound> {
        let (leader, session) = self.hands.present.session()?;
        let asked = LayerAsked { session, name, step, avoid };
        let found = self.hands.links.ask(&leader, &asked, ANSWER).await;
        found.inspect_err(|error| tracing::debug!(%error, "the leader says nothing of a layer")).ok()
    }

    /// Whether a node may have from this one what belongs to an image; none when nobody answers.
    pub async fn has_right_to_layers(&self, node: NodeId, image: String) -> Option<bool> {
        let (leader, session) = self.hands.present.session()?;
        let asked = LayerRightAsked { session, node, image };
        let right = self.hands.links.ask(&leader, &asked, ANSWER).await;
        right
            .inspect_err(|error| tracing::debug!(%error, "the leader says nothing of a right"))
            .ok()
            .map(|it| it.may)
    }
}
