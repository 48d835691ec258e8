//! The worker asks the leader for a place in a network of the cluster, for a container that is no task of a service.

use std::time::Duration;

use ketch_cluster::id::TaskId;
use tokio::time::{sleep, timeout};

use super::Worker;
use super::backoff::{Backoff, Met};
use crate::calls::{AttachAsked, Attached, Wanted};
use crate::wire::{CallError, Refusal};

/// For all of it, as dockerd's.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the leader has for one call: it waits itself for a quorum, and for an address.
const ANSWER: Duration = Duration::from_secs(16);

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
    /// Returns once the node is in a session: a manager knows that it is there.
    pub async fn in_session(&self) {
        drop(self.hands.present.begun().await);
    }

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
        let world = &self.hands.world;
        let place = Some(TaskId::of(world.bits()));
        let mut backoff = Backoff::default();
        loop {
            let (leader, session) = self.hands.present.begun().await;
            let asked = AttachAsked { session, place, wanted: wanted.clone() };
            match self.hands.links.ask(&leader, &asked, ANSWER).await {
                Ok(attached) => return attached,
                // It never will: of a version of ketch that knows no such call, for one.
                Err(CallError::Refused(Refusal::Invalid(why))) => return Attached::Refused(why),
                Err(error) => tracing::debug!(%error, "asking for a place in a network again"),
            }
            sleep(backoff.next(Met::Another, world.bits())).await;
        }
    }
}
