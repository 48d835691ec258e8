//! The state machine: the store in memory, what committed entries did to it, and its snapshots.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::{Stream, StreamExt as _};
use ketch_cluster::objects::Version;
use ketch_cluster::store::Store;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use tokio::sync::broadcast;

use crate::consensus::{
    Committed, Entry, LeaderId, LogId, Outcome, Payload, SnapshotMeta, StoredMembership, Transaction, Types,
};
use crate::record::SnapshotHead;
use crate::snapshot::{Loaded, SnapshotFile, Snapshots};
use crate::{Blocking, Notice, Peer};

type TypedSnapshot = Snapshot<LeaderId, u64, Peer, SnapshotFile>;

/// What the state machine shares with its readers.
#[derive(Debug)]
pub(crate) struct Replica {
    store: RwLock<Store>,
    /// Of the last membership that was committed.
    peers: RwLock<BTreeMap<u64, Peer>>,
    notices: broadcast::Sender<Notice>,
}

impl Replica {
    /// Keeps `backlog` notices for a reader that is behind.
    pub(crate) fn new(store: Store, backlog: usize) -> Self {
        Self {
            store: RwLock::new(store),
            peers: RwLock::default(),
            notices: broadcast::Sender::new(backlog.max(1)),
        }
    }

    pub(crate) fn read<T>(&self, reader: impl FnOnce(&Store) -> T) -> T {
        reader(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn peer(&self, raft_id: u64) -> Option<Peer> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&raft_id).cloned()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    fn enter(&self, index: u64, transaction: &Transaction) -> Outcome {
        let version = Version(index);
        let result =
            self.store.write().unwrap_or_else(PoisonError::into_inner).apply(version, transaction.actions());
        match result {
            Ok(changes) => {
                let committed = Arc::new(Committed { version, changes });
                self.tell(Notice::Committed(Arc::clone(&committed)));
                Outcome::Committed(committed)
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn replace(&self, store: Store) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = store;
        self.tell(Notice::Everything);
    }

    fn learn(&self, membership: &StoredMembership) {
        let peers = membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
    }

    /// Nobody may be listening.
    fn tell(&self, notice: Notice) {
        drop(self.notices.send(notice));
    }
}

#[derive(Debug)]
pub(crate) struct Machine {
    replica: Arc<Replica>,
    snapshots: Arc<Snapshots>,
    blocking: Blocking,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// Where a [`Machine`] keeps what it has.
#[derive(Debug)]
pub(crate) struct MachineParts {
    pub(crate) replica: Arc<Replica>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) blocking: Blocking,
}

impl Machine {
    /// As of the snapshot with this head, whose store the replica has.
    pub(crate) fn new(parts: MachineParts, head: Option<&SnapshotHead>) -> io::Result<Self> {
        let MachineParts { replica, snapshots, blocking } = parts;
        let membership = head.map(SnapshotHead::stored_membership).transpose()?.unwrap_or_default();
        replica.learn(&membership);
        let applied = head.and_then(|head| head.last).map(LogId::from);
        Ok(Self { replica, snapshots, blocking, applied, membership })
    }

    fn apply_entry(&mut self, entry: Entry) -> Outcome {
        let Entry { log_id, payload } = entry;
        let outcome = match payload {
            Payload::Blank => Outcome::Nothing,
            Payload::Normal(transaction) => self.replica.enter(log_id.index, &transaction),
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                self.replica.learn(&self.membership);
                Outcome::Nothing
            }
        };
        self.applied = Some(log_id);
        outcome
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let outcome = self.apply_entry(entry);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let snapshot = self.replica.read(Store::snapshot);
        Builder {
            head: SnapshotHead::of(self.applied.as_ref(), &self.membership, snapshot.version.0),
            objects: Arc::from(snapshot.objects),
            snapshots: Arc::clone(&self.snapshots),
            blocking: self.blocking,
        }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<()> {
        let snapshots = Arc::clone(&self.snapshots);
        let Loaded { head, store } = self.blocking.run(move || Ok(snapshots.install(file)?)).await?;
        self.membership = head.stored_membership()?;
        self.applied = head.last.map(LogId::from);
        self.replica.learn(&self.membership);
        self.replica.replace(store);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<TypedSnapshot>> {
        current(&self.snapshots)
    }
}

fn current(snapshots: &Snapshots) -> io::Result<Option<TypedSnapshot>> {
    let Some((head, snapshot)) = snapshots.current()? else { return Ok(None) };
    Ok(Some(Snapshot { meta: head.meta()?, snapshot }))
}

/// A snapshot of one moment that is still to be written. Its objects are the store's own, shared.
#[derive(Debug)]
pub(crate) struct Builder {
    head: SnapshotHead,
    objects: Arc<[ketch_cluster::store::Object]>,
    snapshots: Arc<Snapshots>,
    blocking: Blocking,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<TypedSnapshot> {
        let (snapshots, head, objects) =
            (Arc::clone(&self.snapshots), self.head.clone(), Arc::clone(&self.objects));
        self.blocking.run(move || snapshots.write(&head, &objects)).await?;
        current(&self.snapshots)?.ok_or_else(|| io::Error::other("the new snapshot is gone"))
    }
}
