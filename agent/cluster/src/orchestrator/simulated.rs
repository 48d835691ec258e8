//! A cluster for the orchestrators' tests: a store, workers that obey, a scheduler that takes the emptiest node.
//!
//! Every commit of an orchestrator is checked against what must hold whatever happens: see `checks.rs`.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{reap, reconcile_node, reconcile_service};
use crate::constraint::Constraints;
use crate::fixture;
use crate::id::{NodeId, ServiceId, TaskId};
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{UpdateState, UpdateStatus};
use crate::objects::task::{Gate, TaskRuntime};
use crate::objects::{Cluster, Node, Service, ServiceSpec, Task, TaskState, TaskStatus, Version};
use crate::reconciled::Reconciled;
use crate::store::{Object, Store};
use crate::time::Timestamp;
use crate::view::{Observed, Told, View};

/// Its tasks end as soon as they start.
pub(super) const BROKEN: &str = "broken";
/// Its tasks run, but end at the workers' next step.
pub(super) const SHORT_LIVED: &str = "short-lived";

pub(super) struct Simulated {
    pub(super) store: Store,
    pub(super) observed: Observed,
    /// What workers know of their tasks.
    words: BTreeMap<TaskId, Word>,
    /// Whether the leader has still to be told.
    is_new: bool,
    /// By the leader's clock.
    pub(super) now: Timestamp,
    /// How much time has passed, whatever the clocks say.
    pub(super) passed: Duration,
    pub(super) wake_at: Option<Timestamp>,
    next_bits: u128,
    /// Nodes that took the place of those of that number.
    nodes: BTreeMap<u128, NodeId>,
    /// Slots that an update took down and that have not landed since.
    down: BTreeMap<SlotKey, Timestamp>,
    /// When the attempts of each slot and spec version were made.
    attempts: BTreeMap<(SlotKey, Version), Vec<Timestamp>>,
}

/// A task's state as its worker knows it: since when, and since when it runs, in time passed.
#[derive(Debug, Clone, Copy)]
struct Word {
    state: TaskState,
    since: Duration,
    ran: Option<Duration>,
}

type SlotKey = (ServiceId, u64, Option<NodeId>);

fn slot_key(service: &Service, task: &Task) -> SlotKey {
    (service.id, task.slot, task.node.filter(|_| service.spec.mode.is_bound_to_nodes()))
}

impl Simulated {
    pub(super) fn new(nodes: u128, service: Service) -> Self {
        let mut objects: Vec<Object> = vec![fixture::cluster().into()];
        objects.extend((1..=nodes).map(|number| fixture::node(number).into()));
        objects.push(service.into());
        Self {
            store: fixture::store(objects),
            observed: Observed::default(),
            words: BTreeMap::new(),
            is_new: false,
            now: fixture::at(1000),
            passed: Duration::ZERO,
            wake_at: None,
            next_bits: 1000,
            nodes: BTreeMap::new(),
            down: BTreeMap::new(),
            attempts: BTreeMap::new(),
        }
    }

    pub(super) fn service(&self) -> &Service {
        self.store.services().next().unwrap()
    }

    pub(super) fn view(&self) -> View<'_> {
        View::new(&self.store, &self.observed)
    }

    pub(super) fn tasks(&self) -> Vec<Task> {
        self.store.tasks().map(|task| Task::clone(task)).collect()
    }

    /// The tasks in short, for a failed test.
    pub(super) fn summary(&self) -> Vec<String> {
        let line = |task: Task| {
            let status = self.view().status(&task).clone();
            let image = task.spec.container().map(|container| container.image.clone());
            format!(
                "{} slot {} node {:?} {image:?} v{} {:?} -> {:?}, replaces {:?}, start after {:?}, made {:?}",
                task.id,
                task.slot,
                task.node,
                task.spec_version.0,
                status.state,
                task.desired_state,
                task.replaces,
                task.start_after,
                task.meta.created_at
            )
        };
        let of_service = format!(
            "{:?} {:?} v{}",
            self.service().spec.mode,
            self.service().update_status,
            self.service().spec_version.0
        );
        std::iter::once(of_service).chain(self.tasks().into_iter().map(line)).collect()
    }

    /// Those that are wanted and run.
    pub(super) fn running(&self) -> Vec<Task> {
        let runs = |task: &Task| {
            task.desired_state == TaskState::Running && self.view().state(task) == TaskState::Running
        };
        self.tasks().into_iter().filter(runs).collect()
    }

    /// Those that a worker has and that have not ended, asked to stop or not.
    pub(super) fn live(&self) -> Vec<Task> {
        let is_live = |task: &Task| {
            let state = self.view().state(task);
            state >= TaskState::Assigned && !state.is_terminal()
        };
        self.tasks().into_iter().filter(is_live).collect()
    }

    pub(super) fn update_state(&self) -> Option<UpdateState> {
        self.service().update_status.as_ref().map(|status| status.state)
    }

    /// Writes an object as somebody else than the orchestrators does.
    pub(super) fn write(&mut self, object: impl Into<Object>) {
        let mut wanted = Reconciled::default();
        wanted.update(object);
        fixture::apply(&mut self.store, wanted);
    }

    /// `docker service update`: the spec before is kept, what the last update came to is forgotten.
    pub(super) fn update_spec(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        let mut service = self.service().clone();
        service.previous_spec = Some(service.spec.clone());
        change(&mut service.spec);
        service.update_status = None;
        if let Some(job) = &mut service.job {
            job.iteration += 1;
        }
        self.write(service);
    }

    pub(super) fn set_image(&mut self, image: &str) {
        let image = image.to_owned();
        self.update_spec(|spec| {
            let mut task = crate::objects::TaskSpec::clone(&spec.task);
            if let TaskRuntime::Container(container) = &mut task.runtime {
                container.image = image;
            }
            spec.task = task.into();
        });
    }

    /// `docker service update --with-registry-auth`, and nothing else.
    pub(super) fn set_credentials(&mut self, credentials: &str) {
        let credentials = Some(credentials.to_owned().into());
        self.update_spec(|spec| {
            let mut task = crate::objects::TaskSpec::clone(&spec.task);
            if let TaskRuntime::Container(container) = &mut task.runtime {
                container.registry_auth = credentials;
            }
            spec.task = task.into();
        });
    }

    pub(super) fn set_history(&mut self, limit: i64) {
        let mut cluster = Cluster::clone(self.store.cluster().unwrap());
        cluster.spec.task_history_limit = limit;
        self.write(cluster);
    }

    /// `docker service rollback`.
    pub(super) fn roll_back(&mut self) {
        let mut service = self.service().clone();
        let Some(previous) = service.previous_spec.take() else { return };
        service.previous_spec = Some(std::mem::replace(&mut service.spec, previous));
        service.update_status = Some(UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: self.now,
            completed_at: None,
            failed_before: 0,
            message: super::texts::ROLLBACK_REQUESTED.to_owned(),
            slots: 0,
        });
        self.write(service);
    }

    pub(super) fn change_node(&mut self, number: u128, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.store.node(self.node_id(number)) else { return };
        let mut node = Node::clone(node);
        let state = node.status.state;
        change(&mut node);
        if node.status.state != state {
            node.status.since = self.now;
        }
        self.write(node);
    }

    /// `docker node rm --force`, and a new node joins: the same number, another id.
    pub(super) fn exchange_node(&mut self, number: u128) {
        let old = self.node_id(number);
        let id = NodeId::of(old.bits() + 100);
        let mut wanted = Reconciled::default();
        wanted.remove(old);
        wanted.create(Node { id, ..fixture::node(number) });
        fixture::apply(&mut self.store, wanted);
        self.nodes.insert(number, id);
        self.attempts.retain(|(slot, _), _| slot.2 != Some(old));
        self.down.retain(|slot, _| slot.2 != Some(old));
    }

    fn node_id(&self, number: u128) -> NodeId {
        self.nodes.get(&number).copied().unwrap_or(NodeId::of(number))
    }

    pub(super) fn set_node_state(&mut self, number: u128, state: NodeState) {
        self.change_node(number, |node| node.status.state = state);
    }

    pub(super) fn set_availability(&mut self, number: u128, availability: Availability) {
        self.change_node(number, |node| node.spec.availability = availability);
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.pass_by(Duration::from_secs(seconds));
    }

    fn pass_by(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.passed = self.passed.saturating_add(span);
    }

    /// Another manager leads: it has the store, and nothing of what workers have said.
    pub(super) fn change_leader(&mut self) {
        self.observed = Observed::default();
        self.is_new = true;
    }

    /// The same, and its clock is that far behind (negative: ahead of) the one before it.
    pub(super) fn change_leader_behind(&mut self, seconds: i64) {
        self.change_leader();
        if seconds != 0 {
            // A window of time is measured by one clock.
            self.attempts.clear();
        }
        let span = Duration::from_secs(seconds.unsigned_abs());
        self.now = if seconds < 0 { self.now.after(span) } else { self.now.before(span) };
    }

    /// All workers tell a new leader of their tasks.
    fn hear(&mut self) {
        if std::mem::take(&mut self.is_new) {
            self.words.keys().copied().collect::<Vec<_>>().into_iter().for_each(|task| self.tell(task));
        }
    }

    fn tell(&mut self, task: TaskId) {
        let Some(word) = self.words.get(&task) else { return };
        let age = |since: Duration| self.passed.saturating_sub(since);
        let told = Told {
            state: word.state,
            state_for: age(word.since),
            running_for: word.ran.map(age),
            ..Told::default()
        };
        self.observed.note(task, told, self.now);
    }

    /// A task comes to that state, by a committed word of its worker.
    pub(super) fn set_state(&mut self, id: TaskId, state: TaskState) {
        self.hear();
        let ran = self.words.get(&id).and_then(|word| word.ran);
        let ran = ran.or((state == TaskState::Running).then_some(self.passed));
        self.words.insert(id, Word { state, since: self.passed, ran });
        self.tell(id);
        if state.is_terminal() {
            let mut task = Task::clone(self.store.task(id).unwrap());
            task.status = self.observed.status(id).unwrap().clone();
            self.write(task);
        }
        self.forget_landed();
    }

    /// Runs the orchestrators and the scheduler until none wants anything more.
    pub(super) fn settle(&mut self) {
        for _ in 0..500 {
            self.wake_at = None;
            if !self.reconcile_once() {
                return;
            }
        }
        panic!("the orchestrators never come to rest: {:#?}", self.summary());
    }

    fn reconcile_once(&mut self) -> bool {
        let mut acted = false;
        let services: BTreeSet<ServiceId> = self
            .store
            .services()
            .map(|service| service.id)
            .chain(self.store.tasks().filter_map(|task| task.service))
            .collect();
        for service in services {
            let mut bits = fixture::counter(self.next_bits);
            let wanted = reconcile_service(&self.view(), service, self.now, &mut bits);
            self.next_bits = bits();
            acted |= self.commit(wanted);
            let reaped = reap(&self.view(), service, self.now);
            acted |= self.commit(reaped);
        }
        let nodes: BTreeSet<NodeId> = self
            .store
            .nodes()
            .map(|node| node.id)
            .chain(self.store.tasks().filter_map(|task| task.node))
            .collect();
        for node in nodes {
            let wanted = reconcile_node(&self.view(), node, self.now);
            acted |= self.commit(wanted);
        }
        acted | self.schedule()
    }

    fn commit(&mut self, wanted: Reconciled) -> bool {
        self.wake_at = self.wake_at.into_iter().chain(wanted.wake_at).min();
        if wanted.actions.is_empty() {
            return false;
        }
        // Each action as a transaction of its own: the actions are valid in any split.
        for action in wanted.actions {
            self.note(&action);
            let one = Reconciled { actions: vec![action], wake_at: None };
            fixture::apply(&mut self.store, one);
        }
        self.check();
        true
    }

    /// A task without a node goes to the emptiest one that it may run on.
    fn schedule(&mut self) -> bool {
        let mut acted = false;
        for task in self.tasks() {
            let is_due = task.status.state < TaskState::Assigned
                && task.gate == Gate::Open
                && task.desired_state < TaskState::Shutdown;
            let Some(node) = is_due.then(|| self.node_for(&task)).flatten() else { continue };
            let status = TaskStatus { state: TaskState::Assigned, since: self.now, ..task.status.clone() };
            self.write(Task { node: Some(node), status, ..task });
            acted = true;
        }
        acted
    }

    fn node_for(&self, task: &Task) -> Option<NodeId> {
        let constraints = Constraints::parse(&task.spec.placement.constraints).unwrap();
        let is_free = |node: &&std::sync::Arc<Node>| {
            node.status.state == NodeState::Ready
                && node.spec.availability == Availability::Active
                && constraints.allow(node)
                && task.node.is_none_or(|own| own == node.id)
        };
        let used = |node: NodeId| {
            self.store.tasks_on(node).filter(|task| task.desired_state < TaskState::Shutdown).count()
        };
        let promised = task.promised.as_ref().map(|it| it.node);
        let free: Vec<_> = self.store.nodes().filter(is_free).map(|node| node.id).collect();
        let promised = promised.filter(|node| free.contains(node));
        promised.or_else(|| free.into_iter().min_by_key(|node| used(*node)))
    }

    /// One step of every worker that is there: each task goes one state on. Whether any did.
    pub(super) fn work(&mut self) -> bool {
        self.hear();
        let mut moved = false;
        for task in self.tasks() {
            let node = task.node.and_then(|node| self.store.node(node));
            let is_there = node.is_some_and(|node| node.status.state == NodeState::Ready);
            let state = self.view().state(&task);
            let is_at_work = is_there && state >= TaskState::Assigned && !state.is_terminal();
            if let Some(next) = next_state(&task, state).filter(|_| is_at_work) {
                self.set_state(task.id, next);
                moved = true;
            }
        }
        moved
    }

    /// Lets time pass, with all at work, until nothing is to be done any more, or for so many steps.
    pub(super) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            let before = self.store.version();
            // A new leader that has heard nobody may want nothing, and have nothing to wait for.
            self.hear();
            self.settle();
            let moved = self.work() || self.store.version() != before;
            match self.wake_at {
                _ if moved => self.pass(1),
                Some(moment) => self.pass_by(moment.since(self.now)),
                None => break,
            }
        }
        self.settle();
    }
}

fn next_state(task: &Task, state: TaskState) -> Option<TaskState> {
    let image = task.spec.container().map(|container| container.image.as_str());
    let held = task.desired_state == TaskState::Ready;
    match state {
        _ if task.desired_state >= TaskState::Shutdown => Some(TaskState::Shutdown),
        TaskState::Assigned => Some(TaskState::Preparing),
        TaskState::Preparing => Some(TaskState::Ready),
        TaskState::Ready if held => None,
        TaskState::Ready if image == Some(BROKEN) => Some(TaskState::Failed),
        TaskState::Ready => Some(TaskState::Running),
        TaskState::Running if image == Some(SHORT_LIVED) => Some(TaskState::Failed),
        TaskState::Running if task.desired_state == TaskState::Complete => Some(TaskState::Complete),
        _ => None,
    }
}
