//! Managers in one process: memory for disks, a hub for the network, tokio's paused clock. Nothing here sleeps: a test
//! waits for what it wants to see, and fails when that is not there in time.

mod cluster;
mod conformance;
mod damage;
mod full;
mod members;
mod record;
mod resealing;
mod restart;
mod snapshot;
mod storm;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ketch_cluster::id::{ConfigId, NodeId};
use ketch_cluster::objects::{Config, ConfigSpec, Meta};
use ketch_cluster::store::{Object, ObjectKind, StoreAction};
use openraft::async_runtime::WatchReceiver as _;

use crate::memory::{MemoryDisk, MemoryFiles};
use crate::{
    Blocking, Call, ClusterLog, DataKeys, Entropy, Kind, OpenError, Peer, Retention, Settings, Start, Status,
    Timing, Transport, TransportError, World,
};

/// Of the paused clock: it passes at once when everybody waits.
pub(super) const SOON: Duration = Duration::from_secs(120);
const KEY: [u8; 32] = [7; 32];

/// When, from whom, to whom, what.
pub(super) type Step<T> = (T, u64, u64, Kind, String);

/// The wires between managers.
#[derive(Default)]
pub(super) struct Hub {
    logs: Mutex<BTreeMap<u64, Arc<ClusterLog>>>,
    cut: Mutex<BTreeSet<(u64, u64)>>,
    /// The addresses that calls went to.
    called: Mutex<BTreeSet<String>>,
    losses: Mutex<Losses>,
    /// Bytes of the longest request.
    longest: Mutex<usize>,
    /// Every call.
    trace: Mutex<Vec<Step<tokio::time::Instant>>>,
}

/// Which answers do not arrive.
#[derive(Default)]
struct Losses {
    /// One of so many; none when it is 0.
    one_of: u64,
    answers: u64,
}

struct Wire {
    from: u64,
    hub: Arc<Hub>,
}

impl Transport for Wire {
    fn call(&self, to: &Peer, call: Call) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let (from, to, hub) = (self.from, to.clone(), Arc::clone(&self.hub));
        async move {
            hub.called.lock().unwrap().insert(to.address.clone());
            hub.measure(call.request.len());
            let request = String::from_utf8_lossy(&call.request).into_owned();
            let step = (tokio::time::Instant::now(), from, to.raft_id, call.kind, request);
            hub.trace.lock().unwrap().push(step);
            let log = hub.reach(from, to.raft_id)?;
            let answer = log.answer(call.kind, &call.request).await;
            drop(log);
            // The answer gets lost when the wire is cut meanwhile.
            hub.reach(to.raft_id, from)?;
            if hub.loses_this_one() {
                return std::future::pending().await;
            }
            answer.map_err(|error| TransportError::Refused(error.to_string()))
        }
        .boxed()
    }
}

impl Hub {
    fn reach(&self, from: u64, to: u64) -> Result<Arc<ClusterLog>, TransportError> {
        if self.cut.lock().unwrap().contains(&(from, to)) {
            return Err(TransportError::Unreachable("cut".to_owned()));
        }
        let log = self.logs.lock().unwrap().get(&to).cloned();
        log.ok_or_else(|| TransportError::Unreachable("off".to_owned()))
    }

    /// Nothing passes between these and the others, in either direction.
    pub(super) fn partition(&self, these: &[u64], others: &[u64]) {
        let mut cut = self.cut.lock().unwrap();
        for this in these {
            for other in others {
                cut.extend([(*this, *other), (*other, *this)]);
            }
        }
    }

    /// From now on one answer of so many is lost: its sender waits for it in vain.
    pub(super) fn lose_one_of(&self, count: u64) {
        self.losses.lock().unwrap().one_of = count;
    }

    fn loses_this_one(&self) -> bool {
        let mut losses = self.losses.lock().unwrap();
        losses.answers += 1;
        losses.one_of > 0 && losses.answers.is_multiple_of(losses.one_of)
    }

    fn measure(&self, length: usize) {
        let mut longest = self.longest.lock().unwrap();
        *longest = length.max(*longest);
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

/// Managers and their disks.
#[derive(Default)]
pub(super) struct Managers {
    pub(super) hub: Arc<Hub>,
    disks: BTreeMap<u64, (MemoryDisk, MemoryFiles)>,
}

/// How a manager is started other than usually.
pub(super) struct Options {
    pub(super) start: Start,
    pub(super) keys: DataKeys,
    pub(super) retention: Retention,
    pub(super) blocking: Blocking,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start: Start::Resume,
            keys: DataKeys::one(KEY),
            retention: Retention { snapshot_every: 1000, keep: 100 },
            blocking: Blocking::Inline,
        }
    }
}

impl Managers {
    fn disk(&mut self, id: u64) -> &mut (MemoryDisk, MemoryFiles) {
        self.disks.entry(id).or_default()
    }

    pub(super) async fn start(&mut self, id: u64) -> Arc<ClusterLog> {
        self.start_with(id, Options::default()).await.unwrap()
    }

    pub(super) async fn start_with(
        &mut self,
        id: u64,
        options: Options,
    ) -> Result<Arc<ClusterLog>, OpenError> {
        let transport = Arc::new(Wire { from: id, hub: Arc::clone(&self.hub) });
        let (disk, files) = self.disk(id);
        let settings = Settings {
            me: peer(id),
            timing: Timing { tick: Duration::from_millis(100), heartbeat_ticks: 1, election_ticks: 10 },
            retention: options.retention,
            blocking: options.blocking,
            seed: id,
            start: options.start,
        };
        let world = World {
            log: disk.handle(),
            snapshots: Arc::new(files.clone()),
            transport,
            entropy: entropy(id),
            data_keys: options.keys,
        };
        let log = Arc::new(ClusterLog::open(settings, world).await?);
        self.hub.logs.lock().unwrap().insert(id, Arc::clone(&log));
        Ok(log)
    }

    /// The power fails: what was not synced is gone.
    pub(super) async fn crash(&mut self, id: u64) {
        let (disk, files) = self.disk(id);
        disk.crash();
        files.crash();
        let log = self.hub.logs.lock().unwrap().remove(&id);
        if let Some(log) = log {
            log.shutdown().await;
        }
    }

    /// Starts managers 1 to `count`, all voters; 1 leads.
    pub(super) async fn voters(&mut self, count: u64) -> Vec<Arc<ClusterLog>> {
        let first = self.start(1).await;
        first.found(SOON).await.unwrap();
        let mut logs = vec![first];
        for id in 2..=count {
            logs.push(self.start(id).await);
            logs[0].add_learner(peer(id), SOON).await.unwrap();
            logs[0].promote(id, SOON).await.unwrap();
        }
        logs
    }
}

pub(super) fn peer(id: u64) -> Peer {
    Peer { raft_id: id, node: NodeId::of(u128::from(id)), address: format!("10.0.0.{id}:2377") }
}

/// A small generator: each manager's bytes differ, each run's are the same.
pub(super) fn entropy(seed: u64) -> Entropy {
    let state = Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    Arc::new(move |bytes| {
        let mut state = state.lock().unwrap();
        for byte in bytes {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *byte = state.to_be_bytes()[0];
        }
    })
}

pub(super) async fn until(log: &ClusterLog, seen: impl Fn(&Status) -> bool) -> Status {
    let mut metrics = log.raft.metrics();
    let wait = async {
        loop {
            let status = Status::of(&metrics.borrow_watched());
            if seen(&status) {
                return status;
            }
            metrics.changed().await.unwrap();
        }
    };
    let waited = tokio::time::timeout(SOON, wait).await;
    waited.unwrap_or_else(|_| panic!("not seen in time: {:?}", log.status()))
}

/// Waits for a leader among these that all of them follow.
pub(super) async fn leader<'a>(logs: &[&'a ClusterLog]) -> &'a ClusterLog {
    let mut known = logs[0].leadership();
    let ids: Vec<_> = logs.iter().map(|log| log.me.raft_id).collect();
    loop {
        let wait = known.wait_for(|now| now.leader.is_some_and(|leader| ids.contains(&leader)));
        let now = *tokio::time::timeout(SOON, wait).await.expect("no leader").unwrap();
        let leader = logs.iter().find(|log| Some(log.me.raft_id) == now.leader).unwrap();
        let agreed = |status: &Status| status.leadership.leader == now.leader;
        for log in logs {
            until(log, agreed).await;
        }
        let status =
            until(leader, |status| status.leadership.is_leader() || status.leadership.leader != now.leader);
        if status.await.leadership.is_leader() {
            return leader;
        }
    }
}

pub(super) fn create(number: u128) -> Vec<StoreAction> {
    create_with(number, vec![])
}

pub(super) fn create_with(number: u128, data: Vec<u8>) -> Vec<StoreAction> {
    let spec = ConfigSpec { name: name(number), data, ..ConfigSpec::default() };
    let config = Config { id: ConfigId::of(number), meta: Meta::default(), spec, superseded: false };
    vec![StoreAction::Create(Object::from(config))]
}

pub(super) fn name(number: u128) -> String {
    format!("config-{number}")
}

/// The numbers of the configs in this manager's store.
pub(super) fn configs(log: &ClusterLog) -> Vec<String> {
    log.read(|store| store.configs().map(|config| config.spec.name.clone()).collect())
}

pub(super) fn has(log: &ClusterLog, number: u128) -> bool {
    log.read(|store| store.by_name(ObjectKind::Config, &name(number)).is_some())
}

/// Waits until this manager has applied what `other` has.
pub(super) async fn catch_up(log: &ClusterLog, other: &ClusterLog) {
    let goal = other.status().applied;
    until(log, |status| status.applied >= goal).await;
}
