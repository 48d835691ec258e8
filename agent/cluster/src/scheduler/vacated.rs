//! Room that a task has left by failing, while its successor is on its way to the scheduler: orchestrator and allocator come before it.
//!
//! Where services ask for priorities, tasks of lower ones don't get that room meanwhile. Otherwise on a full cluster each crash of an
//! important task would start one that waits, to be preempted a moment later by the very successor. Called by a pass before it
//! places. It keeps nobody waiting for longer than [`EXPECTED`].

use std::collections::BTreeSet;
use std::time::Duration;

use super::Pass;
use super::nodes::has_failed;
use crate::id::TaskId;
use crate::label::priority::{self, Priority};
use crate::objects::task::{RestartCondition, Stop};
use crate::objects::{Task, TaskState, TaskStatus};
use crate::time::Timestamp;
use crate::view::View;

/// A successor that has not come to wait for a node by then is not expected any more.
pub(super) const EXPECTED: Duration = Duration::from_secs(1);

/// Those whose room is kept.
#[derive(Debug, Default)]
pub(super) struct Vacated {
    /// As if they still had it, the highest priority last. Taken out once the pass counts them.
    left: Vec<(Priority, Task)>,
    /// When the first of them is expected no more.
    until: Option<Timestamp>,
}

impl Vacated {
    /// Of those that have [failed of late](is_of_late).
    pub(super) fn of(view: &View<'_>, failed: &BTreeSet<TaskId>) -> Self {
        if view.lowest_priority().is_none() || failed.is_empty() {
            return Self::default();
        }
        let on_the_way: BTreeSet<_> = view.tasks_new().filter_map(|task| task.replaces).collect();
        let mut it = Self::default();
        for task in failed.iter().filter_map(|id| view.task(*id)) {
            if comes_back(view, task) && (is_unseen(task) || on_the_way.contains(&task.id)) {
                let until = view.status(task).since.after(EXPECTED);
                it.until = Some(it.until.map_or(until, |known| known.min(until)));
                it.left.push((priority::of(view, task), as_if(task)));
            }
        }
        it.left.sort_by_key(|(priority, task)| (*priority, task.id));
        it
    }
}

/// Whether it failed so lately that its successor may be on its way.
pub(super) fn is_of_late(view: &View<'_>, task: &Task, now: Timestamp) -> bool {
    let status = view.status(task);
    has_failed(status) && !status.since.after(EXPECTED).is_due(EXPECTED, now)
}

/// Whether somebody is to take its place, as far as can be told without its slot.
fn comes_back(view: &View<'_>, task: &Task) -> bool {
    let policy = task.spec.restart.unwrap_or_default();
    let has_service = task.service.is_some_and(|id| view.service(id).is_some());
    has_service && policy.condition != RestartCondition::None && task.stop == Stop::NotAsked
}

/// Whether its orchestrator has done nothing about its end yet. One that was held is looked at later.
fn is_unseen(task: &Task) -> bool {
    matches!(task.desired_state, TaskState::Running | TaskState::Complete)
}

fn as_if(task: &Task) -> Task {
    Task {
        desired_state: TaskState::Running,
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
        ..task.clone()
    }
}

impl Pass<'_> {
    /// Before tasks of that priority are placed: counts what those of higher ones have left as if it were taken.
    pub(super) fn keep_vacated(&mut self, own: Priority) {
        while let Some((_, task)) = self.vacated.left.pop_if(|(of, _)| *of > own) {
            let Some((node, row)) = task.node.and_then(|node| Some((node, self.table.find(node)?))) else {
                continue;
            };
            self.table.add_as_if(row, &task, &task.status);
            self.put.keep(node, task);
            self.vacated.until.into_iter().for_each(|moment| self.wanted.wake(moment));
        }
    }
}
