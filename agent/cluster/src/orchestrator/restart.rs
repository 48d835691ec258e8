//! The restart supervisor: whether a task that has ended or lost its node gets a successor, and when that one may start.
//!
//! It keeps no history. An attempt is a task with a `start_after`: it was made since another one of its slot had ended by
//! itself. The reaper keeps as many of them as the policy counts.

use std::time::Duration;

use super::fence;
use super::service_view::{Ground, ServiceView, ended_by_itself};
use super::slot::Slot;
use crate::fault::Fault;
use crate::objects::node::NodeState;
use crate::objects::task::{RestartCondition, RestartPolicy, Stop};
use crate::objects::{Task, TaskState};
use crate::time::Timestamp;

/// How long a successor waits for a task that doesn't stop although its node is there.
const STOP_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The policy allows no successor.
    GiveUp,
    /// The task is itself a successor that ended while it was held: its delay must pass first, or a task that can't even
    /// be prepared would be replaced as fast as it is refused.
    Later(Timestamp),
    /// A successor, which may start at that moment; an attempt, if there is one.
    Replace { start_after: Option<Timestamp> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    At(Timestamp),
    /// When the task that is waited for has stopped, or its node is down.
    OnChange,
}

pub(super) fn policy(task: &Task) -> RestartPolicy {
    task.spec.restart.unwrap_or_default()
}

/// Of a task that has ended, or can't stay, or was asked to stop without a successor.
pub(super) fn verdict(service: &ServiceView<'_>, slot: &Slot<'_>, task: &Task) -> Verdict {
    let state = service.state(task);
    if !has_ended_by_itself(service, task, state) {
        return if is_replaced_elsewhere(service, task) {
            Verdict::Replace { start_after: None }
        } else {
            Verdict::GiveUp
        };
    }
    if !condition_allows(service, task, state) || Fault::RestartLost.is_made() {
        return Verdict::GiveUp;
    }
    let held = delayed_until(service, task).filter(|_| task.desired_state == TaskState::Ready);
    if let Some(moment) = held {
        return Verdict::Later(moment);
    }
    if is_exhausted(service, slot, task) {
        return Verdict::GiveUp;
    }
    // The delay of the policy that the successor will have: it is known when that is asked for.
    let delay = service.service.spec.task.restart.unwrap_or_default().delay;
    let delay = if service.ground(task) == Ground::Sound { delay } else { Duration::ZERO };
    Verdict::Replace { start_after: Some(service.now.after(delay)) }
}

/// Whether it was its own doing. One that managers have asked to stop may end with 0 or fail on its way: that is theirs.
fn has_ended_by_itself(service: &ServiceView<'_>, task: &Task, state: TaskState) -> bool {
    let ended = ended_by_itself(state) || (service.is_wanted(task) && state == TaskState::Shutdown);
    ended && task.stop == Stop::NotAsked
}

/// Whether one that did not end by itself, but was stopped or lost, has a successor. A replicated service with a policy of
/// none has none, as SwarmKit; where each node or each completion has a slot, the slot is empty, whatever the policy says.
fn is_replaced_elsewhere(service: &ServiceView<'_>, task: &Task) -> bool {
    let mode = service.service.spec.mode;
    mode.is_job() || mode.is_bound_to_nodes() || policy(task).condition != RestartCondition::None
}

fn condition_allows(service: &ServiceView<'_>, task: &Task, state: TaskState) -> bool {
    match policy(task).condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => state != TaskState::Complete,
        // A job that restarted what has completed would never end.
        RestartCondition::Any => state != TaskState::Complete || !service.service.spec.mode.is_job(),
    }
}

/// Whether the slot has had as many attempts with the task's spec version as its policy allows: in all time, or within
/// the window before the task's end.
fn is_exhausted(service: &ServiceView<'_>, slot: &Slot<'_>, task: &Task) -> bool {
    let policy = policy(task);
    if policy.max_attempts == 0 {
        return false;
    }
    // This leader's clock may be behind the last one's, but no task has ended before it was made.
    let end = service.status(task).since.max(task.meta.created_at);
    let counts = |attempt: &Task| {
        is_attempt(attempt, task)
            && (policy.window.is_zero() || attempt.meta.created_at.after(policy.window) > end)
    };
    let attempts = slot.tasks().filter(|attempt| counts(attempt)).count();
    u64::try_from(attempts).unwrap_or(u64::MAX) >= policy.max_attempts
}

/// Whether it counts as an attempt of the other one's spec version.
pub(super) fn is_attempt(task: &Task, of: &Task) -> bool {
    task.start_after.is_some() && task.spec_version == of.spec_version
}

/// When a held task of the slot may start.
pub(super) fn start(service: &ServiceView<'_>, slot: &Slot<'_>, task: &Task) -> Start {
    let delay = delayed_until(service, task).map_or(Start::Now, Start::At);
    let waits = waited_for(slot, task).map(|old| wait(service, old, task));
    let fenced = fenced_off(service, task).map(|old| wait(service, old, task));
    waits.chain(fenced).fold(delay, later)
}

/// Of a fenced service: whatever was in the task's slot before and may run still, also what is to be removed since the slot was
/// scaled away or the job was run anew.
fn fenced_off<'s>(service: &'s ServiceView<'_>, task: &'s Task) -> impl Iterator<Item = &'s Task> {
    let is_bound = service.service.spec.mode.is_bound_to_nodes();
    let is_fenced = fence::wait(&service.service.spec.labels).is_some();
    let before = is_fenced.then(|| service.view.tasks_in(service.service.id, task.slot));
    before.into_iter().flatten().map(AsRef::as_ref).filter(move |old: &&Task| {
        let is_same_slot = !is_bound || old.node == task.node;
        is_same_slot && old.id != task.id && old.desired_state >= TaskState::Shutdown
    })
}

/// Whether the first task of a slot must be held at first: something of a fenced service may run there still.
pub(super) fn is_held_at_birth(service: &ServiceView<'_>, task: &Task) -> bool {
    fenced_off(service, task).any(|old| wait(service, old, task) != Start::Now)
}

fn delayed_until(service: &ServiceView<'_>, task: &Task) -> Option<Timestamp> {
    task.start_after.filter(|moment| !moment.is_due(policy(task).delay, service.now))
}

/// Older tasks that must have stopped: the one that it replaces, and all that were asked to stop.
fn waited_for<'s>(slot: &'s Slot<'_>, task: &'s Task) -> impl Iterator<Item = &'s Task> {
    slot.tasks().filter(move |old| {
        let Some(replaces) = task.replaces else { return false };
        let is_older = old.id != task.id && old.meta.created_at < task.meta.created_at;
        is_older && (old.id == replaces || old.desired_state >= TaskState::Shutdown)
    })
}

fn wait(service: &ServiceView<'_>, old: &Task, task: &Task) -> Start {
    let status = service.status(old);
    let is_over = status.state.is_terminal() && status.state != TaskState::Orphaned;
    if is_over || status.state < TaskState::Assigned {
        return Start::Now;
    }
    let node = old.node.and_then(|node| service.view.node(node));
    let lost_since = match node {
        Some(node) if is_lost(node.status.state) => Some(node.status.since),
        // Of a removed node's task no more than that is known; it may run still.
        None if status.state == TaskState::Orphaned => Some(status.since),
        _ => None,
    };
    match (lost_since, fence::wait(&service.service.spec.labels)) {
        (Some(_), None) => Start::Now,
        // To start too early would break the promise: `orphans` dates a loss anew that lies ahead, and it is waited for.
        (Some(since), Some(_)) if node.is_some() && since.is_ahead_of(service.now) => Start::OnChange,
        (Some(since), Some(fence)) => after(since, fence, service.now),
        (None, None) if node.is_none() => Start::Now,
        (None, None) => after(task.meta.created_at, STOP_WAIT, service.now),
        // At most one of a fenced service ever runs: while the node is there, it will say when the task has stopped.
        (None, Some(_)) => Start::OnChange,
    }
}

fn is_lost(state: NodeState) -> bool {
    matches!(state, NodeState::Down | NodeState::Disconnected)
}

fn after(since: Timestamp, span: Duration, now: Timestamp) -> Start {
    let moment = since.after(span);
    if moment.is_due(span, now) { Start::Now } else { Start::At(moment) }
}

fn later(one: Start, other: Start) -> Start {
    match (one, other) {
        (Start::OnChange, _) | (_, Start::OnChange) => Start::OnChange,
        (Start::At(one), Start::At(other)) => Start::At(one.max(other)),
        (Start::At(moment), Start::Now) | (Start::Now, Start::At(moment)) => Start::At(moment),
        (Start::Now, Start::Now) => Start::Now,
    }
}
