//! The orchestrators: which tasks a service should have, and which of those that it has should go.
//!
//! The manager calls one of the three doors here for what a change has touched: [`reconcile_service`], [`reconcile_node`]
//! and [`reap`]. They create tasks, write desired states, end tasks that no worker will ever end (never assigned, or
//! their node is gone), remove what history does not keep, and write a service's update status. They choose no node except
//! for global services, give out no address, and remember nothing: `design/task-model.md` says how each thing is derived.

mod dirty;
mod enforcer;
pub mod fence;
mod global;
mod jobs;
mod orphans;
#[cfg(test)]
mod properties;
mod reaper;
mod rebalance;
mod replicated;
mod restart;
pub(crate) mod schedule;
mod service_view;
#[cfg(test)]
mod simulated;
mod slot;
mod start_order;
mod task;
#[cfg(test)]
mod tests;
pub mod texts;
pub(crate) mod update;

use crate::id::{NewBits, NodeId, ServiceId};
use crate::objects::{ServiceMode, Task, TaskState};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;
pub(crate) use rebalance::takes_part;
use service_view::ServiceView;
pub(crate) use task::{Wish, stopped};

/// Brings a service's tasks nearer to its spec. Those of a service that is no more are marked to be removed.
pub fn reconcile_service(
    view: &View<'_>,
    service: ServiceId,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Reconciled {
    let Some(service) = view.service(service) else { return removed(view, service, now) };
    let service = ServiceView { view: *view, service, now };
    let mut wanted = match service.service.spec.mode {
        ServiceMode::Replicated { replicas } => replicated::reconcile(&service, replicas, bits),
        ServiceMode::Global => global::reconcile(&service, bits),
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => jobs::reconcile(&service, bits),
    };
    start_order::keep(&service, &mut wanted);
    wanted
}

/// Moves tasks away from a node that they no longer fit, and ends those of a node that is gone for good.
#[must_use]
pub fn reconcile_node(view: &View<'_>, node: NodeId, now: Timestamp) -> Reconciled {
    let mut wanted = enforcer::reconcile(view, node, now);
    wanted.extend(orphans::reconcile(view, node, now));
    wanted
}

/// Removes a service's tasks that history does not keep.
#[must_use]
pub fn reap(view: &View<'_>, service: ServiceId, now: Timestamp) -> Reconciled {
    reaper::reconcile(view, service, now)
}

/// Whether the task is what its service asks for now, so that no update replaces it: the `_up-to-date` filter of task lists.
#[must_use]
pub fn is_up_to_date(view: &View<'_>, task: &Task) -> bool {
    let service = task.service.and_then(|service| view.service(service));
    // Nothing here waits: the moment does not matter.
    let now = Timestamp::default();
    service.is_some_and(|service| !dirty::is_dirty(&ServiceView { view: *view, service, now }, task))
}

fn removed(view: &View<'_>, service: ServiceId, now: Timestamp) -> Reconciled {
    let mut wanted = Reconciled::default();
    for task in view.tasks_of(service).filter(|task| task.desired_state < TaskState::Remove) {
        wanted.update(task::stopped(view, task, Wish { desired: TaskState::Remove, now }));
    }
    wanted
}
