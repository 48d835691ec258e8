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
use std::collections::{BTreeMap, BTreeSet};
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
use budget::{Budget, MOST_AT_ONCE};
use victims::{Chosen, Ranks};

/// How many batches a pass looks at all nodes for, and for how many tasks at the one node that they are bound to. Others have their turn in
/// the next one, which comes soon after: who has looked in vain is written, and steps back.
const SEARCHES: usize = 4;
const LOOKS: usize = 64;

/// Of so many nodes on which it can be done the best one is taken, as in Kubernetes: which is best of thousands is worth no look at all.
const WEIGHED: usize = 100;

/// Batches of higher priorities come first; the order of equal ones stays.
pub(super) fn highest_first(view: &View<'_>, batches: &mut [Batch<'_>]) {
    if view.lowest_priority().is_some() {
        batches.iter_mut().for_each(|batch| batch.priority = priority::of(view, batch.sample));
        batches.sort_by_key(|batch| Reverse(batch.priority));
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
    budget: Budget<'v>,
    /// Asked to stop in this pass.
    taken: BTreeSet<TaskId>,
    /// The lowest priority by which a task yields, of each row that was asked for it.
    lowest: BTreeMap<usize, Option<Priority>>,
    searches: usize,
    looks: usize,
}

/// What came of it, of those that waited.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// They were told for whose room they wait.
    told: BTreeSet<TaskId>,
    /// They have looked in vain.
    vain: BTreeSet<TaskId>,
    /// They have not had their turn. Until then they are told nothing: that would put their turn off.
    later: BTreeSet<TaskId>,
}

/// Whether a task that waits steps back behind others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Stays,
    Back,
}

impl Made {
    /// Whether somebody's turn comes in the next pass.
    pub(super) fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// Whether the task is still to be told why it waits.
    pub(super) fn leaves(&self, task: &Task) -> bool {
        !self.told.contains(&task.id) && !self.later.contains(&task.id)
    }

    pub(super) fn step_of(&self, task: &Task) -> Step {
        if self.vain.contains(&task.id) { Step::Back } else { Step::Stays }
    }
}

/// What a turn of an asker came to.
enum Turn {
    Found(usize, Chosen),
    /// It has looked in vain.
    Vain,
    /// Too many have looked in this pass.
    Later,
    /// There is nothing to look at.
    None,
}

impl Pass<'_> {
    /// Makes room for what is left of a pass.
    pub(super) fn make_room(
        &mut self,
        bound: &[(&Pipeline, &Task)],
        free: &[(&Pipeline, &[&Arc<Task>])],
    ) -> Made {
        let mut made = Made::default();
        let askers = self.askers(bound, free);
        if askers.is_empty() {
            return made;
        }
        let mut making = Making {
            ranks: Ranks::of(*self.view),
            budget: Budget::of(*self.view, self.table.rows().len(), self.now),
            taken: BTreeSet::new(),
            lowest: BTreeMap::new(),
            searches: SEARCHES,
            looks: LOOKS,
        };
        // All free tasks of a batch are alike: where one finds no room, none does.
        let mut over: Option<&Pipeline> = None;
        for asker in askers {
            if making.budget.is_spent() {
                self.wanted.wake(making.budget.grows_at());
                break;
            }
            let is_free = asker.task.node.is_none();
            if is_free && over.is_some_and(|it| std::ptr::eq(it, asker.pipeline)) {
                continue;
            }
            match self.turn_of(asker, &mut making) {
                Turn::Found(row, chosen) => {
                    self.take(row, chosen, asker, &mut making);
                    made.told.insert(asker.task.id);
                    continue;
                }
                Turn::Vain => made.vain.insert(asker.task.id),
                Turn::Later => made.later.insert(asker.task.id),
                Turn::None => continue,
            };
            over = is_free.then_some(asker.pipeline).or(over);
        }
        made
    }

    /// The tasks for which somebody of a lower priority may be there, the highest first. Who has looked in vain looks again when its reason
    /// may be out of date: each bound task by itself, of others the first one for its batch.
    fn askers<'t>(
        &self,
        bound: &[(&'t Pipeline, &'t Task)],
        free: &[(&'t Pipeline, &'t [&'t Arc<Task>])],
    ) -> Vec<Asker<'t>> {
        let Some(lowest) = self.view.lowest_priority() else { return Vec::new() };
        let lowest = lowest.min(0);
        let bound = bound.iter().copied().filter(|(_, task)| self.may_tell(task));
        let free = free.iter().filter(|(_, tasks)| tasks.first().is_some_and(|first| self.may_tell(first)));
        let free = free
            .flat_map(|(pipeline, tasks)| tasks.iter().take(MOST_AT_ONCE).map(|task| (*pipeline, &***task)));
        let asker = |(pipeline, task)| Asker { task, pipeline, priority: priority::of(self.view, task) };
        let is_needed = |asker: &Asker<'_>| asker.priority > lowest && !self.moves_at_leisure(asker.task);
        let mut askers: Vec<_> = bound.chain(free).map(asker).filter(is_needed).collect();
        askers.sort_by_key(|asker| Reverse(asker.priority));
        askers
    }

    fn turn_of(&mut self, asker: Asker<'_>, making: &mut Making<'_>) -> Turn {
        let left = match asker.task.node {
            // Where nothing can be had at its node, that is seen at once, and costs no turn.
            Some(node) if !self.table.find(node).is_some_and(|row| self.could_have(row, asker, making)) => {
                return Turn::None;
            }
            Some(_) => &mut making.looks,
            None => &mut making.searches,
        };
        let Some(fewer) = left.checked_sub(1) else { return Turn::Later };
        match self.best_for(asker, making) {
            Some((row, chosen)) => Turn::Found(row, chosen),
            None => {
                let left = if asker.task.node.is_some() { &mut making.looks } else { &mut making.searches };
                *left = fewer;
                Turn::Vain
            }
        }
    }

    /// The node where it costs least, with who would have to go. Among equal ones the first on its way.
    fn best_for(&mut self, asker: Asker<'_>, making: &mut Making<'_>) -> Option<(usize, Chosen)> {
        self.put.follow(&self.wanted.actions);
        let mut best: Option<(usize, Chosen)> = None;
        let mut weighed = 0;
        for row in self.way_of(asker) {
            if !self.could_have(row, asker, making) {
                continue;
            }
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

    /// The rows in the order in which they are looked at: that of the task before, whose room comes free by itself, others where something is
    /// being stopped, then around the ring of nodes from the service's place.
    fn way_of(&self, asker: Asker<'_>) -> Vec<usize> {
        if let Some(node) = asker.task.node {
            return self.table.find(node).into_iter().collect();
        }
        let start = self.table.start_of(asker.task.service);
        let rows = self.table.rows();
        let before = asker.task.replaces.and_then(|id| self.view.task(id)?.node);
        let before = before.and_then(|node| self.table.find(node));
        let ring = || (start..rows.len()).chain(0..start).filter(|row| Some(*row) != before);
        let leaving = ring().filter(|row| rows[*row].has_leaving());
        let others = ring().filter(|row| !rows[*row].has_leaving());
        before.into_iter().chain(leaving).chain(others).collect()
    }

    /// Whether room may come free on the node of that row, by what is being stopped there or by who yields, and it is for what lower
    /// priorities may hold alone that it can't have the task.
    fn could_have(&self, index: usize, asker: Asker<'_>, making: &mut Making<'_>) -> bool {
        let Some(row) = self.table.rows().get(index) else { return false };
        let Making { ranks, lowest, .. } = making;
        let mut lowest = || *lowest.entry(index).or_insert_with(|| ranks.lowest_on(row));
        (row.has_leaving() || lowest().is_some_and(|lowest| lowest < asker.priority))
            && suits(row, asker.pipeline)
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
        told.status.error = self.waits_for(&node, &leaving).into();
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

/// Whether it is for room alone that the node can't have such a task, of which it has enough when it is empty: not for what the node is, nor
/// for tasks of the same service.
fn suits(row: &NodeRow, pipeline: &Pipeline) -> bool {
    let wants = &pipeline.wants;
    let is_room = |filter: &Filter| matches!(filter, Filter::Resources | Filter::HostPorts);
    let mut others = Filter::ALL.into_iter().filter(|filter| !is_room(filter) && filter.applies(wants));
    let is_large_enough = || {
        let empty = NodeRow::empty(&row.node);
        !Filter::Resources.applies(wants) || Filter::Resources.passes(wants, &empty)
    };
    others.all(|filter| filter.passes(wants, row)) && is_large_enough()
}
