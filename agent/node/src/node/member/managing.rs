//! A node's manager: when it begins and ends, who answers calls of other nodes, and one dispatcher for each term that it leads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_ca::folder::RaftKeys;
use ketch_ca::trust::{PeerError, Side, Trust};
use ketch_cluster::control::Reachability;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::node::NodeRole;
use ketch_raft::{DataKeys, Peer};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::places::Places;
use super::{Log, Member, end_all};
use crate::calls::{self, ManagerAddress, Membership, ReachAsked, TunnelRequest};
use crate::dispatcher::Dispatcher;
use crate::locks::lock;
use crate::manager::{Leader, Manager, ManagerParts};
use crate::node::error::NodeError;
use crate::node::{Lead, found};
use crate::wire::{Answer, Call, Refusal, Service, serve};
use crate::world::{Caller, CertificateDer, Credentials, Listener, World};

/// Between two tries to be let in by the other managers.
const RETRY: Duration = Duration::from_secs(1);
/// How long another manager may take to lead before this one ends all the same.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long one manager is asked, and the leader that it names.
const ENTER_PATIENCE: Duration = Duration::from_secs(60);
/// Connections at once.
const MOST_CONNECTIONS: usize = 65_536;
/// Of one worker: its calls' one, its session's, and those of tunnels; of one manager, whose users' tunnels come by the leader.
const MOST_OF_WORKER: usize = 128;
const MOST_OF_MANAGER: usize = 1024;
/// Docker's words.
const LOST_CONSENSUS: &str = "Doing so may lose the consensus of your cluster. ";
const ONLY_BY_FORCE: &str = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
/// Of strangers: nodes that join.
const MOST_STRANGERS: usize = 64;

/// The manager, and the term that it leads.
#[derive(Clone)]
pub(super) struct Managing {
    pub(super) manager: Arc<Manager>,
    term: Option<(Arc<Leader>, Arc<Dispatcher>)>,
}

impl Managing {
    pub(super) fn lead(&self, own: NodeId) -> Option<Lead> {
        if let Some((leader, dispatcher)) = &self.term {
            return Some(Lead::Here(Arc::clone(leader), Arc::clone(dispatcher)));
        }
        let (node, address) = self.manager.leader_address()?;
        (node != own).then_some(Lead::There(ManagerAddress { node, address }))
    }

    /// The leader here with its dispatcher, when this manager leads.
    pub(super) fn term(&self) -> Option<(Arc<Leader>, Arc<Dispatcher>)> {
        self.term.clone()
    }

    /// Which manager calls.
    fn is_manager(&self, caller: Caller) -> Result<NodeId, Refusal> {
        let caller = self.manager.manager(caller)?;
        // A certificate of before a demotion holds for months.
        let role = self.manager.view(|store| store.node(caller.node).map(|it| it.role));
        match role {
            Some(NodeRole::Manager) => Ok(caller.node),
            _ => Err(Refusal::Denied(format!("node {} is no manager", caller.node))),
        }
    }
}

impl Member {
    pub(super) async fn start_managing(self: &Arc<Self>, log: Log) -> Result<(), NodeError> {
        let document = self.document();
        let failed = |error: &dyn std::error::Error| NodeError::failed("starting the manager", error);
        let listener = self.parts.world.listen(&document.listen).await;
        let listener = listener.map_err(|error| {
            NodeError::Failed(format!(
                "failed to listen on remote API address: listen tcp {}: {error}",
                document.listen
            ))
        })?;
        let raft_id = document
            .raft_id
            .ok_or_else(|| NodeError::Failed("the manager's raft id is missing".to_owned()))?;
        let raft = lock(&self.keys)
            .raft
            .ok_or_else(|| NodeError::Failed("the raft log's key is missing".to_owned()))?;
        let parts = ManagerParts {
            world: Arc::clone(&self.parts.world),
            links: Arc::clone(&self.links),
            me: Peer { raft_id, node: document.node, address: document.advertise.clone() },
            data_keys: DataKeys { current: raft.current, next: raft.next },
            raft: document.raft,
            blocking: self.parts.blocking,
        };
        let manager = match log {
            Log::Found(cluster, node) => Manager::found(parts, *cluster, *node).await,
            Log::Open(start) => Manager::open(parts, start).await,
        };
        let manager = manager.map_err(|error| failed(&error))?;
        self.managing.send_replace(Some(Managing { manager: Arc::clone(&manager), term: None }));
        // A connection that the log's beginning has waited for is not lost: the listener takes it now.
        let mut running = lock(&self.managers);
        let answering = Arc::new(Answering(Arc::downgrade(self)));
        running.spawn(accept(listener, answering, Judge::new(self)));
        running.spawn(self.clone().follow_terms(Arc::clone(&manager)));
        running.spawn(self.clone().follow_trust(Arc::clone(&manager)));
        running.spawn(self.clone().follow_seal(Arc::clone(&manager)));
        if !document.entered {
            running.spawn(self.clone().enter(manager));
        }
        Ok(())
    }

    /// Has another manager lead, so that nobody waits for an election.
    pub(super) async fn hand_over(&self) {
        let managing = self.managing.borrow().clone();
        if let Some(managing) = managing
            && let Ok(Err(error)) = timeout(HAND_OVER, managing.manager.hand_over()).await
        {
            tracing::debug!(%error, "nobody else leads yet");
        }
    }

    pub(super) async fn stop_managing(&self) {
        end_all(&self.managers).await;
        if let Some(managing) = self.managing.send_replace(None) {
            managing.manager.shutdown().await;
        }
    }

    /// Draws who the node is to be in raft: never one that it has been.
    pub(super) fn draw_raft_identity(&self) -> Result<(), NodeError> {
        let world = &self.parts.world;
        // What it was before it was demoted, if it ended in the middle of that.
        world.disk().forget_log()?;
        let mut document = lock(&self.document);
        document.raft_id = Some(found::raft_id(&**world));
        document.entered = false;
        document.write(&*world.disk())?;
        lock(&self.keys).raft = Some(RaftKeys { current: found::key_of(&**world), next: None });
        Ok(())
    }

    /// Whether it has been told to raft, or can be.
    pub(super) fn has_raft_identity(&self) -> bool {
        self.document().raft_id.is_some() && lock(&self.keys).raft.is_some()
    }

    /// A node that is no manager any more keeps nothing of the log.
    pub(super) fn forget_raft(&self) -> Result<(), NodeError> {
        let disk = self.parts.world.disk();
        disk.forget_log()?;
        let mut document = lock(&self.document);
        (document.raft_id, document.entered) = (None, false);
        document.write(&*disk)
    }

    /// With what a manager knows of removed nodes.
    pub(super) fn trusting(&self, credentials: Credentials) -> Credentials {
        let cluster = self.managing.borrow().as_ref().and_then(|managing| managing.manager.cluster());
        match cluster.map(|cluster| Trust::of(&cluster)) {
            Some(Ok(trust)) => Credentials { trust: Arc::new(trust), ..credentials },
            _ => credentials,
        }
    }

    /// Why a manager leaves only by force, in Docker's words; none of a worker.
    pub(in crate::node) fn leaving_needs_force(&self) -> Option<String> {
        let mut text =
            "You are attempting to leave the swarm on a node that is participating as a manager. ".to_owned();
        let Some(managing) = self.managing.borrow().clone() else {
            // A manager that can't take part at the moment has what it knows of the cluster all the same.
            let is_manager = lock(&self.keys).identity.role == NodeRole::Manager;
            return is_manager.then(|| text + LOST_CONSENSUS + ONLY_BY_FORCE);
        };
        let members = managing.manager.members();
        let all = members.len();
        // Only the leader hears from the others; elsewhere they count as there.
        let reachable = match &managing.term {
            Some(_) => members.values().filter(|it| **it == Reachability::Reachable).count(),
            None => all,
        };
        let lead = managing.lead(self.document().node);
        if lead.is_none() {
            text += LOST_CONSENSUS;
        } else if all <= 1 {
            text += "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
            return Some(text);
        } else if reachable < all / 2 + 2 {
            let left = reachable.saturating_sub(1);
            text += &format!(
                "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your swarm will be inaccessible. "
            );
        }
        text += ONLY_BY_FORCE;
        Some(text)
    }

    /// Waits until this manager is one of raft's.
    pub(in crate::node) async fn entered(&self) {
        while self.is_manager() && !self.document().entered {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A manager that raft has no more asks to be let in again: it was demoted and promoted before it could follow, and its certificate is
    /// a manager's as before. What it was told may be old by now: who is in is let in at once.
    pub(super) async fn follow_place(self: &Arc<Self>, told: &Membership) {
        // Its manager neither begins nor ends meanwhile.
        let _one = self.renewing.lock().await;
        let document = self.document();
        let Some(managing) = self.managing.borrow().clone() else { return };
        if !document.entered || told.raft_id == document.raft_id {
            return;
        }
        tracing::warn!("raft has this manager no more: it asks to be let in again");
        self.remember(|document| document.entered = false);
        lock(&self.managers).spawn(self.clone().enter(managing.manager));
    }

    async fn enter(self: Arc<Self>, manager: Arc<Manager>) {
        loop {
            for other in self.document().managers {
                match timeout(ENTER_PATIENCE, manager.enter(&other)).await {
                    Ok(Ok(())) => return self.remember(|document| document.entered = true),
                    Ok(Err(error)) => {
                        tracing::warn!(address = %other.address, %error, "not let in by the other managers")
                    }
                    Err(_) => {
                        tracing::warn!(address = %other.address, "not let in by the other managers in time")
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Has one dispatcher for each term.
    async fn follow_terms(self: Arc<Self>, manager: Arc<Manager>) {
        let mut leadership = manager.leadership();
        loop {
            let leader = leadership.borrow_and_update().clone();
            let term = leader.map(|leader| {
                let dispatcher = Dispatcher::new(Arc::clone(&leader));
                (leader, dispatcher)
            });
            self.managing.send_modify(|managing| {
                if let Some(managing) = managing {
                    managing.term = term;
                }
            });
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Takes connections, and answers what comes in by them.
pub(super) async fn accept(mut listener: Box<dyn Listener>, service: Arc<dyn Service>, judge: Judge) {
    let mut open = JoinSet::new();
    let strangers = Arc::new(Semaphore::new(MOST_STRANGERS));
    let mut members = Places::default();
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= MOST_CONNECTIONS {
            let _ended = open.join_next().await;
        }
        match listener.accept().await {
            Ok(accepted) => {
                // Everybody has places of his own: nobody keeps others out.
                let places = match accepted.caller {
                    Caller::Member(identity) => members.of(identity.node, most_of(identity.role)),
                    Caller::Stranger => Arc::clone(&strangers),
                };
                let Ok(place) = places.try_acquire_owned() else { continue };
                let distrusted = judge.clone().distrusts(accepted.chain.clone());
                let service = Arc::clone(&service);
                drop(open.spawn(async move {
                    tokio::select! {
                        biased;
                        () = distrusted => {}
                        () = serve(accepted, service) => {}
                    }
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::error!(%error, "no more connections of other nodes are taken");
                return;
            }
        }
    }
}

fn most_of(role: NodeRole) -> usize {
    match role {
        NodeRole::Worker => MOST_OF_WORKER,
        NodeRole::Manager => MOST_OF_MANAGER,
    }
}

/// Judges connections that are open, whenever the cluster's roots have changed.
#[derive(Clone)]
pub(super) struct Judge {
    world: Arc<dyn World>,
    believed: watch::Receiver<Option<Arc<Trust>>>,
}

impl Judge {
    pub(super) fn new(member: &Member) -> Self {
        Self { world: Arc::clone(&member.parts.world), believed: member.believed.subscribe() }
    }

    /// Returns when no root that the cluster believes leads to who has shown this. What else there is to say of him is looked at in
    /// each call.
    async fn distrusts(mut self, chain: Vec<CertificateDer<'static>>) {
        let is_foreign = |trust: &Arc<Trust>| {
            trust.check(&chain, Side::Client, self.world.now()) == Err(PeerError::Foreign)
        };
        let judged = self.believed.wait_for(|trust| trust.as_ref().is_some_and(is_foreign)).await.is_ok();
        // Otherwise nobody judges any more.
        if !judged {
            std::future::pending().await
        }
    }
}

/// Whoever answers, by the call's path.
struct Answering(std::sync::Weak<Member>);

impl Service for Answering {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let member = self.0.upgrade();
        async move {
            let gone = || Refusal::Unavailable("this node is about to end".to_owned());
            let member = member.ok_or_else(gone)?;
            let managing = member.managing.borrow().clone().ok_or_else(gone)?;
            match call.path() {
                path if Dispatcher::answers(path) => {
                    managing.manager.member(call.caller)?;
                    let _leads = managing.manager.leading()?;
                    let (_, dispatcher) = managing.term.as_ref().ok_or_else(gone)?;
                    dispatcher.answer(call).await
                }
                path if path.starts_with(calls::API) => {
                    managing.is_manager(call.caller)?;
                    member.parts.api.answer(call).await
                }
                ReachAsked::PATH => {
                    let by = managing.is_manager(call.caller)?;
                    let (_, dispatcher) =
                        managing.term.as_ref().ok_or(Refusal::NotLeader { leader: None })?;
                    let asked: ReachAsked = call.read_head()?;
                    Ok(Answer::Tunnel(dispatcher.reach(by, &asked.target).await?))
                }
                _ => managing.manager.answer(call).await,
            }
        }
        .boxed()
    }
}
