//! What this node is in a cluster, and how that changes: init, join, leave, unlock, and what the leader makes of it.
//!
//! It owns the node's keys and its document on the disk, and which of manager, dispatcher and worker run. It decides nothing
//! about services or tasks. ketchd's routes call it, and the simulation.

mod attaching;
mod document;
mod error;
mod found;
mod join;
mod layers;
mod member;
mod reaching;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ketch_ca::folder::{Folder, Kept, RaftKeys};
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::TaskState;
use ketch_cluster::objects::cluster::RaftConfig;
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::store::Store;
use ketch_cluster::token::UnlockKey;
use ketch_raft::{Blocking, Notices, Start};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::calls::ManagerAddress;
use crate::dispatcher::Dispatcher;
use crate::executor::Executor;
use crate::manager::Leader;
use crate::wire::{Links, Service};
use crate::world::{Disk, World};
use document::Document;
pub use document::Place;
pub use error::{NodeError, NodeErrorKind};
pub use found::Founding;
pub use join::{Advertised, JoinOrder};
use member::{Beginning, Member};
pub use reaching::ReachError;

/// How long a request waits for a leader: an election takes less.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a new cluster's first node is waited for until its own worker has told of it.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries of a node to take up what it was; each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a manager that joins waits for the others to let it in; after that it goes on in the background.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);

/// What a node is made of.
#[derive(Clone)]
pub struct NodeParts {
    pub world: Arc<dyn World>,
    pub executor: Arc<dyn Executor>,
    /// Answers requests of the Engine API that another manager has sent on.
    pub api: Arc<dyn Service>,
    /// Where the log's writes wait for the disk.
    pub blocking: Blocking,
}

impl fmt::Debug for NodeParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeParts").field("world", &self.world).finish_non_exhaustive()
    }
}

/// This node.
#[derive(Debug)]
pub struct Node {
    parts: NodeParts,
    /// Init, join, leave and unlock come one after another.
    control: Mutex<()>,
    state: watch::Sender<State>,
    /// Whether it is about to end: then nobody waits for a manager any more.
    is_ending: watch::Sender<bool>,
}

/// As `docker info` shows it.
#[derive(Debug, Clone, Default)]
pub enum State {
    #[default]
    Inactive,
    /// It joins, or takes up what it was.
    Pending,
    /// It waits for its unlock key.
    Locked,
    Active(Arc<Member>),
    /// It is of a cluster and can't take part; why.
    Failed(String),
}

/// Where a request for the cluster's managers is answered.
#[derive(Debug, Clone)]
pub enum Lead {
    /// Here.
    Here(Arc<Leader>, Arc<Dispatcher>),
    /// By another manager, to which it is sent on.
    There(ManagerAddress),
}

/// An address that the agent has picked, and what it is picked by.
#[derive(Debug, Clone)]
pub struct Picked {
    /// `host:port`.
    pub advertise: String,
    /// The managers that the node knows, `host:port`: it is reached where its way to them begins.
    pub managers: Vec<String>,
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// The tasks that this node has, by state.
    pub tasks: BTreeMap<TaskState, usize>,
    /// Of a manager.
    pub log: Option<ketch_raft::Status>,
    /// When this manager leads.
    pub leads: Option<(Arc<Leader>, Arc<Dispatcher>)>,
}

/// What is told of the node itself.
#[derive(Debug, Clone, Default)]
pub struct Information {
    /// Docker's word: `inactive`, `pending`, `active`, `locked`, `error`.
    pub state: &'static str,
    pub node: Option<NodeId>,
    /// Without the port.
    pub address: String,
    pub is_manager: bool,
    pub error: String,
    pub managers: Vec<ManagerAddress>,
}

impl Node {
    /// A node of no cluster, until [`Node::begin`].
    #[must_use]
    pub fn new(parts: NodeParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            control: Mutex::default(),
            state: watch::Sender::default(),
            is_ending: watch::Sender::default(),
        })
    }

    /// Takes up, in the background, what the disk says that it is. Within tokio's runtime.
    pub fn begin(self: &Arc<Self>) {
        match Document::read(&*self.disk()) {
            // What an init has left that was killed before its end.
            Ok(None) => {
                if let Err(error) = self.disk().wipe() {
                    tracing::warn!(%error, "the node's folder is not cleared");
                }
            }
            Ok(Some(_)) => {
                self.state.send_replace(State::Pending);
                let node = Arc::clone(self);
                drop(tokio::spawn(async move { node.resume().await }));
            }
            Err(error) => drop(self.state.send_replace(State::Failed(error.to_string()))),
        }
    }

    /// Where a worker is reached, when the agent has picked that itself: the machine may have another address by now. None of
    /// managers, whose addresses others keep. Before it begins.
    #[must_use]
    pub fn picked(&self) -> Option<Picked> {
        let document = Document::read(&*self.disk()).ok().flatten()?;
        let is_its = document.advertised == Advertised::Picked && document.raft_id.is_none();
        let managers = document.managers.into_iter().map(|it| it.address).collect();
        is_its.then_some(Picked { advertise: document.advertise, managers })
    }

    /// The worker is reached there from now on. Before it begins.
    ///
    /// # Errors
    /// The disk.
    pub fn move_worker(&self, advertise: String) -> Result<(), NodeError> {
        match Document::read(&*self.disk())? {
            Some(document) => Document { advertise, ..document }.write(&*self.disk()),
            None => Ok(()),
        }
    }

    /// What it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Founds a cluster.
    ///
    /// # Errors
    /// It is of one, the address can't be listened at, the disk.
    pub async fn init(&self, founding: Founding) -> Result<NodeId, NodeError> {
        let _one = self.control.lock().await;
        if !matches!(self.state(), State::Inactive) {
            return Err(NodeError::Exists);
        }
        self.state.send_replace(State::Pending);
        let founded = self.unless_ending(self.found(founding)).await;
        let id = self.settle(founded).await?;
        // Whoever asks next finds a node that is there. That it is not in time is no failure: it goes on.
        let member = self.member()?;
        let ready = async {
            member.ready().await;
            Ok(())
        };
        let _late = timeout(READY_PATIENCE, self.unless_ending(ready)).await;
        Ok(id)
    }

    /// Makes this manager the only one of its cluster, whose others are lost, at these addresses from now on.
    ///
    /// # Errors
    /// It is no manager.
    pub async fn force_new_cluster(&self, place: Place) -> Result<NodeId, NodeError> {
        let _one = self.control.lock().await;
        let (mut document, unlock) = match self.state() {
            State::Active(member) if member.is_manager() => {
                member.shutdown().await;
                (member.document(), member.unlock_key())
            }
            State::Active(_) => return Err(NodeError::Worker),
            State::Locked => return Err(NodeError::Locked),
            // It did not work the last time.
            State::Failed(_) => (Document::read(&*self.disk())?.ok_or(NodeError::NoManager)?, None),
            State::Inactive | State::Pending => return Err(NodeError::NoManager),
        };
        self.state.send_replace(State::Pending);
        let begun = async {
            document.move_to(place);
            document.write(&*self.disk())?;
            self.unless_ending(self.take_up(document, unlock, Start::ForceNewCluster)).await
        };
        let begun = begun.await;
        let member =
            begun.inspect_err(|error| drop(self.state.send_replace(State::Failed(error.to_string()))))?;
        self.state.send_replace(State::Active(Arc::clone(&member)));
        Ok(member.document().node)
    }

    /// Joins a cluster.
    ///
    /// # Errors
    /// It is of one; no manager lets it in.
    pub async fn join(&self, order: JoinOrder) -> Result<NodeId, NodeError> {
        let _one = self.control.lock().await;
        if !matches!(self.state(), State::Inactive) {
            return Err(NodeError::Exists);
        }
        self.state.send_replace(State::Pending);
        let joined = self.join_with(order).await;
        let id = self.settle(joined).await?;
        let member = self.member()?;
        let entered = async {
            member.entered().await;
            Ok(id)
        };
        timeout(JOIN_PATIENCE, self.unless_ending(entered)).await.map_err(|_| NodeError::JoinTakesLong)?
    }

    /// Leaves the cluster: its tasks end, and what it kept is gone. A manager needs `force`.
    ///
    /// # Errors
    /// It is of none, or a manager and not forced.
    pub async fn leave(&self, force: bool) -> Result<(), NodeError> {
        let _one = self.control.lock().await;
        match self.state() {
            State::Inactive => return Err(NodeError::NoSwarm),
            State::Locked if !force => {
                return Err(NodeError::LeaveNeedsForce(
                    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
                        .to_owned(),
                ));
            }
            State::Active(member) => {
                if !force && let Some(text) = member.leaving_needs_force() {
                    return Err(NodeError::LeaveNeedsForce(text));
                }
                member.leave().await;
            }
            State::Pending | State::Locked | State::Failed(_) => self.remove_tasks().await,
        }
        if let Err(error) = self.disk().wipe() {
            let error = NodeError::from(error);
            self.state.send_replace(State::Failed(error.to_string()));
            return Err(error);
        }
        self.state.send_replace(State::Inactive);
        Ok(())
    }

    /// Unlocks a manager that waits for its key.
    ///
    /// # Errors
    /// It does not wait, or the key is another.
    pub async fn unlock(&self, key: UnlockKey) -> Result<(), NodeError> {
        let _one = self.control.lock().await;
        match self.state() {
            State::Locked => {}
            State::Active(member) if member.is_manager() => return Err(NodeError::NotLocked),
            State::Active(_) => return Err(NodeError::Worker),
            _ => return Err(NodeError::NoManager),
        }
        let document = Document::read(&*self.disk())?.ok_or(NodeError::NoSwarm)?;
        let member = self.unless_ending(self.take_up(document, Some(key), Start::Resume)).await?;
        self.state.send_replace(State::Active(member));
        Ok(())
    }

    /// Where the managers' requests are answered now. Waits some seconds for an election.
    ///
    /// # Errors
    /// It is no manager, is locked, or nobody leads.
    pub async fn lead(&self) -> Result<Lead, NodeError> {
        let member = self.managing()?;
        timeout(LEADER_PATIENCE, member.lead()).await.map_err(|_| NodeError::NoLeader)?
    }

    /// Reads what this manager has of the cluster, which may be older than what the leader has; none of a worker.
    pub fn view<T>(&self, reader: impl FnOnce(&Store) -> T) -> Option<T> {
        self.managing().ok()?.view(reader)
    }

    /// What it counts; nothing of a node of no cluster.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.member().map(|member| member.figures()).unwrap_or_default()
    }

    /// What is committed from now on, once this node is a manager. It ends when it is none any more.
    pub async fn notices(&self) -> Notices {
        let mut states = self.state.subscribe();
        loop {
            let member = match &*states.borrow_and_update() {
                State::Active(member) => Some(Arc::clone(member)),
                _ => None,
            };
            let notices = async {
                match &member {
                    Some(member) => member.notices().await,
                    None => None,
                }
            };
            tokio::select! {
                biased;
                Some(notices) = notices => return notices,
                // The sender is here as well.
                _ = states.changed() => {}
            }
        }
    }

    /// The connections to other nodes.
    ///
    /// # Errors
    /// It is of no cluster.
    pub fn links(&self) -> Result<Arc<Links>, NodeError> {
        self.member().map(|member| member.links())
    }

    /// What `docker info` shows of the node itself.
    #[must_use]
    pub fn information(&self) -> Information {
        match self.state() {
            State::Inactive => Information { state: "inactive", ..Information::default() },
            State::Pending => Information { state: "pending", ..Information::default() },
            State::Locked => Information {
                state: "locked",
                error: NodeError::Locked.to_string(),
                ..Information::default()
            },
            State::Failed(error) => Information { state: "error", error, ..Information::default() },
            State::Active(member) => member.information(),
        }
    }

    /// Ends everything that runs here but the tasks. What waits for other nodes is given up: systemd waits for nobody.
    pub async fn shutdown(&self) {
        self.is_ending.send_replace(true);
        let _one = self.control.lock().await;
        if let State::Active(member) = self.state() {
            member.shutdown().await;
        }
    }

    /// Work that a node which is about to end leaves undone.
    async fn unless_ending<T>(
        &self,
        work: impl Future<Output = Result<T, NodeError>>,
    ) -> Result<T, NodeError> {
        let mut is_ending = self.is_ending.subscribe();
        tokio::select! {
            biased;
            _ = is_ending.wait_for(|it| *it) => Err(NodeError::Ending),
            done = work => done,
        }
    }

    /// Ends what an agent of before has left, of a node that takes no part.
    async fn remove_tasks(&self) {
        let executor = &self.parts.executor;
        match executor.present().await {
            Ok(tasks) => {
                for task in tasks {
                    if let Err(error) = executor.remove(task).await {
                        tracing::warn!(%task, %error, "a task's container is left");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the tasks' containers are left"),
        }
        executor.set_data_path(None).await;
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.parts.world.disk()
    }

    fn member(&self) -> Result<Arc<Member>, NodeError> {
        match self.state() {
            State::Active(member) => Ok(member),
            State::Locked => Err(NodeError::Locked),
            State::Inactive | State::Pending | State::Failed(_) => Err(NodeError::NoManager),
        }
    }

    fn managing(&self) -> Result<Arc<Member>, NodeError> {
        let member = self.member()?;
        match member.trouble() {
            Some(trouble) => Err(trouble),
            None if member.is_manager() => Ok(member),
            None => Err(NodeError::Worker),
        }
    }

    /// What a first step came to: a member, or a node of no cluster again, with nothing kept.
    async fn settle(&self, begun: Result<Arc<Member>, NodeError>) -> Result<NodeId, NodeError> {
        match begun {
            Ok(member) => {
                let id = member.document().node;
                self.state.send_replace(State::Active(member));
                Ok(id)
            }
            Err(error) => {
                match self.disk().wipe() {
                    Ok(()) => drop(self.state.send_replace(State::Inactive)),
                    Err(left) => drop(self.state.send_replace(State::Failed(format!("{error}; {left}")))),
                }
                Err(error)
            }
        }
    }

    async fn found(&self, founding: Founding) -> Result<Arc<Member>, NodeError> {
        let world = &self.parts.world;
        let founded = found::found(&**world, founding)?;
        let unlock = found::unlock_key(&founded.cluster);
        let keys = self.disk().keys()?;
        keys.write(&founded.kept, unlock.as_ref())?;
        keys.write_roots(&founded.cluster.root_ca.certificate)?;
        let beginning = Beginning {
            parts: self.parts.clone(),
            roots: founded.cluster.root_ca.certificate.clone(),
            kept: founded.kept,
            document: founded.document.clone(),
            unlock,
        };
        let member = Member::found(beginning, founded.cluster, founded.node).await?;
        if let Err(error) = founded.document.write(&*self.disk()) {
            member.shutdown().await;
            return Err(error);
        }
        Ok(member)
    }

    /// Only the managers are not waited for when the node is about to end. From its certificate on it is a node of theirs, and what is
    /// left to do is local and short: given up, it would be one that never comes.
    async fn join_with(&self, order: JoinOrder) -> Result<Arc<Member>, NodeError> {
        let world = &self.parts.world;
        let links = Links::new(Arc::clone(world));
        let entry = self.unless_ending(join::join(&links, &order, world.now())).await?;
        let join::Entry { joined, manager, data_path_port } = entry;
        let is_manager = joined.identity.role == NodeRole::Manager;
        let raft = is_manager.then(|| RaftKeys { current: found::key_of(&**world), next: None });
        let document = Document {
            node: joined.identity.node,
            cluster: joined.identity.cluster,
            listen: order.listen,
            advertise: order.advertise,
            advertised: order.advertised,
            data_address: order.data_address,
            data_path_port,
            raft_id: is_manager.then(|| found::raft_id(&**world)),
            entered: false,
            raft: RaftConfig::default(),
            managers: vec![ManagerAddress::nameless(manager)],
        };
        let kept = Kept { key: joined.key, chain: joined.chain, raft };
        let keys = self.disk().keys()?;
        keys.write(&kept, None)?;
        keys.write_roots(&joined.roots)?;
        document.write(&*self.disk())?;
        let beginning =
            Beginning { parts: self.parts.clone(), roots: joined.roots, kept, document, unlock: None };
        Member::begin(beginning, Start::Resume).await
    }

    /// Takes up what the disk says, again and again until it works: it may be full, or its manager's port still somebody else's.
    async fn resume(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        while self.is_to_resume().await {
            let waited = self
                .unless_ending(async {
                    sleep(pause).await;
                    Ok(())
                })
                .await;
            if waited.is_err() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tries it once; whether it is to be tried again.
    async fn is_to_resume(&self) -> bool {
        let _one = self.control.lock().await;
        // It may have left meanwhile, or begun otherwise.
        let document = match Document::read(&*self.disk()) {
            Ok(Some(document)) if matches!(self.state(), State::Pending | State::Failed(_)) => document,
            _ => return false,
        };
        // Also where it can't take part: the others believe what comes from it.
        self.parts.executor.set_data_path(document.data_path()).await;
        match self.unless_ending(self.take_up(document, None, Start::Resume)).await {
            Err(NodeError::Ending) => false,
            Ok(member) => {
                self.state.send_replace(State::Active(member));
                false
            }
            Err(NodeError::Locked) => {
                self.state.send_replace(State::Locked);
                false
            }
            Err(error) => {
                let text = error.to_string();
                if !matches!(self.state(), State::Failed(before) if before == text) {
                    tracing::error!(%error, "this node can't take part in its cluster");
                    self.state.send_replace(State::Failed(text));
                }
                !matches!(error, NodeError::Expired)
            }
        }
    }

    async fn take_up(
        &self,
        document: Document,
        unlock: Option<UnlockKey>,
        start: Start,
    ) -> Result<Arc<Member>, NodeError> {
        let keys: Folder = self.disk().keys()?;
        let kept = keys.read(unlock.as_ref())?;
        let kept = kept.ok_or_else(|| NodeError::Failed("the node's keys are missing".to_owned()))?;
        let roots = keys.read_roots()?;
        let roots = roots.ok_or_else(|| NodeError::Failed("the cluster's roots are missing".to_owned()))?;
        Member::begin(Beginning { parts: self.parts.clone(), roots, kept, document, unlock }, start).await
    }
}
