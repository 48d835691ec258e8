//! The scheduler by itself: no raft, no orchestrators, one store in memory.
//!
//! The same services are placed on three sizes of cluster: so the cost of a placement grows by the nodes alone, and not by what the
//! processor's caches hold of the tasks. A cluster is filled from empty, then nodes go and come: what they had is to be placed
//! elsewhere. Times are the thread's own on its processor, of what the leader calls of the scheduler and nothing else; committing is
//! told beside.

use std::time::Duration;

use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::node::NodeState;
use ketch_cluster::objects::{Node, Task, TaskState, Version};
use ketch_cluster::reconcilers::MOST_ACTIONS;
use ketch_cluster::scheduler::Scheduler;
use ketch_cluster::store::{Object, Store, StoreAction};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::{Observed, View};

use crate::meter::{resident, sample, thread_time};
use crate::random::Random;
use crate::workload::{Workload, waiting};
use crate::{Extent, Failure};

/// Nodes that go in a round of a hundred, and in how many rounds.
const OF_A_HUNDRED: usize = 2;
const ROUNDS: usize = 10;
const SEED: u64 = 0;

/// How much of it.
struct Plan {
    sizes: [usize; 3],
    tasks: usize,
}

const WHOLE: Plan = Plan { sizes: [1_000, 3_000, 10_000], tasks: 1_000_000 };
const QUICK: Plan = Plan { sizes: [100, 300, 1_000], tasks: 100_000 };

/// Of all sizes, or of the ones that are given.
pub(crate) fn measure(extent: Extent, sizes: &[usize]) -> Result<(), Failure> {
    let plan = if extent == Extent::Quick { &QUICK } else { &WHOLE };
    for nodes in if sizes.is_empty() { &plan.sizes } else { sizes } {
        Stage::new(*nodes, plan.tasks)?.measure()?;
    }
    Ok(())
}

/// A cluster under way.
struct Stage {
    workload: Workload,
    store: Store,
    scheduler: Scheduler,
    random: Random,
    now: Timestamp,
    /// Time of the scheduler, of what was committed since it was last asked for.
    learning: Duration,
    committing: Duration,
    committed: usize,
    /// Before there was anything.
    base: f64,
}

/// What the scheduler has done, and what for.
#[derive(Debug, Default)]
struct Work {
    placed: usize,
    waiting: usize,
    time: Duration,
}

impl Work {
    fn rate(&self) -> f64 {
        number(self.placed) / self.time.as_secs_f64()
    }

    fn nanoseconds(&self) -> f64 {
        self.time.as_secs_f64() * 1e9 / number(self.placed)
    }
}

#[allow(clippy::cast_precision_loss, reason = "millions")]
fn number(count: usize) -> f64 {
    count as f64
}

impl Stage {
    fn new(nodes: usize, tasks: usize) -> Result<Self, Failure> {
        let base = resident();
        let workload = Workload::new(nodes, tasks, SEED);
        let random = Random::new(SEED ^ 0x5ca1e);
        let mut stage = Self {
            workload,
            store: Store::default(),
            scheduler: Scheduler::default(),
            random,
            now: Timestamp::default(),
            learning: Duration::ZERO,
            committing: Duration::ZERO,
            committed: 0,
            base,
        };
        let ground: Vec<StoreAction> = stage.workload.ground().map(StoreAction::Create).collect();
        stage.commit(&ground)?;
        let tasks = std::mem::take(&mut stage.workload.tasks);
        let written: Vec<StoreAction> =
            tasks.into_iter().map(|task| StoreAction::Create(task.into())).collect();
        stage.commit(&written)?;
        Ok(stage)
    }

    fn measure(mut self) -> Result<(), Failure> {
        let nodes = self.workload.nodes.len();
        // Nothing of the nodes is known before the first pass.
        let before = resident();
        let filled = self.schedule()?;
        sample(
            &format!("scheduler, {nodes} nodes, placements a second of a processor, filling"),
            filled.rate(),
        );
        sample(&format!("scheduler, {nodes} nodes, ns for each placement, filling"), filled.nanoseconds());
        sample(&format!("scheduler, {nodes} nodes, services"), number(self.workload.services.len()));
        sample(&format!("scheduler, {nodes} nodes, placed"), number(filled.placed));
        sample(&format!("scheduler, {nodes} nodes, left waiting"), number(filled.waiting));
        sample(&format!("scheduler, {nodes} nodes, reserved CPU, part"), self.reserved());
        let mut churn = Work::default();
        let mut away = Vec::new();
        for _ in 0..ROUNDS {
            away = self.go_and_come(&away)?;
            let round = self.schedule()?;
            churn.placed += round.placed;
            churn.time += round.time;
        }
        sample(
            &format!("scheduler, {nodes} nodes, placements a second of a processor, nodes going"),
            churn.rate(),
        );
        sample(&format!("scheduler, {nodes} nodes, ns for each placement, nodes going"), churn.nanoseconds());
        let committing = number(self.committed) / self.committing.as_secs_f64();
        sample(&format!("scheduler, {nodes} nodes, actions committed a second of a processor"), committing);
        sample(&format!("scheduler, {nodes} nodes, store, MiB"), before - self.base);
        sample(&format!("scheduler, {nodes} nodes, all after it, MiB"), resident() - self.base);
        Ok(())
    }

    /// One pass, as the leader's queue has it: what a pass has placed wakes no other one.
    fn schedule(&mut self) -> Result<Work, Failure> {
        let observed = Observed::default();
        let began = thread_time();
        let wanted = self.scheduler.schedule(&View::new(&self.store, &observed), self.now);
        let mut time = thread_time() - began + std::mem::take(&mut self.learning);
        let placed = wanted.actions.iter().filter(|action| is_placed(action)).count();
        self.commit(&wanted.actions)?;
        // It learns of what it has placed.
        time += std::mem::take(&mut self.learning);
        Ok(Work { placed, waiting: self.store.tasks_pending().count(), time })
    }

    /// In parts, as the leader does.
    fn commit(&mut self, actions: &[StoreAction]) -> Result<(), Failure> {
        for part in actions.chunks(MOST_ACTIONS) {
            let version = Version(self.store.version().0 + 1);
            let began = thread_time();
            let changes = self.store.apply(version, part)?;
            let applied = thread_time();
            self.scheduler.committed(&changes);
            self.learning += thread_time() - applied;
            self.committing += applied - began;
        }
        self.committed += actions.len();
        Ok(())
    }

    /// Some nodes go down, and what they ran is asked for elsewhere; those that were away are back, without it.
    fn go_and_come(&mut self, away: &[NodeId]) -> Result<Vec<NodeId>, Failure> {
        self.now = Timestamp(self.now.0 + 1_000_000_000);
        let count = (self.workload.nodes.len() * OF_A_HUNDRED / 100).max(1);
        let ready: Vec<NodeId> =
            self.store.nodes().map(|node| node.id).filter(|id| !away.contains(id)).collect();
        let mut going: Vec<NodeId> = (0..count).map(|_| ready[self.random.below(ready.len())]).collect();
        going.sort_unstable();
        going.dedup();
        let mut actions = Vec::new();
        let mut removed = Vec::new();
        for node in away {
            actions.extend(self.turned(*node, NodeState::Ready));
            for task in self.store.tasks_on(*node).filter(|task| task.desired_state == TaskState::Shutdown) {
                let mut ended = Task::clone(task);
                ended.status.state = TaskState::Shutdown;
                actions.push(StoreAction::Update(ended.into()));
                removed.push(StoreAction::Remove(task.id.into()));
            }
        }
        for node in &going {
            actions.extend(self.turned(*node, NodeState::Down));
            let lost: Vec<_> = self.store.tasks_on(*node).cloned().collect();
            for task in lost {
                let id = TaskId::of(self.random.id());
                let service =
                    task.service.and_then(|id| self.store.service(id)).ok_or("a task without a service")?;
                actions.push(StoreAction::Create(waiting(service, task.slot, (id, self.now)).into()));
                let stopped = Task { desired_state: TaskState::Shutdown, ..Task::clone(&task) };
                actions.push(StoreAction::Update(stopped.into()));
            }
        }
        self.commit(&actions)?;
        self.commit(&removed)?;
        Ok(going)
    }

    fn turned(&self, node: NodeId, state: NodeState) -> Option<StoreAction> {
        let mut node = Node::clone(self.store.node(node)?);
        node.status.state = state;
        Some(StoreAction::Update(node.into()))
    }

    /// The part of all nodes' CPUs that is reserved by tasks that have a place.
    fn reserved(&self) -> f64 {
        let all: u64 = self
            .store
            .nodes()
            .filter_map(|node| node.description.as_ref())
            .map(|it| it.resources.nano_cpus)
            .sum();
        let placed = self.store.tasks().filter(|task| task.status.state == TaskState::Assigned);
        let reserved: u64 = placed.map(|task| task.spec.resources.reservations.nano_cpus).sum();
        #[allow(clippy::cast_precision_loss, reason = "a part of it is wanted")]
        let part = reserved as f64 / all as f64;
        part
    }
}

fn is_placed(action: &StoreAction) -> bool {
    matches!(action, StoreAction::Update(Object::Task(task)) if task.status.state == TaskState::Assigned)
}
