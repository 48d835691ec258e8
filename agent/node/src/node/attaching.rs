//! A container of this node that is no task of a service comes into a network of the cluster.

use std::time::Duration;

use ketch_cluster::id::TaskId;
use tokio::time::timeout;

use super::{Node, State};
use crate::calls::Wanted;
use crate::worker::AttachError;

/// How long it is waited for a node that is about to begin: containers are started again with the agent.
const BEGUN: Duration = Duration::from_secs(20);

impl Node {
    /// Whether it is of a cluster, or about to be.
    #[must_use]
    pub fn is_of_cluster(&self) -> bool {
        !matches!(self.state(), State::Inactive)
    }

    /// Returns once the node is in a session with the leader, which may be never.
    pub async fn in_session(&self) {
        let mut states = self.state.subscribe();
        loop {
            let active = states.wait_for(|state| matches!(state, State::Active(_))).await;
            let Ok(State::Active(member)) = active.map(|state| state.clone()) else {
                return std::future::pending().await;
            };
            tokio::select! {
                biased;
                () = async { member.worker().in_session().await } => return,
                _ = states.changed() => {}
            }
        }
    }

    /// Asks the managers for the place.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&self, wanted: Wanted) -> Result<TaskId, AttachError> {
        let mut states = self.state.subscribe();
        let begun = states.wait_for(|state| !matches!(state, State::Pending));
        let state = timeout(BEGUN, begun).await.map_err(|_| AttachError::Late)?;
        let member = match state.map(|state| state.clone()) {
            Ok(State::Active(member)) => member,
            Ok(State::Locked | State::Failed(_)) => return Err(AttachError::Late),
            _ => return Err(AttachError::NoCluster),
        };
        member.worker().attach(wanted).await
    }
}
