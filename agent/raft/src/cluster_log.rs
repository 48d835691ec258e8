//! The log as its users see it: propose, read, follow what was committed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::store::{Store, StoreAction, StoreError};
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver as _;
use openraft::error::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use redb::{Durability, StorageBackend};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::answers::{AnswerError, Answers};
use crate::carried::carried;
use crate::consensus::{Committed, Outcome, Raft, Seeded, Transaction, Types};
use crate::disk::{Disk, DiskError, State};
use crate::leadership::{self, Leadership, Status};
use crate::log_store::LogStore;
use crate::machine::{Machine, MachineParts, Replica};
use crate::network::{Links, Network};
use crate::record::IdentityRecord;
use crate::recovery::make_sole_voter;
use crate::resealing::Sealed;
use crate::rounds::Rounds;
use crate::seal::Seal;
use crate::snapshot::Snapshots;
use crate::snapshot::format::SnapshotError;
use crate::{Kind, Notices, Peer, Settings, Start, World};

/// Committed transactions that a slow reader of the [`Notices`] may be behind before it is told to look at everything.
const BACKLOG: usize = 4096;

/// Why the log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the raft settings are wrong: {0}")]
    Settings(String),
    #[error("raft does not start: {0}")]
    Raft(String),
}

/// Why a proposal or a read was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was committed, and the store refused it on every manager alike.
    #[error(transparent)]
    Refused(StoreError),
    /// Nothing was proposed: ask the leader, when one is known.
    #[error("this manager does not lead the cluster")]
    NotLeader { leader: Option<Peer> },
    /// Nothing was proposed: this leader has not heard of a quorum for too long.
    #[error("the managers have lost quorum")]
    NoQuorum,
    /// It may be committed or not, now or later. Trying again is safe: what it was made of has another version then.
    #[error("no quorum of managers has answered in time; the change may have been made")]
    Uncertain,
    #[error("the raft log has stopped: {0}")]
    Stopped(String),
}

/// One manager's part in the cluster's replicated log. Cheap to share in an [`Arc`].
pub struct ClusterLog {
    pub(crate) raft: Raft,
    pub(crate) me: Peer,
    disk: Arc<Disk>,
    replica: Arc<Replica>,
    sealed: Sealed,
    answers: Answers,
    barriers: Arc<Rounds<Result<(), ProposeError>>>,
    home: Handle,
    leadership: watch::Receiver<Leadership>,
}

impl fmt::Debug for ClusterLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterLog").field("me", &self.me).finish_non_exhaustive()
    }
}

impl ClusterLog {
    /// Reads what the disk holds and takes part. A disk that holds nothing waits: for [`Self::found`], or for a leader
    /// that adds it.
    ///
    /// # Errors
    /// [`OpenError`]; its text says what to do.
    pub async fn open<B: StorageBackend>(settings: Settings, world: World<B>) -> Result<Self, OpenError> {
        let config = settings.config().map_err(|error| OpenError::Settings(error.to_string()))?;
        let seal = Arc::new(Seal::new(&world.data_keys, Arc::clone(&world.entropy)));
        let disk = Disk::open(world.log, Arc::clone(&seal))?;
        claim(&disk, &settings.me)?;
        let (snapshots, loaded) = Snapshots::open(world.snapshots, Arc::clone(&seal))?;
        let (head, store) = loaded.map_or((None, Store::default()), |it| (Some(it.head), it.store));
        match settings.start {
            Start::Resume => disk.check(head.as_ref().and_then(|head| head.last))?,
            Start::ForceNewCluster => make_sole_voter(&disk, head.as_ref(), &settings.me)?,
        }

        let blocking = settings.blocking;
        let snapshots = Arc::new(snapshots);
        let replica = Arc::new(Replica::new(store, BACKLOG));
        let parts =
            MachineParts { replica: Arc::clone(&replica), snapshots: Arc::clone(&snapshots), blocking };
        let machine = Machine::new(parts, head.as_ref()).map_err(raft_error)?;
        let network = Network(Arc::new(Links {
            me: settings.me.raft_id,
            transport: world.transport,
            replica: Arc::clone(&replica),
            snapshots: Arc::clone(&snapshots),
            blocking,
            entropy: world.entropy,
            patience: settings.timing.patience(),
        }));
        let disk = Arc::new(disk);
        let log = LogStore { disk: Arc::clone(&disk), blocking };
        let starting = Raft::new(settings.me.raft_id, Arc::new(config), network, log, machine);
        let raft = Seeded::scope(settings.seed, starting).await.map_err(raft_error)?;

        let sealed = Sealed { seal, disk: Arc::clone(&disk), snapshots: Arc::clone(&snapshots), blocking };
        let answers = Answers::new(raft.clone(), snapshots, blocking);
        let leadership = leadership::follow(&raft);
        let this = Self {
            raft,
            me: settings.me,
            disk,
            replica,
            sealed,
            answers,
            barriers: Arc::default(),
            home: Handle::current(),
            leadership,
        };
        this.lead_when_alone().await?;
        Ok(this)
    }

    /// Proposes one transaction and waits until it was applied here.
    ///
    /// # Errors
    /// [`ProposeError`]; only [`ProposeError::Uncertain`] leaves it open whether anything was changed.
    pub async fn propose(
        &self,
        actions: Vec<StoreAction>,
        within: Duration,
    ) -> Result<Arc<Committed>, ProposeError> {
        let transaction = Transaction::from(actions);
        let write = carried(&self.raft, |raft| async move { raft.client_write(transaction).await });
        let written = timeout(within, write).await.map_err(|_| ProposeError::Uncertain)?;
        match written.map_err(not_proposed)?.data {
            Outcome::Committed(committed) => Ok(committed),
            Outcome::Refused(refusal) => Err(ProposeError::Refused(refusal)),
            Outcome::Nothing => Err(ProposeError::Stopped("a transaction was applied as none".to_owned())),
        }
    }

    /// Reads the store as of one moment. Nothing is applied while `reader` runs, so it should be short; what it needs for
    /// longer it takes out as [`Arc`]s.
    pub fn read<T>(&self, reader: impl FnOnce(&Store) -> T) -> T {
        self.replica.read(reader)
    }

    /// Returns once the store holds everything that was committed, by whomever, before this was called. Leaders only; a
    /// new leader calls it before it decides anything.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn barrier(&self, within: Duration) -> Result<(), ProposeError> {
        let raft = self.raft.clone();
        let read = self.barriers.answer(&self.home, move || barrier(raft.clone()));
        // The runtime ends, when nobody answers.
        timeout(within, read).await.ok().flatten().unwrap_or(Err(ProposeError::NoQuorum))
    }

    /// What is committed from now on.
    #[must_use]
    pub fn notices(&self) -> Notices {
        Notices(self.replica.subscribe())
    }

    /// Who leads, now and whenever it changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Where this log was opened, and where its work is done.
    #[must_use]
    pub fn home(&self) -> &Handle {
        &self.home
    }

    /// Who this manager is.
    #[must_use]
    pub fn me(&self) -> &Peer {
        &self.me
    }

    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.raft.metrics().borrow_watched())
    }

    /// Answers a request that another manager sent through its [`Transport`](crate::Transport). The caller has checked
    /// that the sender is a manager of this cluster.
    ///
    /// # Errors
    /// [`AnswerError`], whose text goes back to the sender.
    pub async fn answer(&self, kind: Kind, request: &[u8]) -> Result<Vec<u8>, AnswerError> {
        self.answers.to(kind, request).await
    }

    /// Starts a snapshot; the log is cut when it is done.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`].
    pub async fn snapshot_now(&self) -> Result<(), ProposeError> {
        let asked = carried(&self.raft, |raft| async move { raft.trigger().snapshot().await });
        asked.await.map_err(|fatal| ProposeError::Stopped(fatal.to_string()))
    }

    /// Seals the log and the snapshots by this key, and returns once nothing on the disk needs another one. The caller keeps both
    /// until then, so that a log that ends in the middle of it is opened by both, and this is called again. Raft goes on.
    ///
    /// # Errors
    /// The disk's, or what is on it is damaged.
    pub async fn reseal(&self, next: [u8; 32]) -> Result<(), OpenError> {
        self.sealed.change_to(&next, &self.answers).await
    }

    /// Returns when the log has stopped by itself, with why: its disk could not be written, as a rule. Nothing was acknowledged since,
    /// and nothing will be; opened again it goes on. None when it was shut down.
    pub async fn failed(&self) -> Option<String> {
        let mut metrics = self.raft.metrics();
        loop {
            match &metrics.borrow_watched().running_state {
                Ok(()) => {}
                Err(Fatal::Stopped) => return None,
                Err(fatal) => return Some(fatal.to_string()),
            }
            metrics.changed().await.ok()?;
        }
    }

    /// Takes part no more, and releases the log's storage.
    pub async fn shutdown(&self) {
        // It fails only when raft has ended by itself.
        drop(carried(&self.raft, |raft| async move { raft.shutdown().await }).await);
        self.sealed.snapshots.close();
        self.disk.close();
    }

    /// The only voter need not wait for an election's time to know that nobody else stands.
    async fn lead_when_alone(&self) -> Result<(), OpenError> {
        if self.status().voters == [self.me.raft_id] {
            let asked = carried(&self.raft, |raft| async move { raft.trigger().elect(false).await });
            asked.await.map_err(raft_error)?;
        }
        Ok(())
    }
}

async fn barrier(raft: Raft) -> Result<(), ProposeError> {
    let read = carried(&raft, |raft| async move { raft.ensure_linearizable(ReadPolicy::ReadIndex).await });
    read.await.map(|_| ()).map_err(|error| match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => not_leader(forward),
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ProposeError::NoQuorum,
        RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.to_string()),
    })
}

/// The disk is this node's: written at the first start, checked at every other.
fn claim(disk: &Disk, me: &Peer) -> Result<(), DiskError> {
    let expected = IdentityRecord { raft_id: me.raft_id, node: me.node };
    match disk.state::<IdentityRecord>(State::Identity)? {
        None => disk.put(State::Identity, &expected, Durability::Immediate),
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(DiskError::Foreign {
            found: format!("{} (raft id {})", found.node, found.raft_id),
            expected: format!("{} (raft id {})", expected.node, expected.raft_id),
        }),
    }
}

fn raft_error(error: impl fmt::Display) -> OpenError {
    OpenError::Raft(error.to_string())
}

fn not_proposed(error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(forward),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Uncertain,
        RaftError::APIError(other) => ProposeError::Stopped(other.to_string()),
        RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.to_string()),
    }
}

pub(crate) fn not_leader(forward: ForwardToLeader<Types>) -> ProposeError {
    match forward.reason {
        ForwardReason::LeaseExpired => ProposeError::NoQuorum,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            ProposeError::NotLeader { leader: forward.leader_node }
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Snapshot(error.into())
    }
}
