//! Tasks whose node will never say how they ended: they are orphaned once it has been down for a day, or was removed. And
//! containers' attachments, of which nothing is kept once they have ended.

use super::fence::ORPHAN_AFTER;
use super::service_view::{Ground, ground_of};
use crate::id::NodeId;
use crate::objects::{Node, Task, TaskState, TaskStatus};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;

pub(super) fn reconcile(view: &View<'_>, node: NodeId, now: Timestamp) -> Reconciled {
    let mut wanted = Reconciled::default();
    remove_attachments(view, node, &mut wanted);
    let known = view.node(node).map(AsRef::as_ref);
    if ground_of(known) != Ground::Lost {
        return wanted;
    }
    let tasks = || view.tasks_on(node).filter(|task| !task.status.state.is_terminal());
    if let Some(node) = known.filter(|node| node.status.since.is_ahead_of(now) && tasks().next().is_some()) {
        wanted.update(dated_anew(node, now));
        return wanted;
    }
    match known.map(|node| node.status.since.after(ORPHAN_AFTER)) {
        Some(moment) if moment > now => tasks().take(1).for_each(|_| wanted.wake(moment)),
        _ => tasks().for_each(|task| wanted.update(orphaned(task, now))),
    }
    wanted
}

/// The leader that saw it go had a clock that was ahead. Nobody knows when it was; to wait from now on is safe.
fn dated_anew(node: &Node, now: Timestamp) -> Node {
    let mut node = node.clone();
    node.meta.updated_at = now;
    node.status.since = now;
    node
}

fn orphaned(task: &Task, now: Timestamp) -> Task {
    let mut task = task.clone();
    task.meta.updated_at = now;
    task.desired_state = task.desired_state.max(TaskState::Shutdown);
    task.status = TaskStatus { state: TaskState::Orphaned, since: now, ..task.status };
    task
}

/// A container's attachment has no service whose history would keep it.
fn remove_attachments(view: &View<'_>, node: NodeId, wanted: &mut Reconciled) {
    let ended = |task: &&std::sync::Arc<Task>| task.service.is_none() && task.status.state.is_terminal();
    view.tasks_on(node).filter(ended).for_each(|task| wanted.remove(task.id));
}
