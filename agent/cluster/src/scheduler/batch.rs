//! The tasks that wait for the scheduler, in batches of those that need the same of a node.

use std::sync::Arc;

use crate::label::priority::Priority;
use crate::objects::{Task, TaskState};
use crate::time::Timestamp;
use crate::view::View;

/// Tasks of one service and one version of its spec.
#[derive(Debug)]
pub(super) struct Batch<'s> {
    /// Tasks whose node the orchestrator has chosen.
    pub(super) bound: Vec<&'s Arc<Task>>,
    pub(super) free: Vec<&'s Arc<Task>>,
    /// Any of them.
    pub(super) sample: &'s Arc<Task>,
    /// Whether one of them was promised a node.
    pub(super) has_promised: bool,
    /// 0 where no service asks for any.
    pub(super) priority: Priority,
    oldest: Timestamp,
}

/// Every task that waits and is still wanted. The batch with the oldest task comes first, so that what has waited longest
/// for room gets it; within a batch, tasks come slot by slot.
pub(super) fn batches<'s>(view: &'s View<'_>) -> Vec<Batch<'s>> {
    let mut batches: Vec<Batch<'s>> = Vec::new();
    // Those of one spec come together, in the order of their slots: the first of its batches.
    let mut of_spec = 0;
    for task in view.tasks_pending().filter(|task| is_waiting(view, task)) {
        if batches.get(of_spec).is_none_or(|batch| !batch.is_of_spec_of(task)) {
            of_spec = batches.len();
        }
        let place = (of_spec..batches.len()).find(|place| needs_the_same(batches[*place].sample, task));
        let place = place.unwrap_or_else(|| {
            batches.push(Batch {
                bound: Vec::new(),
                free: Vec::new(),
                sample: task,
                has_promised: false,
                priority: 0,
                oldest: task.meta.created_at,
            });
            batches.len() - 1
        });
        batches[place].add(task);
    }
    batches.sort_by_key(|batch| batch.oldest);
    batches
}

impl<'s> Batch<'s> {
    fn is_of_spec_of(&self, task: &Task) -> bool {
        (self.sample.service, self.sample.spec_version) == (task.service, task.spec_version)
    }

    fn add(&mut self, task: &'s Arc<Task>) {
        self.oldest = self.oldest.min(task.meta.created_at);
        self.has_promised |= task.promised.is_some();
        if task.node.is_some() { self.bound.push(task) } else { self.free.push(task) }
    }
}

/// Whether it is to run: a task that is to be shut down before it was placed is the orchestrator's to end.
fn is_waiting(view: &View<'_>, task: &Task) -> bool {
    // Nobody has told anything of a task that is on no node.
    let is_pending = task.node.is_none() || view.state(task) == TaskState::Pending;
    is_pending && task.desired_state <= TaskState::Complete
}

/// Whether all that a filter or a preference reads of a task is the same in both, given that the service and its spec's
/// version are. It always is, unless an endpoint or a driver was changed between the births of the two.
fn needs_the_same(one: &Task, other: &Task) -> bool {
    let networks = |task: &Task| task.networks.iter().map(|it| it.network).collect::<Vec<_>>();
    (Arc::ptr_eq(&one.spec, &other.spec) || one.spec == other.spec)
        && one.log_driver == other.log_driver
        && one.endpoint == other.endpoint
        && networks(one) == networks(other)
}
