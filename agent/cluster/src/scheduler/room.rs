//! What room a node would have without some of its tasks. Asked for promised and preempted room; it decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::nodes::NodeRow;
use crate::id::NodeId;
use crate::objects::{Node, Task, TaskState};
use crate::store::{Object, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

/// Docker's, where a task does not say.
const GRACE: Duration = Duration::from_secs(10);

/// Beyond its grace a task that is being stopped is counted on to leave for so long: its end has to be told and written.
const PATIENCE: Duration = Duration::from_secs(60);

/// What this pass has put on nodes, and the view does not know of: tasks that it has placed, and tasks for which room is kept.
#[derive(Debug, Default)]
pub(super) struct Put {
    on: BTreeMap<NodeId, Vec<Arc<Task>>>,
    /// So many of the pass's actions are known.
    seen: usize,
}

impl Put {
    /// Learns of what the pass has placed.
    pub(super) fn follow(&mut self, actions: &[StoreAction]) {
        for action in actions.iter().skip(self.seen) {
            if let StoreAction::Update(Object::Task(task)) = action
                && let Some(node) = task.node.filter(|_| task.status.state == TaskState::Assigned)
                && task.desired_state <= TaskState::Complete
            {
                self.on.entry(node).or_default().push(Arc::clone(task));
            }
        }
        self.seen = actions.len();
    }

    /// Room on a node is kept for the task, which is as if it were there.
    pub(super) fn keep(&mut self, node: NodeId, task: Task) {
        self.on.entry(node).or_default().push(Arc::new(task));
    }

    /// The row of the node with those of its tasks that stay.
    pub(super) fn row<'v>(
        &self,
        view: &View<'v>,
        node: &Arc<Node>,
        stays: impl Fn(&Arc<Task>) -> bool,
    ) -> NodeRow {
        let mut row = NodeRow::empty(node);
        for task in view.tasks_on(node.id).filter(|task| stays(task)) {
            row.add(task, view.status(task));
        }
        self.on.get(&node.id).into_iter().flatten().for_each(|task| row.add(task, &task.status));
        row
    }
}

/// Whether the task holds something of its node.
pub(super) fn holds_room(view: &View<'_>, task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&view.state(task))
}

/// Whether it is being stopped, and has not taken longer than it may: its room will be free.
pub(super) fn is_leaving(task: &Task, now: Timestamp) -> bool {
    task.desired_state > TaskState::Complete && !overdue_at(task).is_due(patience_with(task), now)
}

/// From when on nobody counts on the end of a task that is being stopped.
pub(super) fn overdue_at(task: &Task) -> Timestamp {
    task.meta.updated_at.after(patience_with(task))
}

fn patience_with(task: &Task) -> Duration {
    grace_of(task).saturating_add(PATIENCE)
}

/// How long it has to stop.
pub(super) fn grace_of(task: &Task) -> Duration {
    task.spec.container().and_then(|it| it.stop_grace_period).unwrap_or(GRACE)
}

/// As clients show it: by its slot, or by its node where each node has one.
pub(super) fn name_of(task: &Task) -> String {
    match (task.slot, task.node) {
        (0, Some(node)) => format!("{}.{node}", task.service_name),
        (slot, _) => format!("{}.{slot}", task.service_name),
    }
}

/// The node's hostname; its id until it has told one.
pub(crate) fn host_of(node: &Node) -> String {
    let hostname = node.description.as_ref().map(|it| it.hostname.clone());
    hostname.filter(|it| !it.is_empty()).unwrap_or_else(|| node.id.to_string())
}
