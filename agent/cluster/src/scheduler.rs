//! The scheduler: which node each task runs on, or why none can have it. `design/scheduler.md` has the whole of it.
//!
//! It looks at pending tasks (the allocator has given them their addresses), and either assigns one or writes into its
//! status why it waits. It moves no task that has a node; where services ask for priorities, it asks tasks of lower ones to stop
//! (`preempt`). The manager calls it when a task or a node has changed, and when a pass has asked for it: recent failures, which only
//! order nodes, and what priorities bring with them hang on time.
//!
//! [`Scheduler`] keeps its table of the nodes from one pass to the next, which decides nothing: [`schedule`] has none, and says
//! the same.

mod batch;
#[cfg(test)]
mod clusters;
mod effort;
mod filter;
mod fitting;
mod generic;
#[cfg(test)]
mod kept;
mod layout;
mod members;
mod nodes;
mod order;
mod partition;
mod pipeline;
mod platform;
mod preempt;
mod presence;
mod promise;
#[cfg(test)]
mod reference;
pub mod refusals;
mod room;
mod spread;
mod table;
#[cfg(test)]
mod tests;
mod vacated;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::id::NodeId;
use crate::objects::decision::{Decision, Placed};
use crate::objects::{Meta, Task, TaskState, TaskStatus};
use crate::reconciled::Reconciled;
use crate::reconcilers::Word;
use crate::store::Change;
use crate::time::Timestamp;
use crate::view::View;
use batch::{Batch, batches};
use filter::Filter;
pub(crate) use fitting::Fitting;
use nodes::has_failed;
use pipeline::Pipeline;
use preempt::Step;
use room::Put;
pub(crate) use room::host_of;
use spread::Candidates;
use table::NodeTable;
use vacated::Vacated;

/// SwarmKit's words, which clients show beside the state.
static ASSIGNED: LazyLock<Arc<str>> = LazyLock::new(|| "scheduler assigned task to node".into());
static CONFIRMED: LazyLock<Arc<str>> =
    LazyLock::new(|| "scheduler confirmed task can run on preassigned node".into());

/// How far back failures count against a node.
pub(crate) const RECENT: Duration = Duration::from_secs(5 * 60);

/// From so many recent failures of a service on, a node is its last choice.
pub(crate) const TOO_MANY: u32 = 5;

/// How long a reason may be out of date. It counts nodes, so that each node which comes, goes or fills up alters it; to write it
/// each time were a write for each task that waits.
const REASON_HOLDS: Duration = Duration::from_secs(10);

/// Places every pending task that a node can have, and says of each other one why it stays pending.
#[must_use]
pub fn schedule(view: &View<'_>, now: Timestamp) -> Reconciled {
    Scheduler::default().schedule(view, now)
}

/// The same, pass after pass, without a look at every task on every node each time. Who keeps one tells it everything that
/// changes: a pass may be called once all changes of the one before are told, or it was refused.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    table: NodeTable,
}

impl Scheduler {
    /// Learns of committed changes, in their order.
    pub fn committed(&mut self, changes: &[Change]) {
        self.table.committed(changes);
    }

    /// Learns of a worker's word, after it was noted.
    pub fn noted(&mut self, word: &Word<'_>) {
        self.table.noted(word);
    }

    /// See [`schedule`].
    #[must_use]
    pub fn schedule(&mut self, view: &View<'_>, now: Timestamp) -> Reconciled {
        let mut batches = batches(view);
        if batches.is_empty() {
            return Reconciled::default();
        }
        preempt::highest_first(view, &mut batches);
        self.table.refresh(view);
        let vacated = Vacated::of(view, self.table.lately_failed(view, now));
        let (table, wanted, put) = (&mut self.table, Reconciled::default(), Put::default());
        Pass { view, now, table, wanted, put, vacated }.run(&mut batches)
    }
}

struct Pass<'v> {
    view: &'v View<'v>,
    now: Timestamp,
    table: &'v mut NodeTable,
    wanted: Reconciled,
    put: Put,
    vacated: Vacated,
}

impl Pass<'_> {
    /// What a task was promised comes first, then the highest priority; within one, tasks that have no choice. Reasons come last, when all that could take
    /// a place has one: what a reason says is true of the cluster as this pass leaves it.
    fn run(mut self, batches: &mut [Batch<'_>]) -> Reconciled {
        let pipelines: Vec<_> = batches.iter().map(|batch| Pipeline::of(self.view, batch.sample)).collect();
        let mut held = self.keep_promises(batches, &pipelines);
        let (mut refused, mut left) = (Vec::new(), Vec::new());
        let waiting: Vec<_> = batches.iter().zip(&pipelines).enumerate().collect();
        for alike in waiting.chunk_by(|(_, (one, _)), (_, (other, _))| one.priority == other.priority) {
            self.keep_vacated(alike[0].1.0.priority);
            for (_, (batch, pipeline)) in alike {
                refused.extend(self.confirm(batch, pipeline).into_iter().map(|task| (*pipeline, task)));
            }
            for (index, (batch, pipeline)) in alike {
                let rest = self.place(&batch.free, pipeline);
                if rest.is_empty() {
                    self.place_held(&mut held, *index, pipeline);
                }
                left.push((*pipeline, rest));
            }
        }
        held.iter().for_each(|it| self.keep_promised(it));
        let made = self.make_room(&refused, &left);
        if made.has_later() {
            self.wanted.wake(self.now);
        }
        for (pipeline, task) in refused.into_iter().filter(|(_, task)| made.leaves(task)) {
            let is_due = self.may_tell(task);
            let reason = is_due.then(|| Arc::from(self.reason_of_node(task, pipeline)));
            self.keep_waiting(task, reason.as_ref(), made.step_of(task));
        }
        for (pipeline, tasks) in left {
            let is_due = tasks.iter().any(|task| self.may_tell(task));
            let reason = is_due.then(|| Arc::from(pipeline.explain(self.table)));
            let tasks = tasks.iter().filter(|task| made.leaves(task));
            tasks.for_each(|task| self.keep_waiting(task, reason.as_ref(), made.step_of(task)));
        }
        self.wanted
    }

    /// Assigns the batch's tasks to the nodes that were chosen for them. What is left: those whose node refuses them.
    fn confirm<'t>(&mut self, batch: &Batch<'t>, pipeline: &Pipeline) -> Vec<&'t Task> {
        let mut refused = Vec::new();
        for task in &batch.bound {
            let row = task.node.and_then(|node| self.table.find(node));
            match row.filter(|row| pipeline.refusal(&self.table.rows()[*row]).is_none()) {
                Some(row) => {
                    let order = Order { task, pipeline, now: self.now };
                    self.wanted.update(assign(self.table, row, order));
                }
                None => refused.push(&***task),
            }
        }
        refused
    }

    /// Chooses nodes for tasks of one batch. What is left: those that no node can have.
    fn place<'t, 's>(&mut self, tasks: &'t [&'s Arc<Task>], pipeline: &Pipeline) -> &'t [&'s Arc<Task>] {
        let Some(sample) = tasks.first() else { return &[] };
        let failures = self.failures_of(sample);
        let partition = self.table.partition_by(&sample.spec.placement.spread, pipeline);
        let start = self.table.start_of(sample.service);
        self.table.arrange(sample.service, partition);
        let mut tree = self.table.lend_tree(partition);
        let Self { table, wanted, now, .. } = self;
        let mut candidates = Candidates { table, pipeline, failures: &failures, partition, start };
        tree.begin(&candidates);
        let placed = tasks.iter().take_while(|task| {
            tree.place(&mut candidates, &mut |table, row| {
                wanted.update(assign(table, row, Order { task, pipeline, now: *now }));
            })
        });
        let placed = placed.count();
        self.table.give_back_tree(partition, tree);
        self.table.end_arrangement();
        &tasks[placed..]
    }

    /// How many tasks of this one's service and spec failed within the last minutes, by the nodes' clocks, on each row
    /// where it were too many.
    fn failures_of(&self, task: &Task) -> BTreeMap<usize, u32> {
        let mut failures = BTreeMap::<NodeId, u32>::new();
        let of_service = task.service.into_iter().flat_map(|service| self.table.failed(service));
        let of_service = of_service.filter_map(|id| self.view.task(id));
        for other in of_service.filter(|other| other.spec_version == task.spec_version) {
            let status = self.view.status(other);
            let counts = has_failed(status) && self.now.since(status.since) < RECENT;
            if let Some(node) = other.node.filter(|_| counts) {
                *failures.entry(node).or_default() += 1;
            }
        }
        let too_many = failures.into_iter().filter(|(_, count)| *count >= TOO_MANY);
        too_many.filter_map(|(node, count)| Some((self.table.find(node)?, count))).collect()
    }

    fn reason_of_node(&self, task: &Task, pipeline: &Pipeline) -> String {
        let row = task.node.and_then(|node| self.table.find(node));
        // A node that is no more takes no tasks either.
        let refusal = row.and_then(|row| pipeline.refusal(&self.table.rows()[row])).unwrap_or(Filter::Ready);
        refusal.explain(1)
    }

    /// Whether the task has no reason yet, or one that may be out of date. What waits for a promise that can't be kept has such a one.
    fn may_tell(&self, task: &Task) -> bool {
        task.status.error.is_empty()
            || task.promised.is_some()
            || task.meta.updated_at.after(REASON_HOLDS).is_due(REASON_HOLDS, self.now)
    }

    /// Writes why the task waits, unless it says so already and does not step back. What was told a moment ago is looked at again later.
    /// Whatever it was promised is forgotten: it could not be kept.
    fn keep_waiting(&mut self, task: &Task, reason: Option<&Arc<str>>, step: Step) {
        match reason.filter(|_| self.may_tell(task)) {
            Some(reason)
                if task.status.error == *reason && step == Step::Stays && task.promised.is_none() => {}
            Some(reason) => self.tell(Task { promised: None, ..task.clone() }, reason),
            None => self.wanted.wake(task.meta.updated_at.after(REASON_HOLDS)),
        }
    }

    fn tell(&mut self, mut task: Task, reason: &Arc<str>) {
        task.meta.updated_at = self.now;
        task.status.error = Arc::clone(reason);
        self.wanted.update(task);
        self.wanted.wake(self.now.after(REASON_HOLDS));
    }
}

/// What is given to a node.
struct Order<'t> {
    task: &'t Task,
    pipeline: &'t Pipeline,
    now: Timestamp,
}

/// The task as the node of that row has it, which no filter refuses.
fn assign(table: &mut NodeTable, row: usize, order: Order<'_>) -> Task {
    let Order { task, pipeline, now } = order;
    let node = &table.rows()[row];
    let message = if task.node.is_some() { &*CONFIRMED } else { &*ASSIGNED };
    let placed = task.node.is_none().then(|| Placed {
        nodes: u32::try_from(table.rows().len()).unwrap_or(u32::MAX),
        of_service: node.live_of(task.service),
        live: node.live(),
    });
    let assigned = Task {
        meta: Meta { updated_at: now, ..task.meta },
        node: Some(node.id),
        generic_resources: node.choose_generic(&pipeline.of_node().generic).unwrap_or_default(),
        promised: None,
        status: TaskStatus {
            state: TaskState::Assigned,
            since: now,
            message: Arc::clone(message),
            ..TaskStatus::default()
        },
        decision: Decision { placed, ..task.decision },
        ..task.clone()
    };
    table.add(row, &assigned, &assigned.status);
    assigned
}
