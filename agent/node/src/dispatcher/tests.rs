//! A dispatcher of a real leader, called as workers call it; time is tokio's, paused.

mod assignments;
mod attaching;
mod ends;
mod heartbeats;
mod interests;
mod layers;
mod logs;
mod registration;
mod scaling;
mod tunnels;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request as HttpRequest;
use ketch_ca::identity::Identity;
use ketch_cluster::assignment::{Assignment, Held, Item};
use ketch_cluster::control::create_service;
use ketch_cluster::id::{ClusterId, NodeId, ServiceId, TaskId};
use ketch_cluster::objects::node::{CaKeyId, NodeRole, NodeState};
use ketch_cluster::objects::{Node, TaskState, Version};
use ketch_cluster::store::StoreAction;
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::Told as Word;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::calls::{LogsWanted, ManagerAddress, MeasuresWanted, Membership, SessionMessage, TunnelWanted};
use crate::fixture::{Managers, objects, until};

const PERIOD: Duration = Duration::from_secs(2);
/// Longer than whatever the dispatcher holds back.
const A_WHILE: Duration = Duration::from_millis(500);

/// A manager that leads, and its dispatcher.
struct Cluster {
    managers: Managers,
    leader: Arc<Leader>,
    dispatcher: Arc<Dispatcher>,
}

impl Cluster {
    async fn new(managers: usize) -> Self {
        let managers = Managers::of(managers).await;
        let leader = managers.leader().await;
        let dispatcher = Dispatcher::new(Arc::clone(&leader));
        let it = Self { managers, leader, dispatcher };
        sleep(A_WHILE).await;
        it
    }

    /// With so many workers that have joined, from 101 on.
    async fn with(workers: u128) -> Self {
        Self::of(1, workers).await
    }

    async fn of(managers: usize, workers: u128) -> Self {
        let it = Self::new(managers).await;
        for number in 0..workers {
            let joined =
                Node { description: None, status: Default::default(), ..objects::node(101 + number) };
            it.write(StoreAction::Create(joined.into())).await;
        }
        it
    }

    async fn write(&self, action: StoreAction) {
        self.leader.change(|_, _, _| Ok::<_, ()>(((), vec![action]))).await.unwrap();
    }

    fn node(&self, id: NodeId) -> Arc<Node> {
        self.leader.view(|view| view.node(id).cloned()).unwrap()
    }

    fn state(&self, id: NodeId) -> NodeState {
        self.node(id).status.state
    }

    fn version(&self) -> Version {
        self.leader.view(|view| view.version())
    }

    async fn service(&self, name: &str, replicas: u64) -> ServiceId {
        let spec = objects::replicated(name, replicas);
        self.leader.change(|view, now, bits| create_service(view, spec, now, bits)).await.unwrap()
    }

    fn tasks_on(&self, node: NodeId) -> Vec<TaskId> {
        self.leader.view(|view| view.tasks_on(node).map(|task| task.id).collect())
    }

    async fn placed(&self, service: ServiceId, count: usize) {
        until("the tasks have nodes", || {
            self.leader.view(|view| view.tasks_of(service).filter(|it| it.node.is_some()).count() == count)
        })
        .await;
    }

    async fn ask<R: Request>(&self, identity: Identity, request: &R) -> Result<R::Answer, Refusal> {
        ask(&self.dispatcher, identity, request).await
    }
}

fn call<R: serde::Serialize>(caller: Caller, path: &str, request: &R) -> Call {
    let head = HttpRequest::post(path).body(()).unwrap().into_parts().0;
    let body = serde_json::to_vec(request).unwrap().into();
    Call { caller, from: "10.0.0.99".to_owned(), head, body }
}

async fn ask<R: Request>(
    dispatcher: &Arc<Dispatcher>,
    identity: Identity,
    request: &R,
) -> Result<R::Answer, Refusal> {
    let answer = dispatcher.answer(call(Caller::Member(identity), R::PATH, request)).await?;
    let Answer::Bytes(bytes) = answer else { panic!("no whole answer") };
    Ok(serde_json::from_slice(&bytes).unwrap())
}

fn identity(number: u128) -> Identity {
    Identity {
        node: NodeId::of(number),
        role: NodeRole::Worker,
        cluster: ClusterId::of(1),
        issuer: CaKeyId([7; 20]),
        begins: Timestamp::default(),
        expires: Timestamp(u64::MAX),
    }
}

fn asked(number: u128) -> SessionAsked {
    SessionAsked {
        description: objects::description(&format!("node-{number}")),
        roots: vec![CaKeyId([7; 20])],
        words: Vec::new(),
        address: String::new(),
        process: 0,
        tunnels: true,
        layers: 0,
    }
}

fn word(state: TaskState) -> Word {
    Word { state, ..Word::default() }
}

/// A worker's end of a session, with what it was told.
struct Worker {
    identity: Identity,
    dispatcher: Arc<Dispatcher>,
    stream: mpsc::Receiver<Bytes>,
    session: u128,
    heartbeat: Duration,
    held: Held,
    managers: Vec<ManagerAddress>,
    membership: Option<Membership>,
    logs: Vec<LogsWanted>,
    logs_ended: Vec<u64>,
    tunnels: Vec<TunnelWanted>,
    measures: Vec<MeasuresWanted>,
    assignments: usize,
    parts: usize,
}

impl Worker {
    async fn begin(dispatcher: &Arc<Dispatcher>, number: u128) -> Self {
        Self::begin_with(dispatcher, identity(number), asked(number)).await.unwrap()
    }

    async fn begin_with(
        dispatcher: &Arc<Dispatcher>,
        identity: Identity,
        asked: SessionAsked,
    ) -> Result<Self, Refusal> {
        let call = call(Caller::Member(identity), SessionAsked::PATH, &asked);
        let Answer::Stream(stream) = dispatcher.answer(call).await? else { panic!("no stream") };
        let mut worker = Self {
            identity,
            dispatcher: Arc::clone(dispatcher),
            stream,
            session: 0,
            heartbeat: Duration::ZERO,
            held: Held::default(),
            managers: Vec::new(),
            membership: None,
            logs: Vec::new(),
            logs_ended: Vec::new(),
            tunnels: Vec::new(),
            measures: Vec::new(),
            assignments: 0,
            parts: 0,
        };
        assert!(worker.read().await, "the first message");
        assert_ne!(worker.session, 0, "which is that it has begun");
        Ok(worker)
    }

    /// One message; false when the stream has ended.
    async fn read(&mut self) -> bool {
        let Some(bytes) = self.stream.recv().await else { return false };
        match serde_json::from_slice(&bytes[4..]).unwrap() {
            SessionMessage::Begun { session, heartbeat } => {
                (self.session, self.heartbeat) = (session, heartbeat)
            }
            SessionMessage::Managers(managers) => self.managers = managers,
            SessionMessage::Membership(membership) => self.membership = Some(membership),
            SessionMessage::AssignmentPart(changes) => {
                self.held.receive(&changes).unwrap();
                self.parts += 1;
            }
            SessionMessage::Assignment(changes) => {
                self.held.receive(&changes).unwrap();
                self.assignments += 1;
            }
            SessionMessage::Logs(wanted) => self.logs.push(wanted),
            SessionMessage::LogsEnd { subscription } => self.logs_ended.push(subscription),
            SessionMessage::Tunnel(wanted) => self.tunnels.push(wanted),
            SessionMessage::Measures(wanted) => self.measures.push(wanted),
        }
        true
    }

    /// All that comes until nothing does for a while; false when the stream has ended.
    async fn settle(&mut self) -> bool {
        loop {
            match timeout(A_WHILE, self.read()).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => return true,
            }
        }
    }

    async fn beat(&self) -> Result<HeartbeatTaken, Refusal> {
        ask(&self.dispatcher, self.identity, &Heartbeat { session: self.session }).await
    }

    async fn tell(&self, words: Vec<(TaskId, Word)>) -> Result<Vec<TaskId>, Refusal> {
        let told = Tell { session: self.session, words };
        ask(&self.dispatcher, self.identity, &told).await.map(|taken| taken.committed)
    }

    /// Beats for so long.
    async fn live(&self, periods: u32) {
        for _ in 0..periods {
            sleep(PERIOD).await;
            self.beat().await.unwrap();
        }
    }

    fn items(&self) -> Vec<Item> {
        self.held.items().cloned().collect()
    }

    fn wanted(&self) -> Vec<Item> {
        let node = self.identity.node;
        self.dispatcher.leader.view(|view| Assignment::of(view, node).items().cloned().collect())
    }
}
