//! Preemption: room for tasks of a higher priority that could be placed nowhere, taken from tasks of lower ones on one node.
//!
//! The last step of a pass before reasons are told, and only where services ask for priorities. What it takes is asked to stop, and says
//! by whom it was preempted; the task that takes its place is promised the node and keeps waiting, see [`promise`](super::promise).
//! `victims` says which tasks of a node are taken, `budget` how many at most. `design/placement.md` has the whole of it.

mod budget;
#[cfg(test)]
mod tests;
mod victims;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::batch::Batch;
use super::filter::Filter;
use super::nodes::NodeRow;
use super::pipeline::Pipeline;
use super::room::{host_of, name_of};
use super::{Pass, REASON_HOLDS};
use crate::id::TaskId;
use crate::label::priority::{self, Priority};
use crate::objects::displacement::{Cause, Displacement, Promise};
use crate::objects::{Node, Task, TaskState};
use crate::orchestrator::{Wish, stopped};
use crate::view::View;
use budget::Budget;
use victims::{Chosen, Ranks};

/// How many batches a pass looks at all nodes for: others wait for the next one.
const SEARCHES: usize = 4;

/// Of so many nodes on which it can be done the best one is taken, as in Kubernetes: which is best of thousands is worth no look at all.
const WEIGHED: usize = 100;

/// Batches of higher priorities come first; the order of equal ones stays.
pub(super) fn highest_first(view: &View<'_>, batches: &mut [Batch<'_>]) {
    if view.lowest_priority().is_some() {
        batches.sort_by_key(|batch| Reverse(priority::of(view, batch.sample)));
    }
}

/// A task that could be placed nowhere, and may take room.
#[derive(Clone, Copy)]
struct Asker<'t> {
    task: &'t Task,
    pipeline: &'t Pipeline,
    priority: Priority,
}

/// What is known while a pass makes room.
struct Making<'v> {
    ranks: Ranks<'v>,
    budget: Budget,
    /// Asked to stop in this pass.
    taken: BTreeSet<TaskId>,
    searches: usize,
}

impl Pass<'_> {
    /// Makes room for what is left of a pass. Those that were told what they wait for are returned.
    pub(super) fn make_room(
        &mut self,
        bound: &[(&Pipeline, &Task)],
        free: &[(&Pipeline, &[&Arc<Task>])],
    ) -> BTreeSet<TaskId> {
        let mut told = BTreeSet::new();
        let mut making = Making {
            ranks: Ranks::of(*self.view),
            budget: Budget::of(self.view, self.now),
            taken: BTreeSet::new(),
            searches: SEARCHES,
        };
        let mut failed: Option<&Pipeline> = None;
        for asker in self.askers(bound, free) {
            let has_failed = failed.is_some_and(|it| std::ptr::eq(it, asker.pipeline));
            if making.budget.is_spent() || making.searches == 0 {
                break;
            }
            if has_failed && asker.task.node.is_none() {
                continue;
            }
            match self.best_for(asker, &mut making) {
                Some((row, chosen)) => {
                    self.take(row, chosen, asker, &mut making);
                    told.insert(asker.task.id);
                }
                None => {
                    making.searches -= 1;
                    failed = Some(asker.pipeline);
                }
            }
        }
        told
    }

    /// The tasks for which somebody of a lower priority may be there, the highest first. One that has looked in vain looks again when
    /// its reason may be out of date.
    fn askers<'t>(
        &self,
        bound: &[(&'t Pipeline, &'t Task)],
        free: &[(&'t Pipeline, &'t [&'t Arc<Task>])],
    ) -> Vec<Asker<'t>> {
        let Some(lowest) = self.view.lowest_priority() else { return Vec::new() };
        let lowest = lowest.min(0);
        let free = free.iter().flat_map(|(pipeline, tasks)| tasks.iter().map(|task| (*pipeline, &***task)));
        let all = bound.iter().copied().chain(free).filter(|(_, task)| self.may_tell(task));
        let asker = |(pipeline, task)| Asker { task, pipeline, priority: priority::of(self.view, task) };
        let mut askers: Vec<_> = all.map(asker).filter(|asker| asker.priority > lowest).collect();
        askers.sort_by_key(|asker| Reverse(asker.priority));
        askers
    }

    /// The node where it costs least, with who would have to go. Among equal ones the first on the way around the ring of nodes.
    fn best_for(&mut self, asker: Asker<'_>, making: &mut Making<'_>) -> Option<(usize, Chosen)> {
        self.put.follow(&self.wanted.actions);
        let rows = self.table.rows();
        let start = self.table.start_of(asker.task.service);
        let ring: Vec<usize> = match asker.task.node {
            Some(node) => self.table.find(node).into_iter().collect(),
            None => (start..rows.len()).chain(0..start).collect(),
        };
        let mut best: Option<(usize, Chosen)> = None;
        let mut weighed = 0;
        for row in ring.into_iter().filter(|row| could_have(&rows[*row], asker)) {
            let Some(chosen) = self.victims_on(row, asker, making) else { continue };
            weighed += 1;
            if best.as_ref().is_none_or(|(_, best)| chosen.cost() < best.cost()) {
                best = Some((row, chosen));
            }
            if weighed == WEIGHED || best.as_ref().is_some_and(|(_, best)| best.victims.is_empty()) {
                break;
            }
        }
        best.map(|(row, chosen)| (row, self.smaller(row, chosen, asker, making)))
    }

    /// Asks the victims to stop, and promises their room.
    fn take(&mut self, row: usize, chosen: Chosen, asker: Asker<'_>, making: &mut Making<'_>) {
        let node = Arc::clone(&self.table.rows()[row].node);
        making.budget.spend(&chosen.victims);
        making.taken.extend(chosen.victims.iter().map(|victim| victim.id));
        let mut leaving = self.leaving(&node);
        leaving
            .extend(self.view.tasks_on(node.id).map(|task| task.id).filter(|it| making.taken.contains(it)));
        leaving.sort();
        let mut told = asker.task.clone();
        told.meta.updated_at = self.now;
        told.promised = Some(Box::new(Promise { node: node.id }));
        told.status.error = self.waits_for(&node, &leaving);
        self.wanted.update(told);
        // Who has told a reason looks at it again.
        self.wanted.wake(self.now.after(REASON_HOLDS));
        for victim in &chosen.victims {
            let rank = making.ranks.of_task(victim).priority;
            let preempted = self.preempted(victim, rank, asker, &node);
            self.wanted.update(preempted);
        }
        self.keep_room(row, asker.task, asker.pipeline, &leaving);
    }

    fn preempted(&self, victim: &Task, own: Priority, by: Asker<'_>, node: &Node) -> Task {
        let wish = Wish { desired: TaskState::Shutdown, now: self.now };
        let reason = format!(
            "preempted on {} by {} of priority {}: its own is {own}",
            host_of(node),
            name_of(by.task),
            by.priority
        );
        let cause = Cause::Preempted { by: by.task.id, its_priority: by.priority, own_priority: own };
        let displaced = Displacement { at: self.now, cause, reason };
        Task { displaced: Some(Box::new(displaced)), ..stopped(self.view, victim, wish) }
    }
}

/// Whether it is for what lower priorities may hold alone that the node can't have the task: not for what the node is, nor for tasks of
/// its own service.
fn could_have(row: &NodeRow, asker: Asker<'_>) -> bool {
    let wants = &asker.pipeline.wants;
    let others = Filter::ALL.into_iter().filter(|it| !matches!(it, Filter::Resources | Filter::HostPorts));
    let mut others = others.filter(|filter| filter.applies(wants));
    let wanted = &asker.task.spec.resources.reservations;
    let has = row.node.description.as_ref().map(|it| &it.resources);
    let is_large_enough =
        has.is_some_and(|it| wanted.nano_cpus <= it.nano_cpus && wanted.memory_bytes <= it.memory_bytes);
    is_large_enough && others.all(|filter| filter.passes(wants, row))
}
