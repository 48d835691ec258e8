//! One worker's surroundings, and its starts and crashes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_ca::folder::Folder;
use ketch_ca::identity::Identity;
use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::TaskState;
use ketch_cluster::objects::node::{CaKeyId, NodeRole};
use ketch_cluster::time::Timestamp;
use ketch_raft::SnapshotFiles;
use redb::StorageBackend;
use tokio::io::duplex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::engine::{Engine, Hold};
use super::leader::Leader;
use crate::calls::ManagerAddress;
use crate::wire::{Links, serve};
use crate::worker::{Worker, WorkerParts};
use crate::world::{Accepted, Caller, Credentials, DialError, Disk, Listener, Storage, Stream, Terms, World};

pub(super) const NODE: NodeId = NodeId::of(7);
pub(super) const LEADER: &str = "10.0.0.1:2377";

/// Everything that outlives a start of the worker.
#[derive(Debug)]
pub(super) struct Lab {
    begun: Instant,
    /// By how much the wall clock is ahead.
    pub(super) clock_ahead: Mutex<Duration>,
    pub(super) steps: Steps,
    shuts_out: AtomicBool,
    bytes: Mutex<Bytes>,
    reached: Mutex<BTreeMap<String, Arc<Leader>>>,
    connections: Mutex<JoinSet<()>>,
    bits: AtomicU64,
}

/// Everything that happens outside the worker is a step, at which the power may fail.
#[derive(Debug)]
pub(super) struct Steps {
    taken: AtomicU64,
    /// Of the start that is on; it is another one after a crash.
    boot: AtomicU64,
    crash_at: AtomicU64,
    crashed: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
}

impl Steps {
    /// Takes a step of that start; false when its power has failed.
    pub(super) fn take(&self, boot: u64) -> bool {
        if boot != self.boot() {
            return false;
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) + 1 == self.crash_at.load(Ordering::Relaxed) {
            self.boot.fetch_add(1, Ordering::Relaxed);
            self.crashed.notify_one();
            return false;
        }
        true
    }

    pub(super) fn boot(&self) -> u64 {
        self.boot.load(Ordering::Relaxed)
    }

    /// The power fails that many steps from now.
    pub(super) fn crash_after(&self, steps: u64) {
        self.crash_at.store(self.taken.load(Ordering::Relaxed) + steps, Ordering::Relaxed);
    }

    pub(super) async fn crashed(&self) {
        self.crashed.notified().await;
    }
}

impl Lab {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            clock_ahead: Mutex::default(),
            steps: Steps {
                taken: AtomicU64::new(0),
                boot: AtomicU64::new(1),
                crash_at: AtomicU64::new(0),
                crashed: tokio::sync::Notify::new(),
            },
            shuts_out: AtomicBool::new(false),
            bytes: Mutex::default(),
            reached: Mutex::default(),
            connections: Mutex::default(),
            bits: AtomicU64::new(1),
        })
    }

    /// The leader can be reached there.
    pub(super) fn connect(&self, address: &str, leader: &Arc<Leader>) {
        self.reached.lock().unwrap().insert(address.to_owned(), Arc::clone(leader));
    }

    /// Nobody can be reached any more, and all connections end.
    pub(super) fn disconnect(&self) {
        self.reached.lock().unwrap().clear();
        self.end_connections();
    }

    pub(super) fn end_connections(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Whoever can be reached takes no connection of the node any more, which was removed.
    pub(super) fn shut_out(&self) {
        self.shuts_out.store(true, Ordering::Relaxed);
        self.end_connections();
    }

    /// How many connections were made.
    pub(super) fn dials(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    pub(super) fn has_on_disk(&self, text: &str) -> bool {
        self.bytes.lock().unwrap().now.windows(text.len()).any(|it| it == text.as_bytes())
    }
}

/// The lab as one start of the worker sees it.
#[derive(Debug, Clone)]
struct Start {
    lab: Arc<Lab>,
    boot: u64,
}

impl World for Start {
    fn now(&self) -> Timestamp {
        let ahead = *self.lab.clock_ahead.lock().unwrap();
        Timestamp(1_795_000_000_000_000_000).after(self.lab.begun.elapsed() + ahead)
    }

    fn bits(&self) -> u128 {
        u128::from(self.lab.bits.fetch_add(0x9e37_79b9, Ordering::Relaxed)) * 0x1234_5678_9abc_def1
    }

    fn dial(&self, address: &str, _: Terms) -> BoxFuture<'static, Result<Box<dyn Stream>, DialError>> {
        let leader = self.lab.reached.lock().unwrap().get(address).cloned();
        let unreachable = DialError::Unreachable { address: address.to_owned(), reason: "nobody".to_owned() };
        let Some(leader) = leader else { return async { Err(unreachable) }.boxed() };
        if self.lab.shuts_out.load(Ordering::Relaxed) {
            let shut_out = DialError::ShutOut { address: address.to_owned() };
            return async { Err(shut_out) }.boxed();
        }
        let (here, there) = duplex(1 << 16);
        let accepted = Accepted {
            chain: Vec::new(),
            stream: Box::new(there),
            caller: Caller::Member(identity()),
            address: "10.0.0.7".to_owned(),
        };
        self.lab.connections.lock().unwrap().spawn(serve(accepted, leader));
        async { Ok(Box::new(here) as Box<dyn Stream>) }.boxed()
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn adopt(&self, _: Credentials) {}

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }
}

fn identity() -> Identity {
    Identity {
        node: NODE,
        cluster: ClusterId::of(1),
        role: NodeRole::Worker,
        issuer: CaKeyId::default(),
        begins: Timestamp(0),
        expires: Timestamp(u64::MAX),
    }
}

impl Disk for Start {
    fn database(&self, name: &str) -> io::Result<Storage> {
        assert_eq!(name, "tasks");
        Ok(Storage(Box::new(self.clone())))
    }

    fn snapshots(&self) -> io::Result<Arc<dyn SnapshotFiles>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn keys(&self) -> io::Result<Folder> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn forget_log(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn wipe(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Start {
    fn with<T>(&self, work: impl FnOnce(&mut Bytes) -> T) -> io::Result<T> {
        if self.boot != self.lab.steps.boot() {
            return Err(io::Error::other("the power failed"));
        }
        Ok(work(&mut self.lab.bytes.lock().unwrap()))
    }
}

fn span(offset: u64, length: usize) -> std::ops::Range<usize> {
    let first = usize::try_from(offset).unwrap();
    first..first + length
}

impl StorageBackend for Start {
    fn len(&self) -> io::Result<u64> {
        self.with(|bytes| bytes.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|bytes| out.copy_from_slice(&bytes.now[span(offset, out.len())]))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|bytes| bytes.now.resize(usize::try_from(length).unwrap(), 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        if !self.lab.steps.take(self.boot) {
            return Err(io::Error::other("the power failed"));
        }
        self.with(|bytes| bytes.synced.clone_from(&bytes.now))?;
        // It may fail right after as well.
        self.lab.steps.take(self.boot);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|bytes| bytes.now[span(offset, data.len())].copy_from_slice(data))
    }
}

/// A worker with its engine and a leader.
pub(super) struct Bench {
    pub(super) lab: Arc<Lab>,
    pub(super) engine: Arc<Engine>,
    pub(super) leader: Arc<Leader>,
    pub(super) worker: Option<Arc<Worker>>,
    /// At a step that was chosen for it.
    pub(super) has_crashed: bool,
}

impl Bench {
    /// With a leader that can be reached.
    pub(super) fn new() -> Self {
        let it = Self::without_worker();
        it.lab.connect(LEADER, &it.leader);
        it.opened()
    }

    pub(super) fn without_worker() -> Self {
        Self {
            lab: Lab::new(),
            engine: Engine::new(),
            leader: Leader::new(),
            worker: None,
            has_crashed: false,
        }
    }

    pub(super) fn opened(mut self) -> Self {
        self.open();
        self
    }

    pub(super) fn open(&mut self) {
        self.try_open().unwrap();
    }

    /// It may fail when the power fails meanwhile.
    pub(super) fn try_open(&mut self) -> Result<(), crate::worker::WorkerError> {
        let start = Start { lab: Arc::clone(&self.lab), boot: self.lab.steps.boot() };
        let hold = Hold { engine: Arc::clone(&self.engine), lab: Arc::clone(&self.lab), boot: start.boot };
        let world: Arc<dyn World> = Arc::new(start);
        let worker = Worker::open(WorkerParts {
            links: Arc::new(Links::new(Arc::clone(&world))),
            world,
            executor: Arc::new(hold),
            node: NODE,
            address: String::new(),
            managers: vec![ManagerAddress { node: NodeId::of(1), address: LEADER.to_owned() }],
            roots: Vec::new(),
        })?;
        self.worker = Some(worker);
        Ok(())
    }

    /// The power fails, if it has not already: what was not synced is gone.
    pub(super) async fn crash(&mut self) {
        let steps = &self.lab.steps;
        steps.boot.fetch_add(1, Ordering::Relaxed);
        self.lab.connections.lock().unwrap().abort_all();
        if let Some(worker) = self.worker.take() {
            worker.shutdown().await;
        }
        let mut bytes = self.lab.bytes.lock().unwrap();
        bytes.now = bytes.synced.clone();
    }

    pub(super) async fn reopen(&mut self) {
        self.crash().await;
        self.open();
    }

    /// Waits until the leader was told that state of the task.
    pub(super) async fn told(&self, task: u128, state: TaskState) {
        let reached = self.leader.told(task, |told| told.state >= state);
        let told = tokio::time::timeout(Duration::from_secs(3600), reached).await;
        let told = told
            .unwrap_or_else(|_| panic!("{state:?} was not told of {task}: {:?}", self.leader.words(task)));
        assert_eq!(told.state, state, "{told:?}");
    }
}

pub(super) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
