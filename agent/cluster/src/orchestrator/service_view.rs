//! One service at one moment, as each of its orchestrators looks at it.

use super::fence;
use super::task::{self, Wish};
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{UpdateOrder, UpdateState};
use crate::objects::{Node, Service, Task, TaskState, TaskStatus, UpdateConfig};
use crate::time::Timestamp;
use crate::view::View;

#[derive(Clone, Copy)]
pub(super) struct ServiceView<'a> {
    pub(super) view: View<'a>,
    pub(super) service: &'a Service,
    pub(super) now: Timestamp,
}

/// Whether a task can stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// It has no node yet, or one that is there and keeps its tasks.
    Sound,
    /// Its node is there, but its tasks are to go.
    Drained,
    /// Its node is down, has left or was removed: nobody can tell what it still runs.
    Lost,
}

/// Whether the node's tasks may stay.
pub(super) fn ground_of(node: Option<&Node>) -> Ground {
    match node {
        None => Ground::Lost,
        Some(node) if matches!(node.status.state, NodeState::Down | NodeState::Disconnected) => Ground::Lost,
        Some(node) if node.spec.availability == Availability::Drain => Ground::Drained,
        Some(_) => Ground::Sound,
    }
}

/// Whether it ended without being asked to.
pub(super) fn ended_by_itself(state: TaskState) -> bool {
    matches!(state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

impl ServiceView<'_> {
    pub(super) fn state(&self, task: &Task) -> TaskState {
        self.view.state(task)
    }

    pub(super) fn status<'t>(&'t self, task: &'t Task) -> &'t TaskStatus {
        self.view.status(task)
    }

    /// What its tasks are wanted to reach.
    pub(super) fn goal(&self) -> TaskState {
        if self.service.spec.mode.is_job() { TaskState::Complete } else { TaskState::Running }
    }

    /// Whether the task is wanted: it was not asked to stop.
    pub(super) fn is_wanted(&self, task: &Task) -> bool {
        task.desired_state <= self.goal()
    }

    pub(super) fn ground(&self, task: &Task) -> Ground {
        task.node.map_or(Ground::Sound, |node| ground_of(self.view.node(node).map(AsRef::as_ref)))
    }

    /// Whether the task is wanted, has not ended, and can stay where it is.
    pub(super) fn stays(&self, task: &Task) -> bool {
        self.is_wanted(task) && !self.state(task).is_terminal() && self.ground(task) == Ground::Sound
    }

    /// The task, asked to shut down or to be removed.
    pub(super) fn stopped(&self, task: &Task, desired: TaskState) -> Task {
        task::stopped(&self.view, task, Wish { desired, now: self.now })
    }

    /// The configuration of the update that is on, or would be next.
    pub(super) fn update_config(&self) -> UpdateConfig {
        let config = if self.rolls_back() { self.service.spec.rollback } else { self.service.spec.update };
        config.unwrap_or_default()
    }

    /// A fenced service never runs a new task beside the old one, whatever its configuration says.
    pub(super) fn order(&self) -> UpdateOrder {
        match fence::wait(&self.service.spec.labels) {
            Some(_) => UpdateOrder::StopFirst,
            None => self.update_config().order,
        }
    }

    /// Whether the update that is on, or is paused, goes back to an earlier spec.
    pub(super) fn rolls_back(&self) -> bool {
        let state = self.service.update_status.as_ref().map(|status| status.state);
        matches!(state, Some(UpdateState::RollbackStarted | UpdateState::RollbackPaused))
    }
}
