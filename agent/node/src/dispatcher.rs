//! The leader's end of the workers' sessions: it hears that nodes are there and how their tasks go, and tells them what to have.
//!
//! It is made for one term of leadership and ends with it; the next leader's knows nothing until the workers have registered with
//! it. It decides nothing about tasks: assignments are [`Assignment::of`](ketch_cluster::assignment::Assignment::of) the
//! leader's view. Into the store it brings what workers alone know: that a node is there or silent, what it is made of, and how
//! tasks have ended ([`writer`]). Who a caller is says his certificate, never a body.
//!
//! [`node`](crate::node) makes it and gives it the calls that are its own ([`Dispatcher::answers`]); routes of logs call
//! [`Dispatcher::logs`].

mod attaching;
mod bell;
mod deadlines;
mod feeder;
mod interests;
mod layers;
mod logs;
mod membership;
mod reached;
mod scaling;
mod sessions;
mod sought;
mod texts;
mod tunnels;
mod verdict;
mod words;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ketch_ca::identity::Identity;
use ketch_cluster::control::Reachability;
use ketch_cluster::fault::Fault;
use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::node::{NodeDescription, NodeState};
use ketch_cluster::store::{Change, Object, ObjectId};
use ketch_cluster::view::Told;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

pub use logs::{LogHandle, LogMessage, LogStream};

use crate::calls::{
    AttachAsked, Heartbeat, HeartbeatTaken, LayerAsked, LayerRightAsked, Leave, Left, LogsTaken, LogsTell,
    Request, SessionAsked, StreamRequest, Tell, TellTaken, TunnelAsked, TunnelRequest, UsesTaken, UsesTell,
};
use crate::manager::{Changes, LeadError, Leader, Wake};
use crate::measure::OfDispatcher;
use crate::wire::{Answer, Call, Refusal};
use crate::world::Caller;
use bell::Topic;
use feeder::Feeder;
use interests::{Interests, Rings};
use layers::Layers;
use logs::Logs;
use scaling::Scaling;
use sessions::{News, Process, Session, Sessions};
use tunnels::Tunnels;
use verdict::Registration;
use words::Words;
use writer::Writer;

/// Messages that a session's stream holds for its reader, beside what HTTP's flow control lets through.
const AHEAD: usize = 1;

/// Deadlines are looked at so often at least: the period may become shorter.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// One term's sessions. See the module.
#[derive(Debug)]
pub struct Dispatcher {
    leader: Arc<Leader>,
    sessions: Sessions,
    /// Locked while the leader's view is read, never around it.
    interests: Mutex<Interests>,
    writer: Writer,
    logs: Logs,
    tunnels: Tunnels,
    scaling: Scaling,
    layers: Layers,
    counted: OfDispatcher,
}

/// What a node may say of itself: it enters the log.
const MOST_DESCRIPTION: usize = 256 << 10;

fn is_small(description: &NodeDescription) -> Result<(), Refusal> {
    let size = serde_json::to_vec(description).map_or(usize::MAX, |json| json.len());
    if size > MOST_DESCRIPTION {
        return Err(Refusal::Invalid(format!(
            "the node's description has {size} bytes, at most {MOST_DESCRIPTION} are taken"
        )));
    }
    Ok(())
}

impl Dispatcher {
    /// Of a leadership that has begun. It runs by itself until that is over.
    #[must_use]
    pub fn new(leader: Arc<Leader>) -> Arc<Self> {
        let dispatcher = Arc::new(Self {
            leader,
            sessions: Sessions::default(),
            interests: Mutex::default(),
            writer: Writer::new(),
            logs: Logs::default(),
            tunnels: Tunnels::default(),
            scaling: Scaling::default(),
            layers: Layers::default(),
            counted: OfDispatcher::default(),
        });
        let changes = dispatcher.leader.changes();
        dispatcher.look();
        drop(tokio::spawn(Arc::clone(&dispatcher).run(changes)));
        dispatcher
    }

    /// What it has counted in its term.
    #[must_use]
    pub fn counted(&self) -> &OfDispatcher {
        &self.counted
    }

    /// How many workers have a session.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.sessions.count()
    }

    /// Whether calls of that path are a dispatcher's.
    #[must_use]
    pub fn answers(path: &str) -> bool {
        [
            SessionAsked::PATH,
            Heartbeat::PATH,
            Tell::PATH,
            UsesTell::PATH,
            LogsTell::PATH,
            AttachAsked::PATH,
            LayerAsked::PATH,
            LayerRightAsked::PATH,
            TunnelAsked::PATH,
            Leave::PATH,
        ]
        .contains(&path)
    }

    /// Answers a call of a worker.
    ///
    /// # Errors
    /// The caller is no node of the cluster, has no such session, or the leadership is over.
    pub async fn answer(self: &Arc<Self>, call: Call) -> Result<Answer, Refusal> {
        let Caller::Member(caller) = call.caller else {
            return Err(Refusal::Denied("only nodes of the cluster may do that".to_owned()));
        };
        if self.leader.has_ended() {
            return Err(self.over());
        }
        match call.path() {
            SessionAsked::PATH => {
                // A leader that was replaced without its knowing would take from the worker what the next one has given.
                self.leader.read().await?;
                self.begin(&caller, &call.from, call.read()?)
            }
            Heartbeat::PATH => Answer::of(&self.beat(&caller, &call.read()?)?),
            Tell::PATH => Answer::of(&self.tell(caller.node, call.read()?).await?),
            UsesTell::PATH => Answer::of(&self.take_uses(caller.node, call.read()?)?),
            LogsTell::PATH => Answer::of(&self.take_logs(caller.node, call.read()?).await?),
            AttachAsked::PATH => Answer::of(&self.attach(caller.node, call.read()?).await?),
            LayerAsked::PATH => Answer::of(&self.find_layer(caller.node, call.read()?)?),
            LayerRightAsked::PATH => Answer::of(&self.layer_right(caller.node, &call.read()?)?),
            TunnelAsked::PATH => self.open(caller.node, &call.read_head()?),
            Leave::PATH => Answer::of(&self.leave(caller.node, &call.read()?)?),
            path => Err(Refusal::Invalid(format!("a dispatcher does not answer {path}"))),
        }
    }

    /// A session begins. What the worker knows of its tasks is taken in before the node is ready, so that nothing is decided about
    /// a node that is back as if its tasks were not.
    fn begin(
        self: &Arc<Self>,
        caller: &Identity,
        from: &str,
        asked: SessionAsked,
    ) -> Result<Answer, Refusal> {
        let node = caller.node;
        is_small(&asked.description)?;
        if let Some(there) = self.sessions.double(node, asked.process) {
            tracing::warn!(%node, here = from, there, "two machines use the keys of one node");
            return Err(Refusal::Invalid(texts::double(node, &there)));
        }
        let process = Process { number: asked.process, from: from.to_owned() };
        let registration = Registration::of(&asked, caller, from);
        let (tunnels, layers) = (asked.tunnels, asked.layers);
        let words = self.sorted(node, asked.words)?;
        self.counted.sessions.add(1);
        self.counted.words.add(words.taken.len());
        self.leader.note(words.taken);
        let session = self.leader.bits()();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let feeder = Feeder::new(Arc::clone(self), (node, session), sender);
        let bell = Arc::clone(&feeder.bell);
        let feeder = tokio::spawn(feeder.run()).abort_handle();
        self.sessions.begin(
            node,
            Session { id: session, process, bell, feeder, tunnels, layers },
            registration,
        );
        self.tunnels.end_others(node, session);
        // What has ended before the session was there has not seen it.
        if self.leader.has_ended() {
            self.sessions.clear();
            return Err(self.over());
        }
        if !self.is_node(node) {
            self.sessions.remove(node);
            return Err(Refusal::Denied(texts::removed(node)));
        }
        self.writer.add_ends(words.ends);
        self.writer.add_nodes([node]);
        Ok(Answer::Stream(receiver))
    }

    fn beat(&self, caller: &Identity, heartbeat: &Heartbeat) -> Result<HeartbeatTaken, Refusal> {
        let beat = self.sessions.beat(caller, heartbeat.session);
        let beat = beat.ok_or_else(|| self.no_session(caller.node))?;
        self.counted.heartbeats.add(1);
        if beat.news == News::Certificate {
            self.writer.add_nodes([caller.node]);
        }
        Ok(HeartbeatTaken { next: beat.period })
    }

    /// Takes news of tasks in. Ends are answered once they are in the store.
    async fn tell(&self, node: NodeId, told: Tell) -> Result<TellTaken, Refusal> {
        self.is_session(node, told.session)?;
        let mut words = self.sorted(node, told.words)?;
        self.counted.words.add(words.taken.len());
        self.leader.note(words.taken);
        let mut committed = words.settled;
        if Fault::EndForgotten.is_made() {
            committed.append(&mut words.ends);
        }
        if !words.ends.is_empty() {
            self.writer.add_ends(words.ends.clone());
            committed.extend(self.writer.committed(&self.leader, &words.ends).await);
        }
        Ok(TellTaken { committed: committed.into_iter().collect() })
    }

    fn take_uses(&self, node: NodeId, told: UsesTell) -> Result<UsesTaken, Refusal> {
        self.is_session(node, told.session)?;
        self.scaling.take(node, told.uses);
        Ok(UsesTaken {})
    }

    async fn take_logs(&self, node: NodeId, told: LogsTell) -> Result<LogsTaken, Refusal> {
        self.is_session(node, told.session)?;
        Ok(LogsTaken { go_on: self.take_lines(node, told).await })
    }

    fn leave(&self, node: NodeId, leave: &Leave) -> Result<Left, Refusal> {
        if !self.sessions.leave(node, leave.session) {
            return Err(self.no_session(node));
        }
        self.tunnels.lose(node);
        self.writer.add_nodes([node]);
        Ok(Left {})
    }

    fn sorted(&self, node: NodeId, words: Vec<(TaskId, Told)>) -> Result<Words, Refusal> {
        let sorted = self.leader.view(|view| view.node(node).map(|_| Words::sorted(view, node, words)));
        sorted.ok_or_else(|| Refusal::Denied(texts::removed(node)))
    }

    fn is_session(&self, node: NodeId, id: u128) -> Result<(), Refusal> {
        if self.sessions.has(node, id) { Ok(()) } else { Err(self.no_session(node)) }
    }

    fn no_session(&self, node: NodeId) -> Refusal {
        if self.is_node(node) { Refusal::NoSession } else { Refusal::Denied(texts::removed(node)) }
    }

    fn is_node(&self, node: NodeId) -> bool {
        self.leader.view(|view| view.node(node).is_some())
    }

    fn over(&self) -> Refusal {
        LeadError::NotLeader { leader: None }.into()
    }

    fn interests(&self) -> MutexGuard<'_, Interests> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the leadership is over: then all sessions end.
    async fn run(self: Arc<Self>, changes: Changes) {
        let work = async {
            tokio::join!(
                self.follow(changes),
                self.follow_renewals(),
                self.watch(),
                self.scale(),
                self.writer.run(&self.leader, &self.sessions),
            )
        };
        tokio::select! {
            biased;
            () = self.leader.ended() => {}
            _ = work => {}
        }
        self.sessions.clear();
        self.logs.clear();
        self.tunnels.clear();
        self.layers.clear();
    }

    /// Lets sessions know what has changed.
    async fn follow(&self, mut changes: Changes) {
        while let Some(wake) = changes.next().await {
            match wake {
                Wake::Committed(committed) => self.take_in(&committed.changes),
                Wake::Noted(tasks) => {
                    let rings = self.leader.view(|view| Rings::of_words(&self.interests(), view, &tasks));
                    self.sessions.ring(&rings);
                }
                Wake::Everything => self.look(),
            }
        }
    }

    fn take_in(&self, changes: &[Change]) {
        let mut rings = Rings::default();
        let lingers = self.has_lingering_tasks(changes);
        let interests = self.interests();
        changes.iter().for_each(|change| interests.touched_by(change, &mut rings));
        if lingers {
            interests.ring_networked(&mut rings);
        }
        drop(interests);
        for change in changes {
            match change.id() {
                Some(ObjectId::Node(node)) => self.take_in_node(node, change),
                Some(ObjectId::Service(service)) => self.scaling.take_in(service, change),
                Some(ObjectId::Cluster(_)) => self.leader.view(|view| self.sessions.set_period(view)),
                _ => {}
            }
        }
        self.sessions.ring(&rings);
    }

    /// Whether one of these changes is of a service that is in no network any more, while tasks of it are.
    fn has_lingering_tasks(&self, changes: &[Change]) -> bool {
        let services =
            changes.iter().filter_map(|change| match change.new.as_ref().or(change.old.as_ref()) {
                Some(Object::Service(service)) if !interests::names_networks(service) => Some(service.id),
                _ => None,
            });
        let lingers = |id| self.leader.view(|view| view.tasks_of(id).any(|task| !task.networks.is_empty()));
        services.into_iter().any(lingers)
    }

    fn take_in_node(&self, node: NodeId, change: &Change) {
        if change.old.is_none() {
            self.sessions.expect(node);
        }
        match &change.new {
            None => {
                self.sessions.remove(node);
                self.interests().remove(node);
                self.logs.lose(node);
                self.tunnels.lose(node);
            }
            Some(Object::Node(new)) if is_lost(new.status.state) => {
                self.logs.lose(node);
                self.tunnels.lose(node);
            }
            Some(_) => {}
        }
    }

    /// Looks at everything.
    fn look(&self) {
        let nodes = self.leader.view(|view| {
            self.logs.look(view);
            self.scaling.look_for(view);
            self.sessions.look(view)
        });
        self.writer.add_nodes(nodes);
        self.sessions.ring(&Rings { everyone: Topic::ALL.into(), ..Rings::default() });
    }

    /// Tells nodes when it is their turn to renew their certificates.
    async fn follow_renewals(&self) {
        let mut renewals = self.leader.renewals();
        let mut asked = Arc::<BTreeSet<NodeId>>::default();
        loop {
            let next = renewals.borrow_and_update().clone();
            for node in asked.symmetric_difference(&next) {
                self.sessions.ring_one(*node, Topic::Membership);
            }
            asked = next;
            if renewals.changed().await.is_err() {
                return;
            }
        }
    }

    /// The managers that raft does not hear.
    fn unreached(&self) -> Vec<NodeId> {
        let members = self.leader.members().into_iter();
        members.filter(|(_, it)| *it == Reachability::Unreachable).map(|(node, _)| node).collect()
    }

    /// Waits for heartbeats that don't come. When this manager itself was held up (it was stopped, its machine slept), what came
    /// meanwhile is still to be read: nobody is down for that.
    async fn watch(&self) {
        loop {
            let step = (self.sessions.period() / 2).min(LONGEST_STEP);
            let latest = Instant::now() + step;
            let planned = self.sessions.next_deadline().map_or(latest, |deadline| deadline.min(latest));
            sleep_until(planned).await;
            let late = Instant::now().saturating_duration_since(planned);
            if late > step {
                self.sessions.postpone(late);
                continue;
            }
            let silent = self.sessions.take_silent(&self.unreached());
            self.counted.silent.add(silent.len());
            self.writer.add_nodes(silent);
        }
    }
}

fn is_lost(state: NodeState) -> bool {
    matches!(state, NodeState::Down | NodeState::Disconnected)
}
