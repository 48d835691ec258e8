//! A leader by script: it assigns what the test says, and notes what it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::assignment::{Assignment, Held};
use ketch_cluster::id::{ClusterId, NetworkId, SecretId, ServiceId, TaskId};
use ketch_cluster::objects::cluster::{ClusterNetworking, DataKey, RootCa, SecretBytes};
use ketch_cluster::objects::container::{FileTarget, SecretReference};
use ketch_cluster::objects::network::NetworkAllocation;
use ketch_cluster::objects::node::{NodeState, NodeStatus};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{Cluster, ClusterSpec, Driver, Network, NetworkAttachment, NetworkSpec};
use ketch_cluster::objects::{
    ContainerSpec, Labels, Meta, Node, NodeSpec, Secret, SecretSpec, Task, TaskSpec, TaskState, TaskStatus,
    Version,
};
use ketch_cluster::store::{Object, Store, StoreAction};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::{Observed, Told, View};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::lab::NODE;
use crate::calls::{
    Heartbeat, HeartbeatTaken, Leave, Left, LogsTaken, LogsTell, Request, SessionAsked, SessionMessage,
    StreamRequest, Tell, TellTaken,
};
use crate::wire::{Answer, Call, Refusal, Service};

pub(super) const NETWORK: NetworkId = NetworkId::of(3);
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// What becomes of ends that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Commits {
    #[default]
    AtOnce,
    /// They are noted, but nobody hears of it.
    Never,
    /// They are committed, but the answer is lost.
    Silently,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    tasks: BTreeMap<TaskId, Task>,
    secrets: BTreeMap<SecretId, Secret>,
    network: Option<Network>,
    pub(super) observed: Observed,
    held: Held,
    stream: Option<mpsc::Sender<Bytes>>,
    pub(super) session: u128,
    pub(super) asked: Vec<(Instant, SessionAsked)>,
    pub(super) words: BTreeMap<TaskId, Vec<Told>>,
    pub(super) tells: Vec<Vec<(TaskId, Told)>>,
    pub(super) heartbeats: u64,
    pub(super) commits: Commits,
    pub(super) refuses: Option<Refusal>,
    pub(super) no_session: bool,
    /// The node has said that it leaves.
    pub(super) has_left: bool,
    /// It takes calls and never answers.
    pub(super) is_silent: bool,
    pub(super) calls: u64,
    pub(super) logs: Vec<LogsTell>,
    pub(super) logs_go_on: bool,
    pub(super) logs_take: Duration,
}

#[derive(Debug)]
pub(super) struct Leader {
    known: Mutex<Known>,
    changed: watch::Sender<()>,
}

impl Leader {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::new(Known { logs_go_on: true, ..Known::default() }),
            changed: watch::Sender::default(),
        })
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// A task is assigned, or changed by what `change` does to it.
    pub(super) fn assign(&self, number: u128, change: impl FnOnce(&mut Task)) {
        let mut known = self.known();
        change(known.tasks.entry(TaskId::of(number)).or_insert_with(|| task(number)));
        known.send_changes();
    }

    pub(super) fn want(&self, number: u128, desired: TaskState) {
        self.assign(number, |task| task.desired_state = desired);
    }

    /// The task is forgotten.
    pub(super) fn remove(&self, number: u128) {
        let mut known = self.known();
        known.tasks.remove(&TaskId::of(number));
        known.send_changes();
    }

    pub(super) fn add_secret(&self, number: u128, data: &str) {
        let secret = Secret {
            id: SecretId::of(number),
            meta: Meta::default(),
            spec: SecretSpec {
                name: format!("secret-{number}"),
                data: data.as_bytes().to_vec(),
                ..SecretSpec::default()
            },
            internal: false,
            superseded: false,
        };
        self.known().secrets.insert(secret.id, secret);
    }

    /// An encrypted network of the cluster, with its key.
    pub(super) fn add_network(&self) {
        self.known().network = Some(Network {
            id: NETWORK,
            meta: Meta::default(),
            spec: NetworkSpec {
                name: "backend".to_owned(),
                driver: Driver {
                    name: "overlay".to_owned(),
                    options: Labels::from([("encrypted".to_owned(), String::new())]),
                },
                ..NetworkSpec::default()
            },
            allocation: Some(NetworkAllocation { vni: Some(4096), pools: Vec::new() }),
            pending_delete: false,
        });
    }

    /// Another leader leads from now on: it has heard nothing yet.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        known.observed = Observed::default();
        known.stream = None;
    }

    pub(super) fn send_changes(&self) {
        self.known().send_changes();
    }

    pub(super) fn send(&self, message: &SessionMessage) {
        let known = self.known();
        let bytes = Answer::message(message).unwrap();
        known.stream.as_ref().unwrap().try_send(bytes).unwrap();
    }

    pub(super) fn words(&self, task: u128) -> Vec<Told> {
        self.known().words.get(&TaskId::of(task)).cloned().unwrap_or_default()
    }

    pub(super) fn last(&self, task: u128) -> Told {
        self.words(task).last().cloned().unwrap()
    }

    /// States of the task in the order in which they were told, each once.
    pub(super) fn states(&self, task: u128) -> Vec<TaskState> {
        let mut states: Vec<_> = self.words(task).into_iter().map(|told| told.state).collect();
        states.dedup();
        states
    }

    pub(super) async fn told(&self, task: u128, is_it: impl Fn(&Told) -> bool) -> Told {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(told) = self.words(task).into_iter().find(&is_it) {
                return told;
            }
            changed.changed().await.unwrap();
        }
    }

    /// Waits until that many sessions have begun.
    pub(super) async fn sessions(&self, number: usize) {
        let mut changed = self.changed.subscribe();
        while self.known().asked.len() < number {
            changed.changed().await.unwrap();
        }
    }

    /// The connection stays, the session ends.
    pub(super) fn end_session(&self) {
        self.known().stream = None;
    }

    /// Changes are lost on their way: what comes next is out of step.
    pub(super) fn lose_changes(&self) {
        let mut known = self.known();
        let to = known.assignment();
        let mut held = std::mem::take(&mut known.held);
        held.lead_to(&Assignment::default(), usize::MAX);
        held.lead_to(&to, usize::MAX);
        known.held = held;
    }
}

impl Known {
    fn assignment(&self) -> Assignment {
        let mut objects: Vec<Object> = vec![node().into()];
        if let Some(network) = self.network.clone() {
            objects.extend([Object::from(cluster()), network.into()]);
        }
        objects.extend(self.secrets.values().cloned().map(Object::from));
        objects.extend(self.tasks.values().cloned().map(Object::from));
        let actions: Vec<_> = objects.into_iter().map(StoreAction::Create).collect();
        let mut store = Store::default();
        store.apply(Version(1), &actions).unwrap();
        Assignment::of(&View::new(&store, &self.observed), NODE)
    }

    fn send_changes(&mut self) {
        let to = self.assignment();
        if self.stream.is_some()
            && let Some(changes) = self.held.lead_to(&to, usize::MAX).pop()
        {
            let bytes = Answer::message(&SessionMessage::Assignment(changes)).unwrap();
            let sent = self.stream.as_ref().unwrap().try_send(bytes);
            // The worker may be gone; the next session brings it all.
            if sent.is_err() {
                self.stream = None;
            }
        }
    }

    fn begin(&mut self, asked: SessionAsked) -> Answer {
        let (sender, receiver) = mpsc::channel(1024);
        self.session += 1;
        self.note(&asked.words);
        self.asked.push((Instant::now(), asked));
        self.held = Held::default();
        let to = self.assignment();
        let first = SessionMessage::Begun { session: self.session, heartbeat: PERIOD };
        sender.try_send(Answer::message(&first).unwrap()).unwrap();
        let first = self.held.lead_to(&to, usize::MAX).pop().unwrap();
        let changes = SessionMessage::Assignment(first);
        sender.try_send(Answer::message(&changes).unwrap()).unwrap();
        self.stream = Some(sender);
        Answer::Stream(receiver)
    }

    fn note(&mut self, words: &[(TaskId, Told)]) {
        for (task, told) in words {
            self.words.entry(*task).or_default().push(told.clone());
            self.observed.note(*task, told.clone(), Timestamp(0));
        }
    }

    fn tell(&mut self, tell: Tell) -> Result<TellTaken, Refusal> {
        self.is_session(tell.session)?;
        self.note(&tell.words);
        self.tells.push(tell.words.clone());
        if self.commits == Commits::Never {
            return Ok(TellTaken { committed: Vec::new() });
        }
        let mut committed = Vec::new();
        for (id, told) in tell.words.into_iter().filter(|(_, told)| told.state.is_terminal()) {
            committed.push(id);
            if let Some(task) = self.tasks.get_mut(&id).filter(|task| !task.status.state.is_terminal()) {
                task.status =
                    TaskStatus { state: told.state, error: told.error.into(), ..TaskStatus::default() };
            }
        }
        if self.commits == Commits::Silently {
            return Err(Refusal::Failed("the answer is lost".to_owned()));
        }
        self.send_changes();
        Ok(TellTaken { committed })
    }

    fn is_session(&self, session: u128) -> Result<(), Refusal> {
        let is_it = session == self.session && self.stream.is_some() && !self.no_session;
        if is_it { Ok(()) } else { Err(Refusal::NoSession) }
    }
}

impl Service for Leader {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let answer = self.answered(&call);
        let takes =
            if call.path() == LogsTell::PATH { self.known().logs_take } else { Duration::from_millis(1) };
        self.changed.send_replace(());
        let is_silent = self.known().is_silent;
        async move {
            tokio::time::sleep(takes).await;
            if is_silent {
                std::future::pending::<()>().await;
            }
            answer
        }
        .boxed()
    }
}

impl Leader {
    fn answered(&self, call: &Call) -> Result<Answer, Refusal> {
        let mut known = self.known();
        known.calls += 1;
        if let Some(refusal) = known.refuses.clone() {
            return Err(refusal);
        }
        match call.path() {
            SessionAsked::PATH => Ok(known.begin(call.read()?)),
            Heartbeat::PATH => {
                known.is_session(call.read::<Heartbeat>()?.session)?;
                known.heartbeats += 1;
                Answer::of(&HeartbeatTaken { next: PERIOD })
            }
            Tell::PATH => Answer::of(&known.tell(call.read()?)?),
            Leave::PATH => {
                known.is_session(call.read::<Leave>()?.session)?;
                known.stream = None;
                known.has_left = true;
                Answer::of(&Left {})
            }
            LogsTell::PATH => {
                known.logs.push(call.read()?);
                Answer::of(&LogsTaken { go_on: known.logs_go_on })
            }
            path => Err(Refusal::Invalid(path.to_owned())),
        }
    }
}

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::of(1),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        networking: ClusterNetworking::default(),
        root_ca: RootCa::default(),
        shut_out: BTreeMap::new(),
        unlock_key: None,
        data_keys: vec![DataKey { generation: 1, made_at: Timestamp(0), secret: SecretBytes(vec![77; 32]) }],
    }
}

fn node() -> Node {
    Node {
        id: NODE,
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: None,
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        role: NodeSpec::default().role,
        manager: None,
        attachments: Vec::new(),
    }
}

/// Assigned here and wanted running.
fn task(number: u128) -> Task {
    Task {
        spec_version: Version(1),
        service: Some(ServiceId::of(1)),
        slot: u64::try_from(number).unwrap(),
        node: Some(NODE),
        name: format!("web.{number}").into(),
        service_name: "web".into(),
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
        ..Task::new(TaskId::of(number), Arc::default())
    }
}

/// Lets the task name a secret, and the credentials of a registry.
pub(super) fn with_secret(task: &mut Task, secret: u128) {
    let reference = SecretReference {
        secret: SecretId::of(secret),
        name: format!("secret-{secret}"),
        file: FileTarget::default(),
    };
    let container = ContainerSpec {
        secrets: vec![reference],
        registry_auth: Some("registry-password".into()),
        ..ContainerSpec::default()
    };
    task.spec =
        Arc::new(TaskSpec { runtime: TaskRuntime::Container(Box::new(container)), ..TaskSpec::default() });
}

/// Puts the task into the network.
pub(super) fn in_network(task: &mut Task) {
    let address = format!("10.0.1.{}/24", task.slot).parse().unwrap();
    task.networks = vec![NetworkAttachment {
        network: NETWORK,
        addresses: vec![address],
        aliases: Vec::new(),
        driver_options: Labels::new(),
    }];
}
