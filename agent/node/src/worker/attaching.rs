//! The worker asks the leader for a place in a network of the cluster, for a container that is no task of a service.

use std::time::Duration;

use ketch_cluster::id::TaskId;
use tokio::time::{sleep, timeout};

use super::Worker;
use crate::calls::{AttachAsked, Attached, Wanted};

/// For all of it, as dockerd's.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the leader has for one call: it waits itself for a quorum, and for an address.
const ANSWER: Duration = Duration::from_secs(16);
/// How often it is looked for a session, while there is none.
const LOOK: Duration = Duration::from_millis(100);

/// Why a container has no place in a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The node is of no cluster.
    #[error("this node is of no cluster")]
    NoCluster,
    /// It can't have one: the managers' words.
    #[error("{0}")]
    Refused(String),
    /// There is none as it was asked for; why.
    #[error("{0}")]
    NotGiven(String),
    /// No manager has answered in time.
    #[error("context deadline exceeded")]
    Late,
}

impl Worker {
    /// Asks for a place; the task that is it comes to the node as others do. One that nobody has waited for ends there by itself.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&self, wanted: Wanted) -> Result<TaskId, AttachError> {
        let asked = timeout(PATIENCE, self.ask_for_place(wanted)).await;
        match asked.map_err(|_| AttachError::Late)? {
            Attached::Given(task) => Ok(task),
            Attached::Refused(text) => Err(AttachError::Refused(text)),
            Attached::NotGiven(text) => Err(AttachError::NotGiven(text)),
        }
    }

    async fn ask_for_place(&self, wanted: Wanted) -> Attached {
        loop {
            if let Some((leader, session)) = self.hands.present.session() {
                let asked = AttachAsked { session, wanted: wanted.clone() };
                match self.hands.links.ask(&leader, &asked, ANSWER).await {
                    Ok(attached) => return attached,
                    Err(error) => tracing::debug!(%error, "asking for a place in a network again"),
                }
            }
            sleep(LOOK).await;
        }
    }
}
