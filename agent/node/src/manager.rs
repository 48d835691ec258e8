//! What makes a node a manager: its part of the cluster's log, who else is in it, the authority that lets nodes in; and, while
//! it leads, the one way to change the cluster ([`Leader`]) and the loops that keep it as its users want it.
//!
//! It listens nowhere and dials through [`Links`] only: [`node`](crate::node) owns the listener and gives it the calls that
//! are its own ([`Manager::answers`]). Workers' sessions are [`dispatcher`](crate::dispatcher)'s. Of the disk it has the
//! database `raft` and the folder of snapshots; keys are the node's.

mod admission;
mod calls;
mod changes;
mod entering;
mod error;
mod founding;
mod leader;
mod leading;
mod members;
mod reconciling;
mod requests;
mod roles;
mod rotating;
mod timing;
mod transport;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::control::RaftMembers;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::cluster::RaftConfig;
use ketch_cluster::objects::{Cluster, Node};
use ketch_cluster::store::Store;
use ketch_raft::{
    Blocking, ClusterLog, DataKeys, Member, MembersError, Notices, OpenError, Peer, Settings, Start, Status,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use changes::{Changes, Wake};
pub use error::{ChangeError, LeadError, ManagerError, NO_LEADER, UNCERTAIN};
pub use leader::{Leader, PATIENCE};

use crate::wire::Links;
use crate::world::World;

/// How long a cluster's first leader takes at most.
const FOUNDING: Duration = Duration::from_secs(20);

/// What a manager is made of.
pub struct ManagerParts {
    pub world: Arc<dyn World>,
    pub links: Arc<Links>,
    /// Who it is in raft, and where other managers reach it.
    pub me: Peer,
    /// Seal the log and the snapshots on this disk.
    pub data_keys: DataKeys,
    /// The cluster's, as this node last knew it: of a new one its default. A change counts from the next start on.
    pub raft: RaftConfig,
    pub blocking: Blocking,
}

/// Without the key, so that no log line can have it.
impl fmt::Debug for ManagerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerParts").field("me", &self.me).finish_non_exhaustive()
    }
}

/// One manager's part of this node. Dropped, it leads no more; [`Manager::shutdown`] also releases its disk.
pub struct Manager {
    log: Arc<ClusterLog>,
    world: Arc<dyn World>,
    links: Arc<Links>,
    me: Peer,
    leads: watch::Receiver<Option<Arc<Leader>>>,
    following: AbortHandle,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Manager {
    /// Founds a cluster (`docker swarm init`) with this node, `node`, as its only manager: it is written as a manager that is
    /// ready, beside the cluster and the networks that each has. The disk must be empty. Returns once that is committed.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn found(parts: ManagerParts, cluster: Cluster, node: Node) -> Result<Arc<Self>, ManagerError> {
        let objects = founding::first_objects(cluster, node, &parts);
        let log = open_log(&parts, Start::Resume).await?;
        log.found(FOUNDING).await.map_err(ManagerError::Found)?;
        log.propose(objects, FOUNDING).await.map_err(ManagerError::FirstObjects)?;
        Ok(Self::of(parts, log))
    }

    /// Goes on with what the disk holds; of an empty one it waits to be let in ([`Manager::enter`]).
    /// [`Start::ForceNewCluster`] makes it the only manager.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn open(parts: ManagerParts, start: Start) -> Result<Arc<Self>, ManagerError> {
        let log = open_log(&parts, start).await?;
        Ok(Self::of(parts, log))
    }

    fn of(parts: ManagerParts, log: ClusterLog) -> Arc<Self> {
        let ManagerParts { world, links, me, .. } = parts;
        let log = Arc::new(log);
        let (publish, leads) = watch::channel(None);
        let following = leading::follow(Arc::clone(&log), Arc::clone(&world), publish);
        let following = tokio::spawn(following).abort_handle();
        Arc::new(Self { log, world, links, me, leads, following })
    }

    #[must_use]
    pub fn me(&self) -> &Peer {
        &self.me
    }

    /// The leadership of this manager, when it leads and has caught up.
    #[must_use]
    pub fn leader(&self) -> Option<Arc<Leader>> {
        self.leads.borrow().clone()
    }

    /// The same, now and whenever it changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Option<Arc<Leader>>> {
        self.leads.clone()
    }

    /// Who leads as far as this manager knows, and where it is; also this one.
    #[must_use]
    pub fn leader_address(&self) -> Option<(NodeId, String)> {
        members::leader_of(&self.log)
    }

    /// What is committed, as far as this manager has heard. Nothing is applied while `reader` runs.
    pub fn view<T>(&self, reader: impl FnOnce(&Store) -> T) -> T {
        self.log.read(reader)
    }

    /// The cluster's own object; none until this manager was let in.
    #[must_use]
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.log.read(|store| store.cluster().cloned())
    }

    /// What is committed from now on, on this manager.
    #[must_use]
    pub fn notices(&self) -> Notices {
        self.log.notices()
    }

    /// The voters, and whether this leader hears from each.
    #[must_use]
    pub fn members(&self) -> RaftMembers {
        members::raft_members(&self.log)
    }

    /// The members of raft with their addresses.
    #[must_use]
    pub fn peers(&self) -> Vec<Member> {
        self.log.members()
    }

    /// Figures of the log.
    #[must_use]
    pub fn status(&self) -> Status {
        self.log.status()
    }

    /// Returns when the log has stopped by itself, with why; none when this manager was shut down.
    pub async fn failed(&self) -> Option<String> {
        self.log.failed().await
    }

    /// Seals the log and the snapshots by this key; the node keeps both keys until it returns. Asked again, it goes on.
    ///
    /// # Errors
    /// The disk's.
    pub async fn reseal(&self, next: [u8; 32]) -> Result<(), OpenError> {
        self.log.reseal(next).await
    }

    /// Hands the leadership to the manager that is furthest along, if this one leads and there is another that answers: before
    /// it stops, so that nobody waits for an election.
    ///
    /// # Errors
    /// It does not lead in time.
    pub async fn hand_over(&self) -> Result<(), MembersError> {
        match members::successor(&self.log, |_| true) {
            Some(peer) => self.log.transfer_leadership(peer.raft_id, PATIENCE).await,
            None => Ok(()),
        }
    }

    /// Takes part no more, and releases the disk. Returns once its leadership is over, if it had one.
    pub async fn shutdown(&self) {
        self.log.shutdown().await;
        // It fails when nobody publishes any more.
        drop(self.leads.clone().wait_for(Option::is_none).await);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.following.abort();
        if let Some(leader) = self.leader() {
            leader.end();
        }
    }
}

async fn open_log(parts: &ManagerParts, start: Start) -> Result<ClusterLog, ManagerError> {
    let disk = parts.world.disk();
    let settings = Settings {
        me: parts.me.clone(),
        timing: timing::timing(&parts.raft),
        retention: timing::retention(&parts.raft),
        blocking: parts.blocking,
        seed: transport::seed(&*parts.world),
        start,
    };
    let world = ketch_raft::World {
        log: disk.database("raft")?,
        snapshots: disk.snapshots()?,
        transport: Arc::new(transport::ByLinks(Arc::clone(&parts.links))),
        entropy: transport::entropy(Arc::clone(&parts.world)),
        data_keys: parts.data_keys,
    };
    Ok(ClusterLog::open(settings, world).await?)
}
