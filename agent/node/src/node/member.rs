//! A node that is of a cluster: the parts of it that run, and what keeps its keys, roots and role as the leader wants them.

mod failing;
mod following;
mod keys;
mod managing;
mod places;
mod rights;
mod sharing;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_ca::folder::Kept;
use ketch_ca::join::Joined;
use ketch_ca::trust::Trust;
use ketch_cluster::objects::node::{NodeRole, NodeState};
use ketch_cluster::objects::{Cluster, Node};
use ketch_cluster::store::Store;
use ketch_cluster::token::UnlockKey;
use ketch_raft::{Notices, Start};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::document::Document;
use super::error::NodeError;
use super::{Figures, Information, Lead, NodeParts, join};
use crate::calls::{ManagerAddress, Membership};
use crate::locks::lock;
use crate::wire::Links;
use crate::worker::{Worker, WorkerEvent, WorkerParts};
use keys::Keys;
use managing::Managing;

/// Between two tries to renew a certificate.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is asked who leads while nobody does.
const LOOK_FOR_LEADER: Duration = Duration::from_millis(50);
/// How often a certificate's age is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What a member begins with.
pub(super) struct Beginning {
    pub(super) parts: NodeParts,
    pub(super) roots: String,
    pub(super) kept: Kept,
    pub(super) document: Document,
    pub(super) unlock: Option<UnlockKey>,
}

/// A node of a cluster.
pub struct Member {
    parts: NodeParts,
    links: Arc<Links>,
    document: Mutex<Document>,
    keys: Mutex<Keys>,
    managing: watch::Sender<Option<Managing>>,
    worker: Arc<Worker>,
    /// Whom the cluster believes: connections that come in end when it is not who has made them any more. None of a worker.
    believed: watch::Sender<Option<Arc<Trust>>>,
    /// Of the node.
    running: Mutex<JoinSet<()>>,
    /// Of its manager.
    managers: Mutex<JoinSet<()>>,
    /// One certificate after another, and what is made of each.
    renewing: AsyncMutex<()>,
    /// Why its manager takes no part at the moment: its disk.
    trouble: Mutex<Option<String>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("document", &self.document()).finish_non_exhaustive()
    }
}

/// The store of a manager that begins.
enum Log {
    Found(Box<Cluster>, Box<Node>),
    Open(Start),
}

impl Member {
    /// The first node of a new cluster.
    pub(super) async fn found(
        beginning: Beginning,
        cluster: Cluster,
        node: Node,
    ) -> Result<Arc<Self>, NodeError> {
        Self::run(beginning, Log::Found(Box::new(cluster), Box::new(node))).await
    }

    pub(super) async fn begin(beginning: Beginning, start: Start) -> Result<Arc<Self>, NodeError> {
        Self::run(beginning, Log::Open(start)).await
    }

    async fn run(beginning: Beginning, log: Log) -> Result<Arc<Self>, NodeError> {
        let Beginning { parts, roots, kept, document, unlock } = beginning;
        let keys = Keys::new(kept, roots, unlock)?;
        if keys.identity.expires < parts.world.now() {
            return Err(NodeError::Expired);
        }
        let role = keys.identity.role;
        parts.world.adopt(keys.credentials(document.cluster)?);
        let links = Arc::new(Links::new(Arc::clone(&parts.world)));
        parts.executor.set_data_path(document.data_path()).await;
        let worker = Worker::open(WorkerParts {
            world: Arc::clone(&parts.world),
            links: Arc::clone(&links),
            executor: Arc::clone(&parts.executor),
            node: document.node,
            address: document.advertise.clone(),
            managers: managers_of(&document, role),
            roots: keys.root_ids(),
        });
        let worker = worker.map_err(|error| NodeError::failed("starting the worker", &error))?;
        let member = Arc::new(Self {
            parts,
            links,
            document: Mutex::new(document),
            keys: Mutex::new(keys),
            managing: watch::Sender::default(),
            worker,
            believed: watch::Sender::default(),
            running: Mutex::default(),
            managers: Mutex::default(),
            renewing: AsyncMutex::default(),
            trouble: Mutex::default(),
        });
        if role == NodeRole::Worker && member.document().raft_id.is_some() {
            // It was demoted, and ended in the middle of it.
            member.forget_raft()?;
        }
        if role == NodeRole::Manager {
            let began = match member.has_raft_identity() {
                true => member.start_managing(log).await,
                // It was promoted, and ended in the middle of it.
                false => member.manage_anew().await,
            };
            if let Err(error) = began {
                member.shutdown().await;
                return Err(error);
            }
        }
        member.spawn(member.clone().follow_worker());
        member.spawn(member.clone().renew_in_time());
        member.spawn(member.clone().begin_again_when_failed());
        if let Some(layers) = member.parts.executor.layers() {
            member.spawn(member.clone().share_layers(layers));
        }
        Ok(member)
    }

    pub(super) fn document(&self) -> Document {
        lock(&self.document).clone()
    }

    pub(super) fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links)
    }

    pub(super) fn worker(&self) -> Arc<Worker> {
        Arc::clone(&self.worker)
    }

    pub(super) fn is_manager(&self) -> bool {
        self.managing.borrow().is_some()
    }

    /// Why its manager takes no part at the moment, as it is told to users.
    pub(super) fn trouble(&self) -> Option<NodeError> {
        lock(&self.trouble).clone().map(NodeError::LogStopped)
    }

    pub(super) fn view<T>(&self, reader: impl FnOnce(&Store) -> T) -> Option<T> {
        let managing = self.managing.borrow().clone()?;
        Some(managing.manager.view(reader))
    }

    pub(super) fn figures(&self) -> Figures {
        let managing = self.managing.borrow().clone();
        Figures {
            tasks: self.worker.states(),
            log: managing.as_ref().map(|it| it.manager.status()),
            leads: managing.and_then(|it| it.term()),
        }
    }

    /// The manager here, now and later.
    pub(super) async fn notices(&self) -> Option<Notices> {
        let mut managing = self.managing.subscribe();
        let found = managing.wait_for(Option::is_some).await.ok()?;
        found.as_ref().map(|it| it.manager.notices())
    }

    pub(super) fn unlock_key(&self) -> Option<UnlockKey> {
        lock(&self.keys).unlock
    }

    pub(super) fn information(&self) -> Information {
        let (document, trouble) = (self.document(), self.trouble());
        let mut managers = self.worker.managers();
        if managers.is_empty() {
            managers.clone_from(&document.managers);
        }
        Information {
            state: "active",
            node: Some(document.node),
            address: document.advertise.rsplit_once(':').map_or("", |(host, _)| host).to_owned(),
            is_manager: self.is_manager() || trouble.is_some(),
            error: trouble.map(|it| it.to_string()).unwrap_or_default(),
            managers,
        }
    }

    /// Waits until somebody leads.
    pub(super) async fn lead(&self) -> Result<Lead, NodeError> {
        loop {
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
            let managing = self.managing.borrow().clone().ok_or(NodeError::Worker)?;
            if let Some(lead) = managing.lead(self.document().node) {
                return Ok(lead);
            }
            sleep(LOOK_FOR_LEADER).await;
        }
    }

    /// Waits until this manager's store has it as a node that is ready.
    pub(super) async fn ready(&self) {
        let id = self.document().node;
        let is_ready = |store: &Store| {
            store.node(id).is_some_and(|it| it.description.is_some() && it.status.state == NodeState::Ready)
        };
        while self.view(is_ready) == Some(false) {
            sleep(LOOK_FOR_LEADER).await;
        }
    }

    /// Ends everything but the tasks.
    pub(super) async fn shutdown(&self) {
        self.hand_over().await;
        end_all(&self.running).await;
        self.worker.shutdown().await;
        self.stop_managing().await;
    }

    /// Ends everything, the tasks too.
    pub(super) async fn leave(&self) {
        self.hand_over().await;
        end_all(&self.running).await;
        self.worker.leave().await;
        self.stop_managing().await;
        self.parts.executor.set_data_path(None).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.running).spawn(task);
    }

    /// Does what the leader has told the worker of the node itself.
    async fn follow_worker(self: Arc<Self>) {
        let mut events = self.worker.events();
        let mut wanted: Option<Membership> = None;
        loop {
            // What is told later counts: a renewal that is refused must hold nothing up.
            let event = match &wanted {
                None => events.recv().await,
                Some(membership) => tokio::select! {
                    biased;
                    event = events.recv() => event,
                    () = self.conform(membership) => {
                        wanted = None;
                        continue;
                    }
                },
            };
            match event {
                None => return,
                Some(WorkerEvent::Managers(managers)) => self.keep_managers(managers),
                Some(WorkerEvent::Membership(membership)) => wanted = Some(membership),
                Some(WorkerEvent::Removed) => {
                    tracing::error!("this node was removed from its cluster: it takes no more part in it");
                    wanted = None;
                    self.stop_managing().await;
                }
            }
        }
    }

    fn keep_managers(&self, managers: Vec<ManagerAddress>) {
        if !managers.is_empty() && self.document().managers != managers {
            self.remember(|document| document.managers = managers);
        }
    }

    /// Changes what the node remembers of itself. What is not kept is found out again after a restart.
    fn remember(&self, change: impl FnOnce(&mut Document)) {
        let mut document = lock(&self.document);
        change(&mut document);
        if let Err(error) = document.write(&*self.parts.world.disk()) {
            tracing::warn!(%error, "the node's document is not kept");
        }
    }

    /// Takes the roots that it is to trust, and another certificate when it is to have one.
    async fn conform(self: &Arc<Self>, membership: &Membership) {
        if lock(&self.keys).roots != membership.roots {
            let trusted = self.change_keys(|keys| keys.roots.clone_from(&membership.roots));
            if let Err(error) = trusted {
                tracing::error!(%error, "the cluster's roots can't be taken");
                return;
            }
        }
        loop {
            let identity = lock(&self.keys).identity;
            let done = if (identity.role, identity.issuer) != (membership.role, membership.issuer) {
                self.renew().await
            } else if self.is_manager() != (identity.role == NodeRole::Manager) {
                let _one = self.renewing.lock().await;
                self.follow_role().await
            } else {
                return self.follow_place(membership).await;
            };
            match done {
                // The leader may have another role for it by now: it will tell.
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "not yet the node that it is to be"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews the certificate when its time has come.
    async fn renew_in_time(self: Arc<Self>) {
        let share = u32::try_from(self.parts.world.bits() >> 96).unwrap_or(u32::MAX);
        loop {
            sleep(LOOK).await;
            let due = lock(&self.keys).identity.renewal(share);
            if due <= self.parts.world.now()
                && let Err(error) = self.renew().await
            {
                tracing::warn!(%error, "the certificate is not renewed yet");
            }
        }
    }

    /// Gets another certificate; in another role, the manager begins or ends.
    async fn renew(self: &Arc<Self>) -> Result<(), NodeError> {
        let _one = self.renewing.lock().await;
        let (identity, roots) = {
            let keys = lock(&self.keys);
            (keys.identity, keys.roots.clone())
        };
        let mut managers = self.worker.managers();
        if managers.is_empty() {
            managers = self.document().managers;
        }
        let now = self.parts.world.now();
        let joined: Joined = join::renew(&self.links, &managers, (identity, &roots), now).await?;
        let role = joined.identity.role;
        if role == NodeRole::Manager && identity.role == NodeRole::Worker {
            self.draw_raft_identity()?;
        }
        self.change_keys(|keys| keys.take(joined))?;
        self.follow_role().await
    }

    /// Begins or ends to be a manager, as its certificate says.
    async fn follow_role(self: &Arc<Self>) -> Result<(), NodeError> {
        let role = lock(&self.keys).identity.role;
        match (self.is_manager(), role) {
            (false, NodeRole::Manager) if self.has_raft_identity() => {
                self.start_managing(Log::Open(Start::Resume)).await
            }
            (false, NodeRole::Manager) => self.manage_anew().await,
            (true, NodeRole::Worker) => {
                self.stop_managing().await;
                self.forget_raft()
            }
            _ => Ok(()),
        }
    }

    /// As a manager that raft has never known.
    async fn manage_anew(self: &Arc<Self>) -> Result<(), NodeError> {
        self.draw_raft_identity()?;
        self.change_keys(|_| {})?;
        self.start_managing(Log::Open(Start::Resume)).await
    }

    /// Changes the keys that others see: the certificate, or the roots.
    fn change_keys(&self, change: impl FnOnce(&mut Keys)) -> Result<(), NodeError> {
        self.keep_keys(change)?;
        self.adopt()
    }

    /// Changes the keys, on the disk first.
    fn keep_keys(&self, change: impl FnOnce(&mut Keys)) -> Result<(), NodeError> {
        let mut keys = lock(&self.keys);
        let mut next = keys.clone();
        change(&mut next);
        next.write(&self.parts.world.disk().keys()?)?;
        *keys = next;
        Ok(())
    }

    /// Makes connections with the keys, and with whom the cluster believes, as both are now.
    fn adopt(&self) -> Result<(), NodeError> {
        self.believe()?;
        let root_ids = lock(&self.keys).root_ids();
        self.worker.trusts(root_ids);
        self.links.renew();
        Ok(())
    }

    /// Makes new connections with the keys, and with whom the cluster believes, as both are now; who that is. Those that are open
    /// go on: who may call is looked at in each call.
    fn believe(&self) -> Result<Arc<Trust>, NodeError> {
        let cluster = self.document().cluster;
        let credentials = lock(&self.keys).credentials(cluster)?;
        let credentials = self.trusting(credentials);
        let trust = Arc::clone(&credentials.trust);
        self.parts.world.adopt(credentials);
        Ok(trust)
    }
}

/// Ends tasks, and returns once nothing of them is left: no socket, no lock of a file.
async fn end_all(tasks: &Mutex<JoinSet<()>>) {
    let mut all = std::mem::take(&mut *lock(tasks));
    all.shutdown().await;
}

/// Where the worker looks for the leader first: a manager asks itself, and is told.
fn managers_of(document: &Document, role: NodeRole) -> Vec<ManagerAddress> {
    let own = ManagerAddress { node: document.node, address: document.advertise.clone() };
    let own = (role == NodeRole::Manager).then_some(own);
    let others = document.managers.iter().filter(|it| it.node != document.node).cloned();
    own.into_iter().chain(others).collect()
}
