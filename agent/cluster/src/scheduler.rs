//! The scheduler: which node each task runs on, or why none can have it. `design/scheduler.md` has the whole of it.
//!
//! It looks at pending tasks (the allocator has given them their addresses), and either assigns one or writes into its
//! status why it waits. It moves no task that has a node, and never one of another service. The manager calls it when a
//! task or a node has changed; nothing here hangs on time but the count of recent failures, which only orders nodes.

mod batch;
#[cfg(test)]
mod clusters;
mod filter;
mod generic;
mod nodes;
mod pipeline;
mod platform;
#[cfg(test)]
mod reference;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::constraint::Descriptor;
use crate::id::NodeId;
use crate::objects::{Meta, Task, TaskState, TaskStatus};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;
use batch::{Batch, batches};
use filter::Filter;
use nodes::{NodeTable, Rank};
use pipeline::Pipeline;
use spread::{Candidate, Tree};

/// SwarmKit's words, which clients show beside the state.
const ASSIGNED: &str = "scheduler assigned task to node";
const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";

/// How far back failures count against a node.
const RECENT: Duration = Duration::from_secs(5 * 60);

/// Places every pending task that a node can have, and says of each other one why it stays pending.
#[must_use]
pub fn schedule(view: &View<'_>, now: Timestamp) -> Reconciled {
    let batches = batches(view);
    if batches.is_empty() {
        return Reconciled::default();
    }
    let pass = Pass { view, now, table: NodeTable::of(view), wanted: Reconciled::default() };
    pass.run(&batches)
}

struct Pass<'v> {
    view: &'v View<'v>,
    now: Timestamp,
    table: NodeTable,
    wanted: Reconciled,
}

impl Pass<'_> {
    /// Tasks that have no choice come first. Reasons come last, when all that could take a place has one: what a reason
    /// says is true of the cluster as this pass leaves it.
    fn run(mut self, batches: &[Batch<'_>]) -> Reconciled {
        let pipelines: Vec<_> = batches.iter().map(|batch| Pipeline::of(self.view, batch.sample)).collect();
        let mut refused = Vec::new();
        for (batch, pipeline) in batches.iter().zip(&pipelines) {
            refused.extend(self.confirm(batch, pipeline).into_iter().map(|task| (pipeline, task)));
        }
        let mut left = Vec::new();
        for (batch, pipeline) in batches.iter().zip(&pipelines) {
            left.push((pipeline, self.place(batch, pipeline)));
        }
        for (pipeline, task) in refused {
            let reason = self.reason_of_node(task, pipeline);
            self.keep_waiting(task, &reason);
        }
        for (pipeline, tasks) in left.into_iter().filter(|(_, tasks)| !tasks.is_empty()) {
            let reason = pipeline.explain(&self.table);
            tasks.iter().for_each(|task| self.keep_waiting(task, &reason));
        }
        self.wanted
    }

    /// Assigns the batch's tasks to the nodes that were chosen for them. What is left: those whose node refuses them.
    fn confirm<'t>(&mut self, batch: &Batch<'t>, pipeline: &Pipeline) -> Vec<&'t Task> {
        let mut refused = Vec::new();
        for task in &batch.bound {
            let row = task.node.and_then(|node| self.table.find(node));
            match row.filter(|row| pipeline.refusal(&self.table.rows()[*row]).is_none()) {
                Some(row) => self.assign(task, row, pipeline),
                None => refused.push(&***task),
            }
        }
        refused
    }

    /// Chooses nodes for the batch's other tasks. What is left: those that no node can have.
    fn place<'t, 's>(&mut self, batch: &'t Batch<'s>, pipeline: &Pipeline) -> &'t [&'s Arc<Task>] {
        if batch.free.is_empty() {
            return &[];
        }
        let failures = self.recent_failures(batch.sample);
        let mut tree = self.tree(batch.sample, pipeline, &failures);
        let placed = batch.free.iter().take_while(|task| {
            tree.place(&mut |row| {
                self.assign(task, row, pipeline);
                self.rank(row, pipeline, &failures)
            })
        });
        let placed = placed.count();
        &batch.free[placed..]
    }

    fn tree(&self, task: &Task, pipeline: &Pipeline, failures: &BTreeMap<NodeId, u32>) -> Tree {
        let preferences = &task.spec.placement.spread;
        let levels: Vec<_> = preferences.iter().filter_map(|text| Descriptor::parse(text)).collect();
        let candidates = self.table.rows().iter().enumerate().map(|(row, node)| Candidate {
            row,
            of_service: node.live_of(task.service),
            rank: self.rank(row, pipeline, failures),
        });
        Tree::of(candidates.collect(), &levels, &self.table)
    }

    /// None when a filter refuses the node.
    fn rank(&self, row: usize, pipeline: &Pipeline, failures: &BTreeMap<NodeId, u32>) -> Option<Rank> {
        let row = &self.table.rows()[row];
        if pipeline.refusal(row).is_some() {
            return None;
        }
        let failures = failures.get(&row.node.id).copied().unwrap_or_default();
        Some(row.rank(pipeline.wants.service, failures))
    }

    /// How many tasks of this one's service and spec failed on each node within the last minutes, by the nodes' clocks.
    fn recent_failures(&self, task: &Task) -> BTreeMap<NodeId, u32> {
        let mut failures = BTreeMap::new();
        let of_service = task.service.into_iter().flat_map(|service| self.view.tasks_of(service));
        for other in of_service.filter(|other| other.spec_version == task.spec_version) {
            let status = self.view.status(other);
            let failed = matches!(status.state, TaskState::Failed | TaskState::Rejected);
            if let Some(node) = other.node.filter(|_| failed && self.now.since(status.since) < RECENT) {
                *failures.entry(node).or_default() += 1;
            }
        }
        failures
    }

    /// Gives the task to the node of that row, which no filter refuses.
    fn assign(&mut self, task: &Task, row: usize, pipeline: &Pipeline) {
        let row = self.table.row_mut(row);
        let message = if task.node.is_some() { CONFIRMED } else { ASSIGNED };
        let assigned = Task {
            meta: Meta { updated_at: self.now, ..task.meta },
            node: Some(row.node.id),
            generic_resources: row.choose_generic(&pipeline.wants.generic).unwrap_or_default(),
            status: TaskStatus {
                state: TaskState::Assigned,
                since: self.now,
                message: message.to_owned(),
                ..TaskStatus::default()
            },
            ..task.clone()
        };
        row.add(&assigned, &assigned.status);
        self.wanted.update(assigned);
    }

    fn reason_of_node(&self, task: &Task, pipeline: &Pipeline) -> String {
        let row = task.node.and_then(|node| self.table.find(node));
        // A node that is no more takes no tasks either.
        let refusal = row.and_then(|row| pipeline.refusal(&self.table.rows()[row])).unwrap_or(Filter::Ready);
        refusal.explain(1)
    }

    /// Writes why the task waits, unless it says so already.
    fn keep_waiting(&mut self, task: &Task, reason: &str) {
        if task.status.error != reason {
            let mut told = task.clone();
            told.meta.updated_at = self.now;
            told.status.error = reason.to_owned();
            self.wanted.update(told);
        }
    }
}
