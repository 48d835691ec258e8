//! How a task of a service is made, and how it is asked to stop. Every orchestrator makes and stops its tasks here.

use std::sync::Arc;
use std::time::Duration;

use super::service_view::ServiceView;
use super::{restart, texts};
use crate::id::{NewBits, NodeId, TaskId};
use crate::objects::decision::{Cause, Decision};
use crate::objects::task::Stop;
use crate::objects::{Driver, Endpoint, Meta, Task, TaskState, TaskStatus};
use crate::time::Timestamp;
use crate::view::View;

/// What is particular about a new task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Birth {
    pub(super) slot: u64,
    /// Of a global service's.
    pub(super) node: Option<NodeId>,
    pub(super) desired: TaskState,
    pub(super) start_after: Option<Timestamp>,
    pub(super) replaces: Option<TaskId>,
    /// When the slot's newest task was made: this one is newer, so that a slot's tasks always have an order.
    pub(super) newer_than: Option<Timestamp>,
    /// None of the first one in a slot: the service says it.
    pub(super) cause: Option<Cause>,
}

impl Birth {
    /// The first one in a slot.
    pub(super) fn first(slot: u64, node: Option<NodeId>, desired: TaskState) -> Self {
        Self { slot, node, desired, start_after: None, replaces: None, newer_than: None, cause: None }
    }
}

/// Why a slot of the service has its first task.
fn first_cause(service: &ServiceView<'_>, node: Option<NodeId>) -> Cause {
    let of = service.service;
    if of.spec.mode.is_job() {
        return Cause::Run;
    }
    let node = node.and_then(|node| service.view.node(node));
    match node {
        Some(node) if node.status.since > of.meta.created_at => Cause::NodeCame,
        None if of.previous_spec.is_some() || of.replicas_changed_at.is_some() => Cause::Scaled,
        _ => Cause::Created,
    }
}

/// A new task of the service's present spec. It is held, whatever was asked for, while a fence says so.
pub(super) fn new(service: &ServiceView<'_>, birth: Birth, bits: NewBits<'_>) -> Task {
    let id = TaskId::new(bits);
    let of = service.service;
    let next = birth.newer_than.map(|newest| newest.after(Duration::from_nanos(1)));
    let task = Task {
        meta: Meta::new(next.map_or(service.now, |next| next.max(service.now))),
        spec_version: of.spec_version,
        service: Some(of.id),
        slot: birth.slot,
        node: birth.node,
        name: name(&of.spec.name, birth, id).into(),
        service_name: of.spec.name.as_str().into(),
        service_labels: of.spec.labels.clone(),
        status: TaskStatus {
            state: TaskState::New,
            since: service.now,
            message: Arc::clone(&texts::CREATED),
            ..TaskStatus::default()
        },
        desired_state: birth.desired,
        start_after: birth.start_after,
        replaces: birth.replaces,
        endpoint: Some(Endpoint {
            spec: of.spec.endpoint.clone().unwrap_or_default(),
            ..Endpoint::default()
        }),
        log_driver: log_driver(service),
        job_iteration: of.spec.mode.is_job().then(|| of.job.map_or(0, |job| job.iteration)),
        decision: Decision {
            cause: birth.cause.unwrap_or_else(|| first_cause(service, birth.node)),
            placed: None,
        },
        ..Task::new(id, of.spec.task.clone())
    };
    if restart::is_held_at_birth(service, &task) {
        return Task { desired_state: TaskState::Ready, ..task };
    }
    task
}

fn name(service: &str, birth: Birth, id: TaskId) -> String {
    match birth.node {
        Some(node) => format!("{service}.{node}.{id}"),
        None => format!("{service}.{}.{id}", birth.slot),
    }
}

fn log_driver(service: &ServiceView<'_>) -> Option<Driver> {
    let own = service.service.spec.task.log_driver.clone();
    own.or_else(|| service.view.cluster()?.spec.log_driver.clone())
}

/// What a task is asked to become, and when: shutdown or remove.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) desired: TaskState,
    pub(crate) now: Timestamp,
}

/// The task, asked to stop. One that is not known to have ended is remembered as asked: how it ends is not its own doing.
/// One that no worker has been given ends here and now; nobody else would ever end it.
pub(crate) fn stopped(view: &View<'_>, task: &Task, wish: Wish) -> Task {
    let Wish { desired, now } = wish;
    let mut task = task.clone();
    if !view.state(&task).is_terminal() {
        task.stop = Stop::Asked;
    }
    // It was to move, and goes on until the one that replaces it runs: who asks it to stop knows whether it moves by that.
    if let Some(displaced) = task.displaced.as_mut().filter(|_| task.desired_state <= TaskState::Complete) {
        displaced.reason.clear();
    }
    task.desired_state = desired;
    task.meta.updated_at = now;
    if task.status.state < TaskState::Assigned {
        task.status = TaskStatus { state: TaskState::Shutdown, since: now, ..task.status };
    }
    task
}

/// The task with another desired state.
pub(super) fn wanted(task: &Task, desired: TaskState, now: Timestamp) -> Task {
    let mut task = task.clone();
    task.desired_state = desired;
    task.meta.updated_at = now;
    task
}
