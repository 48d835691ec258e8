//! The reaper: removes ended tasks beyond what history keeps, and those that were marked to be removed.
//!
//! Some ended tasks are facts that others are derived from, and stay however short the history: the newest of a slot
//! (it says whether the slot was given up), what a job has completed, what a restart policy counts, what an update that is
//! on counts, and, while they are recent, the failures that the scheduler counts against nodes, and what was displaced.

use std::collections::BTreeMap;

use super::rebalance::REMEMBERED;
use super::restart::{is_attempt, policy};
use crate::id::{NodeId, ServiceId};
use crate::label::schedule;
use crate::objects::service::UpdateState;
use crate::objects::{ClusterSpec, Service, Task, TaskState};
use crate::reconciled::Reconciled;
use crate::scheduler::{RECENT, TOO_MANY};
use crate::time::Timestamp;
use crate::view::View;

pub(super) fn reconcile(view: &View<'_>, service: ServiceId, now: Timestamp) -> Reconciled {
    let mut wanted = Reconciled::default();
    let mut slots: BTreeMap<(u64, Option<NodeId>), Vec<&Task>> = BTreeMap::new();
    let object = view.service(service).map(AsRef::as_ref);
    for task in view.tasks_of(service) {
        if task.desired_state == TaskState::Remove {
            if is_over(task) {
                wanted.remove(task.id);
            }
        } else if let Some(service) = object {
            slots.entry(key_of(service, task)).or_default().push(task);
        }
    }
    let Some(service) = object else { return wanted };
    for tasks in slots.into_values() {
        SlotHistory::new(view, service, tasks).reap(now, &mut wanted);
    }
    wanted
}

/// Whether no container of it can run: its end is committed, or no worker ever had it.
fn is_over(task: &Task) -> bool {
    task.status.state.is_terminal() || task.status.state < TaskState::Assigned
}

fn key_of(service: &Service, task: &Task) -> (u64, Option<NodeId>) {
    if service.spec.mode.is_bound_to_nodes() { (0, task.node) } else { (task.slot, None) }
}

/// How long it bounds what is displaced next, if it was.
fn displaced_until(task: &Task, now: Timestamp) -> Option<Timestamp> {
    let until = task.displaced.as_ref()?.at.after(REMEMBERED);
    (!until.is_due(REMEMBERED, now)).then_some(until)
}

struct SlotHistory<'v> {
    view: &'v View<'v>,
    service: &'v Service,
    /// The oldest first.
    tasks: Vec<&'v Task>,
}

impl<'v> SlotHistory<'v> {
    fn new(view: &'v View<'v>, service: &'v Service, mut tasks: Vec<&'v Task>) -> Self {
        tasks.sort_by_key(|task| (task.meta.created_at, task.id));
        Self { view, service, tasks }
    }

    fn reap(&self, now: Timestamp, wanted: &mut Reconciled) {
        let kept_runs = schedule::kept_runs(&self.service.spec.labels);
        let excess = self.history().map_or(0, |history| self.tasks.len().saturating_sub(history));
        let mut reaped = 0;
        for task in self.tasks.iter().filter(|task| self.is_history(task) && !self.is_fact(task)) {
            let is_excess = match kept_runs.and_then(|kept| self.is_kept_run(task, kept)) {
                Some(is_kept) => !is_kept,
                None => reaped < excess,
            };
            if !is_excess && !self.is_of_removed_node(task) {
                continue;
            }
            if let Some(moment) = self.counted_until(task, now).max(displaced_until(task, now)) {
                wanted.wake(moment);
            } else {
                wanted.remove(task.id);
                reaped += 1;
            }
        }
    }

    /// How long the scheduler counts the task against its node, if it does: as one of so many newest failures of the present
    /// spec as make a node the last choice. With a short history a service of one task would never leave a bad node.
    fn counted_until(&self, task: &Task, now: Timestamp) -> Option<Timestamp> {
        let is_counted = |it: &Task| {
            matches!(it.status.state, TaskState::Failed | TaskState::Rejected)
                && it.spec_version == self.service.spec_version
                && now.since(it.status.since) < RECENT
        };
        let most = usize::try_from(TOO_MANY).unwrap_or(usize::MAX);
        let mut counted = self.tasks.iter().rev().filter(|it| is_counted(it)).take(most);
        counted.find(|it| it.id == task.id).map(|it| it.status.since.after(RECENT))
    }

    /// How many tasks the slot keeps, the present one too; none is all.
    fn history(&self) -> Option<usize> {
        let limit = self
            .view
            .cluster()
            .map_or(ClusterSpec::default().task_history_limit, |cluster| cluster.spec.task_history_limit);
        let limit = u64::try_from(limit).ok()?;
        let attempts = self.service.spec.task.restart.unwrap_or_default().max_attempts;
        let counted = if attempts == 0 { 0 } else { attempts.saturating_add(1) };
        usize::try_from(limit.max(counted)).ok()
    }

    /// Of the last task of an earlier run, whether that is one of so many that a schedule keeps; none of any other task.
    fn is_kept_run(&self, task: &Task, kept: u64) -> Option<bool> {
        let (run, present) = (task.job_iteration?, self.service.job?.iteration);
        let is_last = self.tasks.iter().rev().find(|it| it.job_iteration == Some(run))?.id == task.id;
        (run < present && is_last).then(|| run.saturating_add(kept) >= present)
    }

    /// Whether it has ended, is not wanted, and its worker needs not to tell of it again.
    fn is_history(&self, task: &Task) -> bool {
        let is_wanted = task.desired_state < TaskState::Shutdown && !self.is_of_earlier_job(task);
        task.status.state.is_terminal() && !is_wanted
    }

    fn is_of_earlier_job(&self, task: &Task) -> bool {
        task.job_iteration.is_some_and(|of| of != self.service.job.map_or(0, |job| job.iteration))
    }

    fn is_of_removed_node(&self, task: &Task) -> bool {
        task.status.state == TaskState::Orphaned
            && task.node.is_some_and(|node| self.view.node(node).is_none())
    }

    fn is_fact(&self, task: &Task) -> bool {
        self.says_how_the_slot_stands(task)
            || self.is_completion(task)
            || self.is_counted_attempt(task)
            || self.is_counted_by_update(task)
            || self.is_waited_for(task)
    }

    fn says_how_the_slot_stands(&self, task: &Task) -> bool {
        let slot_is_gone = self.service.spec.mode.is_bound_to_nodes() && self.is_of_removed_node(task);
        self.tasks.last().is_some_and(|newest| newest.id == task.id) && !slot_is_gone
    }

    /// Also one that was given up as lost, completed all the same, and was heard of late: its slot is done.
    fn is_completion(&self, task: &Task) -> bool {
        task.job_iteration.is_some()
            && !self.is_of_earlier_job(task)
            && task.status.state == TaskState::Complete
    }

    fn is_counted_attempt(&self, task: &Task) -> bool {
        let Some(newest) = self.tasks.last() else { return false };
        let max = usize::try_from(policy(newest).max_attempts).unwrap_or(usize::MAX);
        let mut attempts = self.tasks.iter().rev().filter(|attempt| is_attempt(attempt, newest)).take(max);
        attempts.any(|attempt| attempt.id == task.id)
    }

    fn is_counted_by_update(&self, task: &Task) -> bool {
        self.service.update_status.as_ref().is_some_and(|status| {
            matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted)
                && task.spec_version == self.service.spec_version
        })
    }

    /// A fenced successor is held for as long as a lost task may still run.
    fn is_waited_for(&self, task: &Task) -> bool {
        task.status.state == TaskState::Orphaned
            && self.tasks.iter().any(|held| held.desired_state == TaskState::Ready)
    }
}
