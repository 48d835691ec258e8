//! A manager's keys and trust as the cluster's own object wants them, at each change of it: whom it believes, what its keys are
//! sealed with, and by which key its log is. What failed is tried again, though nothing changes.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ketch_ca::root;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::Cluster;
use ketch_cluster::time::Timestamp;
use ketch_cluster::token::UnlockKey;
use ketch_raft::Notices;
use tokio::time::timeout;

use super::Member;
use crate::locks::lock;
use crate::manager::Manager;
use crate::node::error::NodeError;
use crate::node::found;

/// Until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(3);

/// How often it is said that a change of the log's key takes long.
const SLOW: Duration = Duration::from_secs(60);

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
                done = self.take_trust(known.as_ref(), &believed);
                known = done.is_ok().then_some(believed).or(known);
            }
            if self.document().raft != cluster.spec.raft {
                self.remember(|document| document.raft = cluster.spec.raft);
            }
        }
    }

    /// Connections that were made by a root which is believed no more end: whoever has stolen its key could keep one for as long as
    /// the certificates hold that he has made.
    fn take_trust(&self, known: Option<&Believed>, now: &Believed) -> Result<(), NodeError> {
        let trust = self.believe()?;
        if known.is_none_or(|known| known.roots != now.roots) {
            self.believed.send_replace(Some(trust));
        }
        if known.is_some_and(|known| known.roots != now.roots) {
            self.links.renew();
        }
        Ok(())
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
        let known = lock(&self.keys).unlock;
        let is_exposed = unlock.is_some() && known != unlock;
        if is_exposed {
            // What it was changing to is no better off than the one before, and is not the key that is drawn now: this change ends
            // first, as nothing else remembers that there is to be another one.
            self.reseal(manager).await?;
        }
        if known != unlock {
            let next = is_exposed.then(|| found::key_of(&*self.parts.world));
            self.keep_keys(|keys| {
                keys.unlock = unlock;
                keys.raft = keys.raft.map(|raft| next.map_or(raft, |next| raft.rotate(next)));
            })?;
        }
        self.reseal(manager).await
    }

    /// Ends a change of the log's key, if there is one.
    async fn reseal(&self, manager: &Manager) -> Result<(), NodeError> {
        let Some(next) = lock(&self.keys).raft.and_then(|raft| raft.next) else { return Ok(()) };
        let mut resealing = pin!(manager.reseal(next));
        let resealed = loop {
            match timeout(SLOW, resealing.as_mut()).await {
                Ok(resealed) => break resealed,
                Err(_) => tracing::warn!(
                    "the raft log is not sealed by its next key yet: a snapshot is being sent or received that was begun with the old one"
                ),
            }
        };
        resealed.map_err(|error| NodeError::failed("sealing the raft log by another key", &error))?;
        self.keep_keys(|keys| keys.raft = keys.raft.map(ketch_ca::folder::RaftKeys::finish))?;
        tracing::info!("the raft log is sealed by another key");
        Ok(())
    }
}
