//! Which of a worker's words are taken, and how the ends among them are written. Pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::{Task, TaskState};
use ketch_cluster::store::Store;
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::{Told, View};

/// The states that are a worker's to tell: others are managers'.
const OF_WORKERS: RangeInclusive<TaskState> = TaskState::Accepted..=TaskState::Rejected;

/// Of a container: what is longer is not kept in mind.
const LONGEST_ID: usize = 64;

/// A worker's words.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    /// On the node's tasks that have not ended in the store.
    pub(super) taken: Vec<(TaskId, Told)>,
    /// The ends among these.
    pub(super) ends: BTreeSet<TaskId>,
    /// Ends that nothing is left to be done for: they are in the store, the task is gone from it, or it was never this node's.
    /// The worker need not keep them.
    pub(super) settled: BTreeSet<TaskId>,
}

impl Words {
    pub(super) fn sorted(store: &Store, node: NodeId, words: Vec<(TaskId, Told)>) -> Self {
        let mut it = Self::default();
        for (id, mut told) in words.into_iter().filter(|(_, told)| OF_WORKERS.contains(&told.state)) {
            if told.container.as_ref().is_some_and(|container| container.id.len() > LONGEST_ID) {
                tracing::warn!(task = %id, %node, "a node tells a container's id that is none");
                told.container = None;
            }
            let is_end = told.state.is_terminal();
            let task = store.task(id);
            if task.is_some_and(|task| task.node != Some(node)) {
                tracing::warn!(task = %id, %node, "a node speaks of a task that is not its own");
            }
            let is_open = |task: &Task| task.node == Some(node) && !task.status.state.is_terminal();
            match task.filter(|task| is_open(task)) {
                Some(_) => {
                    it.ends.extend(is_end.then_some(id));
                    it.taken.push((id, told));
                }
                None => it.settled.extend(is_end.then_some(id)),
            }
        }
        it
    }
}

/// The task with the end that its worker has told; none when it has told none, or it is written.
pub(super) fn ended(view: &View<'_>, task: TaskId, now: Timestamp) -> Option<Task> {
    let task = view.task(task).filter(|task| !task.status.state.is_terminal())?;
    let status = view.status(task);
    if !status.state.is_terminal() {
        return None;
    }
    let mut ended = Task { status: status.clone(), ..Task::clone(task) };
    // Its worker only knows that it was to stop.
    let displaced = task.displaced.as_ref().filter(|it| !it.reason.is_empty());
    if let Some(displaced) = displaced.filter(|_| task.desired_state > TaskState::Complete) {
        ended.status.message = displaced.reason.as_str().into();
    }
    ended.meta.updated_at = now;
    Some(ended)
}

/// Whether no end of that task is left to be written.
pub(super) fn is_settled(store: &Store, task: TaskId) -> bool {
    store.task(task).is_none_or(|task| task.status.state.is_terminal())
}
