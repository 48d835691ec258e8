//! The worker asks the leader about layers: whom to get one from, and who may have one from this node. Only in a session: without
//! one nobody is waited for.

use std::time::Duration;

use ketch_cluster::id::{NodeId, TaskId};

use super::Worker;
use crate::calls::{BlobName, LayerAsked, LayerFound, LayerRightAsked, LayerStep};
use crate::mark::{Mark, Marks};

/// How long the leader has: after that the registry is asked.
const ANSWER: Duration = Duration::from_secs(3);

/// What a node would have from this one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub node: NodeId,
    pub task: TaskId,
    /// By its digest.
    pub image: String,
    pub marks: Marks,
}

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

    /// By which of the marks a node may have for a task what has these marks here; none when nobody answers.
    pub async fn right_to_layers(&self, asked: &Right) -> Option<Option<Mark>> {
        let (leader, session) = self.hands.present.session()?;
        let Right { node, task, image, marks } = asked.clone();
        let asked = LayerRightAsked { session, node, task, image, marks };
        let right = self.hands.links.ask(&leader, &asked, ANSWER).await;
        right
            .inspect_err(|error| tracing::debug!(%error, "the leader says nothing of a right"))
            .ok()
            .map(|it| it.by)
    }
}
