//! The tasks that wait for the scheduler, in batches of those that need the same of a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::objects::{Task, TaskState};
use crate::view::View;

/// Tasks of one service and one version of its spec.
#[derive(Debug)]
pub(super) struct Batch<'s> {
    /// Tasks whose node the orchestrator has chosen.
    pub(super) bound: Vec<&'s Arc<Task>>,
    pub(super) free: Vec<&'s Arc<Task>>,
    /// Any of them.
    pub(super) sample: &'s Arc<Task>,
}

/// Every task that waits and is still wanted. The batch with the oldest task comes first, so that what has waited longest
/// for room gets it; within a batch, tasks come slot by slot.
pub(super) fn batches<'s>(view: &'s View<'_>) -> Vec<Batch<'s>> {
    let mut by_spec = BTreeMap::<_, Vec<Batch<'s>>>::new();
    for task in view.tasks_pending().filter(|task| is_waiting(view, task)) {
        let batches = by_spec.entry((task.service, task.spec_version)).or_default();
        let place = batches.iter().position(|batch| needs_the_same(batch.sample, task));
        let place = place.unwrap_or_else(|| {
            batches.push(Batch { bound: Vec::new(), free: Vec::new(), sample: task });
            batches.len() - 1
        });
        let batch = &mut batches[place];
        if task.node.is_some() { batch.bound.push(task) } else { batch.free.push(task) }
    }
    let mut batches: Vec<_> = by_spec.into_values().flatten().collect();
    for batch in &mut batches {
        batch.bound.sort_by_key(|task| (task.slot, task.id));
        batch.free.sort_by_key(|task| (task.slot, task.id));
    }
    batches.sort_by_key(Batch::oldest);
    batches
}

impl Batch<'_> {
    fn oldest(&self) -> Option<crate::time::Timestamp> {
        self.bound.iter().chain(&self.free).map(|task| task.meta.created_at).min()
    }
}

/// Whether it is to run: a task that is to be shut down before it was placed is the orchestrator's to end.
fn is_waiting(view: &View<'_>, task: &Task) -> bool {
    view.state(task) == TaskState::Pending && task.desired_state <= TaskState::Complete
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
