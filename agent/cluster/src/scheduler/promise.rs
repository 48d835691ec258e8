//! Promises: a waiting task that is to have a certain node before others, since room is made there for it, or since it moves there.
//!
//! The first step of a pass. While what is being stopped there still holds the room, the task counts as if it were on the node: nobody
//! else is given what it waits for. Where another node has room before that, it goes there, in its batch's turn; but not one that was
//! made to move. A promise that can't be kept any more is forgotten, and the task placed like any other.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::batch::Batch;
use super::pipeline::Pipeline;
use super::room::{self, host_of, name_of};
use super::{Order, Pass, REASON_HOLDS, assign};
use crate::id::TaskId;
use crate::label::priority;
use crate::objects::node::NodeState;
use crate::objects::{Node, Task, TaskState, TaskStatus};

/// So many tasks are named in a reason.
const NAMED: usize = 3;

/// Of one that moves, and whose node can't have it just now.
const NO_ROOM_TO_MOVE: &str = "the node that it is to move to can't have it now";

/// Whether a promise is kept.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    /// What is being stopped there still holds the room, as that says.
    NotYet(String),
    /// The node can't keep it.
    No,
}

/// A task whose promise can't be kept yet, and holds.
pub(super) struct Held<'t> {
    task: &'t Arc<Task>,
    reason: Arc<str>,
    /// Of one that may have any node. None where only that node will do.
    batch: Option<usize>,
}

impl Pass<'_> {
    /// Gives the tasks that were promised a node that node, or keeps its room for them, the highest priorities first. Those are taken
    /// out of their batches.
    pub(super) fn keep_promises<'t>(
        &mut self,
        batches: &mut [Batch<'t>],
        pipelines: &[Pipeline],
    ) -> Vec<Held<'t>> {
        let mut promised = Vec::new();
        for (index, batch) in batches.iter().enumerate().filter(|(_, batch)| batch.has_promised) {
            let tasks = batch.bound.iter().chain(&batch.free).copied();
            promised.extend(tasks.filter(|task| task.promised.is_some()).map(|task| (index, task)));
        }
        promised
            .sort_by_key(|(_, task)| (Reverse(priority::of(self.view, task)), task.meta.created_at, task.id));
        let mut held = Vec::new();
        for (index, task) in promised {
            let Some(pipeline) = pipelines.get(index) else { continue };
            let kept = match self.keep_promise(task, pipeline) {
                // There is nothing to be had elsewhere by that: its orchestrator gives the move up, or it is placed once it is needed.
                Kept::No if self.moves_at_leisure(task) => Kept::NotYet(NO_ROOM_TO_MOVE.to_owned()),
                kept => kept,
            };
            if kept != Kept::No {
                let others = |it: &&Arc<Task>| it.id != task.id;
                batches[index].bound.retain(others);
                batches[index].free.retain(others);
            }
            if let Kept::NotYet(reason) = kept {
                let is_free = task.node.is_none() && !self.moves(task);
                held.push(Held { task, reason: reason.into(), batch: is_free.then_some(index) });
            }
        }
        held
    }

    /// Whether it is made to run on that node instead of another one.
    fn moves(&self, task: &Task) -> bool {
        self.moves_away(task).is_some()
    }

    /// Whether it moves, and what it moves for serves until then: nobody goes for that.
    pub(super) fn moves_at_leisure(&self, task: &Task) -> bool {
        self.moves_away(task).is_some_and(|before| {
            before.desired_state <= TaskState::Running && self.view.state(before) == TaskState::Running
        })
    }

    /// The task that moves by it.
    fn moves_away(&self, task: &Task) -> Option<&Task> {
        let before = self.view.task(task.replaces?)?;
        before.displaced.as_ref().is_some_and(|it| it.is_move()).then_some(before)
    }

    fn keep_promise(&mut self, task: &Arc<Task>, pipeline: &Pipeline) -> Kept {
        let promised = task.promised.as_ref().map(|promise| promise.node);
        let Some(row) = promised.and_then(|node| self.table.find(node)) else { return Kept::No };
        // A new leader hears of its nodes one after the other. Nobody else gets anything there meanwhile.
        if self.table.rows()[row].node.status.state == NodeState::Unknown {
            let host = host_of(&self.table.rows()[row].node);
            return Kept::NotYet(format!("waiting for {host}, of which the leader has not heard yet"));
        }
        if pipeline.refusal(&self.table.rows()[row]).is_none() {
            let assigned = assign(self.table, row, Order { task, pipeline, now: self.now });
            self.wanted.update(assigned);
            self.put.follow(&self.wanted.actions);
            return Kept::Yes;
        }
        let node = Arc::clone(&self.table.rows()[row].node);
        let leaving: Vec<_> = self.leaving(&node);
        let stays = |it: &Arc<Task>| !leaving.contains(&it.id);
        if leaving.is_empty() || pipeline.refusal(&self.put.row(self.view, &node, stays)).is_some() {
            return Kept::No;
        }
        let reason = self.waits_for(&node, &leaving);
        self.keep_room(row, task, pipeline, &leaving);
        // Who does not stop in time is counted on no more, and the task looks elsewhere.
        let overdue =
            leaving.iter().filter_map(|id| self.view.task(*id)).map(|it| room::overdue_at(it)).min();
        overdue.into_iter().for_each(|moment| self.wanted.wake(moment));
        Kept::NotYet(reason)
    }

    /// When all others of its batch have a place: who waits for what it was promised, and may have another node that has room now, need
    /// not wait. What was kept for it is free in the next pass, which that brings.
    pub(super) fn place_held(&mut self, held: &mut Vec<Held<'_>>, batch: usize, pipeline: &Pipeline) {
        let is_of_it = |it: &&Held<'_>| it.batch == Some(batch);
        let tasks: Vec<_> = held.iter().filter(is_of_it).map(|it| it.task).collect();
        let left: BTreeSet<_> = self.place(&tasks, pipeline).iter().map(|task| task.id).collect();
        held.retain(|it| it.batch != Some(batch) || left.contains(&it.task.id));
    }

    /// Says what one waits for whose promise holds.
    pub(super) fn keep_promised(&mut self, held: &Held<'_>) {
        let Held { task, reason, .. } = held;
        let again = task.meta.updated_at.after(REASON_HOLDS);
        if *task.status.error == **reason {
            return;
        }
        if task.status.error.is_empty() || again.is_due(REASON_HOLDS, self.now) {
            self.tell(Task::clone(task), reason);
        } else {
            self.wanted.wake(again);
        }
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
        self.table.add_as_if(row, &as_if, &as_if.status);
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
