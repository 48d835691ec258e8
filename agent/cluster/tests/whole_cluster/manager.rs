//! The leader: one store, driven by the queue of reconcilers, with the dispatcher's part that commits ends and verdicts.

use std::collections::BTreeMap;
use std::time::Duration;

use ketch_cluster::assignment::{Assignment, AssignmentChanges, Held};
use ketch_cluster::id::{ClusterId, NodeId, TaskId};
use ketch_cluster::objects::cluster::{ClusterNetworking, RootCa};
use ketch_cluster::objects::node::NodeState;
use ketch_cluster::objects::{Cluster, ClusterSpec, Meta, Node, Task, TaskStatus, Version};
use ketch_cluster::reconcilers::{Key, Outcome, Reconcilers, Turn, Word};
use ketch_cluster::store::{Object, Store, StoreAction, StoreError};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::{Observed, Told, View};

use crate::checks::{Completions, Invariants, gates_open_in_order, higher_ones_preempt};
use crate::random::Random;

/// Three heartbeats.
const DOWN_AFTER: Duration = Duration::from_secs(6);

/// One of so many turns finds that somebody else was first.
const INTERFERENCE: u64 = 8;

pub(crate) struct Manager {
    pub(crate) store: Store,
    pub(crate) observed: Observed,
    pub(crate) queue: Reconcilers,
    pub(crate) now: Timestamp,
    pub(crate) random: Random,
    pub(crate) completions: Completions,
    /// Counts whatever could change an assignment.
    pub(crate) epoch: u64,
    /// The leader dies after so many more transactions.
    pub(crate) dies_after: Option<u64>,
    sessions: BTreeMap<NodeId, Held>,
    /// When each node was last heard of.
    heard: BTreeMap<NodeId, Timestamp>,
}

impl Manager {
    pub(crate) fn new(seed: u64) -> Self {
        let store = Store::default();
        let observed = Observed::default();
        let queue = Reconcilers::of_leader(&View::new(&store, &observed));
        let mut it = Self {
            store,
            observed,
            queue,
            now: Timestamp::default().after(Duration::from_secs(1_000_000)),
            random: Random(seed),
            completions: Completions::default(),
            epoch: 0,
            dies_after: None,
            sessions: BTreeMap::new(),
            heard: BTreeMap::new(),
        };
        let cluster = Cluster {
            id: ClusterId::of(1),
            meta: Meta::new(it.now),
            spec: ClusterSpec::default(),
            networking: ClusterNetworking::default(),
            root_ca: RootCa::default(),
            shut_out: BTreeMap::new(),
            unlock_key: None,
            data_keys: Vec::new(),
        };
        it.commit(&[StoreAction::Create(cluster.into())]).unwrap();
        it
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::new(&self.store, &self.observed)
    }

    /// A transaction through the log, with the invariants after it.
    pub(crate) fn commit(&mut self, actions: &[StoreAction]) -> Result<(), StoreError> {
        let next = Version(self.store.version().0 + 1);
        let changes = self.store.apply(next, actions)?;
        for change in &changes {
            if let (Some(Object::Task(task)), None) = (&change.old, &change.new) {
                self.observed.forget(task.id);
            }
        }
        self.epoch += 1;
        self.queue.committed(&View::new(&self.store, &self.observed), &changes, self.now);
        self.completions.note(&self.store, &changes);
        gates_open_in_order(&self.view(), &changes);
        higher_ones_preempt(&self.view(), &changes);
        Invariants { view: self.view() }.hold();
        Ok(())
    }

    /// Runs reconcilers until none wants anything more now.
    pub(crate) fn reconcile(&mut self) {
        for _ in 0..3000 {
            let view = View::new(&self.store, &self.observed);
            let random = &mut self.random;
            let Some(turn) = self.queue.next(&view, self.now, &mut || random.bits()) else {
                self.wants_nothing_more();
                return;
            };
            if turn.key == Key::Scheduler {
                let anew = turn.key.run(&view, self.now, &mut || 0).actions;
                assert!(
                    turn.parts().flatten().eq(&anew),
                    "what it keeps decides nothing: {turn:#?}, {anew:#?}"
                );
            }
            let outcome = self.propose(&turn);
            if self.dies_after == Some(0) {
                self.change_leader();
            } else {
                self.queue.settle(turn.key, outcome, self.now);
            }
        }
        panic!("the reconcilers never come to rest");
    }

    /// The turn's actions, in parts of any size.
    fn propose(&mut self, turn: &Turn) -> Outcome {
        let interferes = self.random.below(INTERFERENCE) == 0 && self.interfere(turn);
        for part in turn.parts() {
            let size = usize::try_from(self.random.below(6)).unwrap() + 1;
            for split in part.chunks(if size == 6 { part.len() } else { size }) {
                if let Err(error) = self.commit(split) {
                    assert!(interferes, "{:?} was refused: {error}: {:#?}", turn.key, split);
                    return Outcome::Refused;
                }
                if let Some(left) = &mut self.dies_after {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        return Outcome::Committed;
                    }
                }
            }
        }
        Outcome::Committed
    }

    /// Somebody else writes one of the objects first.
    fn interfere(&mut self, turn: &Turn) -> bool {
        let updated = |action: &StoreAction| match action {
            StoreAction::Update(object) => Some(object.clone().id()),
            _ => None,
        };
        let Some(id) = turn.parts().flatten().filter_map(updated).last() else { return false };
        let object = self.store.object(id).unwrap();
        self.commit(&[StoreAction::Update(object)]).unwrap();
        true
    }

    /// A look at everything wants no more than the queue does.
    fn wants_nothing_more(&mut self) {
        let next = self.queue.next_at(self.now);
        if next.is_some_and(|next| next < self.now.after(Duration::from_secs(1))) {
            return;
        }
        let view = View::new(&self.store, &self.observed);
        for key in Key::all(&view) {
            let random = &mut self.random;
            let mut look = |at| key.run(&view, at, &mut || random.bits());
            let wanted = look(self.now);
            assert_eq!(wanted.actions, [], "{key:?} was not woken");
            // Who asks to look again before the queue does may find nothing then: a task whose delay is over has a reason to wait that
            // is told anew in ten seconds, if it is another one.
            let mut again = wanted.wake_at;
            while let Some(at) = again.filter(|at| next.is_none_or(|next| *at < next)) {
                let then = look(at);
                assert_eq!(then.actions, [], "{key:?} wants to look again at {at:?}, the queue at {next:?}");
                again = then.wake_at.filter(|later| *later > at);
            }
        }
    }

    /// Another manager leads. It has heard nothing yet, not even which nodes are there.
    pub(crate) fn change_leader(&mut self) {
        self.dies_after = None;
        self.observed = Observed::default();
        self.sessions.clear();
        self.epoch += 1;
        self.queue = Reconcilers::of_leader(&View::new(&self.store, &self.observed));
        for node in self.store.nodes().map(|node| node.id).collect::<Vec<_>>() {
            self.heard.insert(node, self.now);
            if self.store.node(node).unwrap().status.state == NodeState::Ready {
                self.judge(node, NodeState::Unknown);
            }
        }
    }

    /// The nodes that a session is open with.
    pub(crate) fn has_session(&self, node: NodeId) -> bool {
        self.sessions.contains_key(&node)
    }

    /// A worker begins a session.
    pub(crate) fn register(&mut self, node: NodeId) {
        if self.store.node(node).is_none() {
            return;
        }
        self.sessions.insert(node, Held::default());
        self.heard.insert(node, self.now);
        if self.store.node(node).unwrap().status.state != NodeState::Ready {
            self.judge(node, NodeState::Ready);
        }
    }

    /// Its connection breaks.
    pub(crate) fn lose(&mut self, node: NodeId) {
        if self.sessions.remove(&node).is_some() {
            self.heard.insert(node, self.now);
        }
    }

    pub(crate) fn judge(&mut self, id: NodeId, state: NodeState) {
        let Some(node) = self.store.node(id) else { return };
        let mut node = Node::clone(node);
        node.status.state = state;
        node.status.since = self.now;
        self.commit(&[StoreAction::Update(node.into())]).unwrap();
    }

    /// Nodes that are silent for too long are down.
    pub(crate) fn judge_silent(&mut self) {
        let is_late = |node: &Node| {
            matches!(node.status.state, NodeState::Ready | NodeState::Unknown)
                && !self.has_session(node.id)
                && self.late_at(node.id) <= self.now
        };
        let late: Vec<_> = self.store.nodes().filter(|node| is_late(node)).map(|node| node.id).collect();
        late.into_iter().for_each(|node| self.judge(node, NodeState::Down));
    }

    fn late_at(&self, node: NodeId) -> Timestamp {
        self.heard.get(&node).copied().unwrap_or(self.now).after(DOWN_AFTER)
    }

    /// When something is to be done here although nobody says anything.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        let silent = self.store.nodes().filter(|node| {
            matches!(node.status.state, NodeState::Ready | NodeState::Unknown) && !self.has_session(node.id)
        });
        silent.map(|node| self.late_at(node.id)).chain(self.queue.next_at(self.now)).min()
    }

    /// A worker's word before the end.
    pub(crate) fn hear(&mut self, id: TaskId, status: &TaskStatus) {
        let Some(task) = self.store.task(id).cloned() else { return };
        let before = self.view().status(&task).clone();
        let told = Told {
            state: status.state,
            state_for: self.now.since(status.since),
            running_for: status.running_since.map(|moment| self.now.since(moment)),
            ..Told::default()
        };
        if self.observed.note(id, told, self.now) {
            self.epoch += 1;
            let view = View::new(&self.store, &self.observed);
            let after = view.status(&task);
            self.queue.noted(&view, &Word { task: &task, before: &before, after }, self.now);
            Invariants { view }.hold();
        }
    }

    /// The end of a task, as its worker tells it: committed, unless the log knows one already.
    pub(crate) fn end(&mut self, id: TaskId, status: &TaskStatus) {
        let Some(task) = self.store.task(id).filter(|task| !task.status.state.is_terminal()) else { return };
        let task = Task { status: status.clone(), ..Task::clone(task) };
        self.commit(&[StoreAction::Update(task.into())]).unwrap();
    }

    /// What the worker is to be sent, if anything; and all that it is to have then.
    pub(crate) fn send(&mut self, node: NodeId) -> Option<(AssignmentChanges, Assignment)> {
        let view = View::new(&self.store, &self.observed);
        let session = self.sessions.get_mut(&node)?;
        let assignment = Assignment::of(&view, node);
        let changes = session.lead_to(&assignment, usize::MAX).pop();
        changes.map(|changes| (changes, assignment))
    }
}
