//! A manager's keys and trust as the cluster's own object wants them, at each change of it: whom it believes, what its keys are
//! sealed with, and by which key its log is. What failed is tried again, though nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ketch_ca::root;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::Cluster;
use ketch_cluster::time::Timestamp;
use ketch_cluster::token::UnlockKey;
use ketch_raft::Notices;
use tokio::time::timeout;

use super::{Member, lock};
use crate::manager::Manager;
use crate::node::error::NodeError;
use crate::node::found;

/// Until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(3);

/// The cluster's object, whenever it has changed.
struct Versions {
    manager: Arc<Manager>,
    notices: Notices,
    last: Option<Arc<Cluster>>,
}

impl Versions {
    fn of(manager: Arc<Manager>) -> Self {
        let notices = manager.notices();
        Self { manager, notices, last: None }
    }

    /// The next one; none when the manager has ended. Dropped, it loses nothing.
    async fn next(&mut self) -> Option<Arc<Cluster>> {
        loop {
            if let Some(cluster) = self.manager.cluster()
                && self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &cluster))
            {
                self.last = Some(Arc::clone(&cluster));
                return Some(cluster);
            }
            self.notices.next().await?;
        }
    }

    /// What is to be done next: with the next one, or, when that did not succeed, with the last one again.
    async fn after(&mut self, done: Result<(), NodeError>) -> Option<Arc<Cluster>> {
        let Err(error) = done else { return self.next().await };
        tracing::error!(%error, "this manager's keys are not yet as the cluster wants them");
        match timeout(AGAIN, self.next()).await {
            Ok(next) => next,
            Err(_) => self.last.clone(),
        }
    }
}

/// Whom a version of the cluster believes.
#[derive(PartialEq)]
struct Believed {
    roots: String,
    shut_out: BTreeMap<NodeId, Timestamp>,
}

impl Member {
    /// Believes whom the cluster believes. Only what differs is adopted: all managers do it at the same moment.
    pub(super) async fn follow_trust(self: Arc<Self>, manager: Arc<Manager>) {
        let mut versions = Versions::of(manager);
        let (mut done, mut known) = (Ok(()), None);
        while let Some(cluster) = versions.after(done).await {
            done = Ok(());
            let believed =
                Believed { roots: root::trusted(&cluster.root_ca), shut_out: cluster.shut_out.clone() };
            if known.as_ref() != Some(&believed) {
                done = self.believe();
                known = done.is_ok().then_some(believed);
            }
            if self.document().raft != cluster.spec.raft {
                self.remember(|document| document.raft = cluster.spec.raft);
            }
        }
    }

    /// Has the keys sealed as the cluster's unlock key says. A log whose key lay there in the clear, or sealed by another unlock
    /// key, gets another key.
    pub(super) async fn follow_seal(self: Arc<Self>, manager: Arc<Manager>) {
        let mut versions = Versions::of(Arc::clone(&manager));
        let mut done = Ok(());
        while let Some(cluster) = versions.after(done).await {
            done = self.seal(&manager, found::unlock_key(&cluster)).await;
        }
    }

    async fn seal(&self, manager: &Manager, unlock: Option<UnlockKey>) -> Result<(), NodeError> {
        let (known, is_changing) = {
            let keys = lock(&self.keys);
            (keys.unlock, keys.raft.is_some_and(|raft| raft.next.is_some()))
        };
        let is_exposed = unlock.is_some() && known != unlock;
        if known != unlock {
            let next = (is_exposed && !is_changing).then(|| found::key_of(&*self.parts.world));
            self.keep_keys(|keys| {
                keys.unlock = unlock;
                keys.raft = keys.raft.map(|raft| next.map_or(raft, |next| raft.rotate(next)));
            })?;
        }
        self.reseal(manager).await?;
        if is_exposed && is_changing {
            // The key that it was changing to was no better off than the one before.
            let next = found::key_of(&*self.parts.world);
            self.keep_keys(|keys| keys.raft = keys.raft.map(|raft| raft.rotate(next)))?;
            self.reseal(manager).await?;
        }
        Ok(())
    }

    /// Ends a change of the log's key, if there is one.
    async fn reseal(&self, manager: &Manager) -> Result<(), NodeError> {
        let Some(next) = lock(&self.keys).raft.and_then(|raft| raft.next) else { return Ok(()) };
        let resealed = manager.reseal(next).await;
        resealed.map_err(|error| NodeError::failed("sealing the raft log by another key", &error))?;
        self.keep_keys(|keys| keys.raft = keys.raft.map(ketch_ca::folder::RaftKeys::finish))?;
        tracing::info!("the raft log is sealed by another key");
        Ok(())
    }
}
