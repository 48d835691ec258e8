//! Promises: a waiting task that is to have a certain node before others, since room is made there for it, or since it moves there.
//!
//! The first step of a pass. While what is being stopped there still holds the room, the task counts as if it were on the node: nobody
//! else is given what it waits for. A promise that can't be kept any more is forgotten, and the task placed like any other.

use std::cmp::Reverse;
use std::sync::Arc;

use super::batch::Batch;
use super::pipeline::Pipeline;
use super::room::{self, host_of, name_of};
use super::{Order, Pass, assign};
use crate::id::TaskId;
use crate::label::priority;
use crate::objects::{Node, Task, TaskState, TaskStatus};

/// So many tasks are named in a reason.
const NAMED: usize = 3;

impl Pass<'_> {
    /// Gives the tasks that were promised a node that node, or keeps its room for them, the highest priorities first. Those are taken
    /// out of their batches.
    pub(super) fn keep_promises(&mut self, batches: &mut [Batch<'_>], pipelines: &[Pipeline]) {
        let mut promised = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let tasks = batch.bound.iter().chain(&batch.free).copied();
            promised.extend(tasks.filter(|task| task.promised.is_some()).map(|task| (index, task)));
        }
        promised
            .sort_by_key(|(_, task)| (Reverse(priority::of(self.view, task)), task.meta.created_at, task.id));
        for (index, task) in promised {
            let Some(pipeline) = pipelines.get(index) else { continue };
            if self.keeps_promise(task, pipeline) {
                let others = |it: &&Arc<Task>| it.id != task.id;
                batches[index].bound.retain(others);
                batches[index].free.retain(others);
            }
        }
    }

    /// False when the promise can't be kept.
    fn keeps_promise(&mut self, task: &Arc<Task>, pipeline: &Pipeline) -> bool {
        let promised = task.promised.as_ref().map(|promise| promise.node);
        let Some(row) = promised.and_then(|node| self.table.find(node)) else { return false };
        if pipeline.refusal(&self.table.rows()[row]).is_none() {
            let assigned = assign(self.table, row, Order { task, pipeline, now: self.now });
            self.wanted.update(assigned);
            self.put.follow(&self.wanted.actions);
            return true;
        }
        let node = Arc::clone(&self.table.rows()[row].node);
        let leaving: Vec<_> = self.leaving(&node);
        let stays = |it: &Arc<Task>| !leaving.contains(&it.id);
        if leaving.is_empty() || pipeline.refusal(&self.put.row(self.view, &node, stays)).is_some() {
            return false;
        }
        let reason = self.waits_for(&node, &leaving);
        self.keep_room(row, task, pipeline, &leaving);
        self.keep_promised(task, &reason);
        // Who does not stop in time is counted on no more, and the task looks elsewhere.
        let overdue =
            leaving.iter().filter_map(|id| self.view.task(*id)).map(|it| room::overdue_at(it)).min();
        overdue.into_iter().for_each(|moment| self.wanted.wake(moment));
        true
    }

    /// The tasks that are being stopped on the node.
    pub(super) fn leaving(&self, node: &Node) -> Vec<TaskId> {
        let on_node = self.view.tasks_on(node.id);
        let leaving = on_node.filter(|it| room::holds_room(self.view, it) && room::is_leaving(it, self.now));
        leaving.map(|it| it.id).collect()
    }

    /// Counts the task as if it were on the node, for the rest of this pass.
    pub(super) fn keep_room(&mut self, row: usize, task: &Task, pipeline: &Pipeline, leaving: &[TaskId]) {
        let node = Arc::clone(&self.table.rows()[row].node);
        let free = self.put.row(self.view, &node, |it| !leaving.contains(&it.id));
        let as_if = Task {
            node: Some(node.id),
            generic_resources: free.choose_generic(&pipeline.of_node().generic).unwrap_or_default(),
            status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
            ..task.clone()
        };
        self.table.add(row, &as_if, &as_if.status);
        self.put.keep(node.id, as_if);
    }

    /// What a task says that waits for the room of others.
    pub(super) fn waits_for(&self, node: &Node, leaving: &[TaskId]) -> String {
        let tasks = leaving.iter().filter_map(|id| self.view.task(*id));
        let mut names: Vec<_> = tasks.take(NAMED).map(|task| name_of(task)).collect();
        let more = leaving.len().saturating_sub(names.len());
        names.extend((more > 0).then(|| format!("{more} more")));
        format!("waiting for room on {}, where {} must stop first", host_of(node), names.join(", "))
    }
}
