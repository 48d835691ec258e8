//! The start order that the label `ketch.depends_on` asks for: which new tasks wait at their gate, and what they say.
//!
//! A task whose gate is closed holds no address and no place on a node: the allocator does not see it. So what it waits for
//! can't be kept away by it. Only the first tasks of a service wait, and what replaces one that still waited; a gate that was
//! opened stays open, and no restart, move or update waits again. Nor does a new slot of a service that has begun: what it depends on
//! may have a replica fewer for a moment, just when more of the service are needed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::service_view::ServiceView;
use super::slot::{Room, Slot};
use super::{global, jobs};
use crate::fault::Fault;
use crate::id::TaskId;
use crate::label::depends_on::{self, Dependency, Until};
use crate::objects::task::Gate;
use crate::objects::{Service, ServiceMode, Task, TaskState};
use crate::reconciled::Reconciled;
use crate::store::{Object, ObjectId, ObjectKind, StoreAction};

/// Closes the gates of the first tasks among those that are wanted, while the service has to wait, and says what for; opens
/// those that wait no longer.
pub(super) fn keep(service: &ServiceView<'_>, wanted: &mut Reconciled) {
    let others: BTreeSet<TaskId> = wanted.actions.iter().filter_map(written).collect();
    let waiting: Vec<_> =
        service.view.tasks_at_gate(service.service.id).filter(|task| !others.contains(&task.id)).collect();
    let is_first = |action: &StoreAction| first(service, action);
    if waiting.is_empty() && !wanted.actions.iter().any(is_first) {
        return;
    }
    let reason = reason_to_wait(service);
    if let Some(reason) = reason.as_ref().filter(|_| !has_begun(service)) {
        for action in wanted.actions.iter_mut().filter(|action| first(service, action)) {
            close(action, reason);
        }
    }
    for task in waiting.into_iter().filter(|task| service.is_wanted(task)) {
        if Some(&*task.status.error) != reason.as_deref() {
            wanted.update(told(service, task, reason.as_deref()));
        }
    }
}

/// The task that the action writes over or takes away.
fn written(action: &StoreAction) -> Option<TaskId> {
    match action {
        StoreAction::Update(Object::Task(task)) => Some(task.id),
        StoreAction::Remove(ObjectId::Task(id)) => Some(*id),
        _ => None,
    }
}

/// Whether one of the tasks that are wanted has passed its gate. Each run of a job begins anew.
fn has_begun(service: &ServiceView<'_>) -> bool {
    let passed = |task: &Arc<Task>| task.gate == Gate::Open && service.is_wanted(task);
    !service.service.spec.mode.is_job() && service.view.tasks_of(service.service.id).any(passed)
}

/// Whether it makes the first task of a slot, or one in the place of a task that never came to start.
fn first(service: &ServiceView<'_>, action: &StoreAction) -> bool {
    let StoreAction::Create(Object::Task(task)) = action else { return false };
    let replaced = task.replaces.map(|id| service.view.task(id));
    replaced.is_none_or(|replaced| replaced.is_some_and(|replaced| replaced.gate == Gate::Closed))
}

fn close(action: &mut StoreAction, reason: &str) {
    if let StoreAction::Create(Object::Task(task)) = action {
        let task = Arc::make_mut(task);
        task.gate = Gate::Closed;
        task.status.error = reason.into();
    }
}

/// The waiting task as it is with that reason to wait, or without one.
fn told(service: &ServiceView<'_>, task: &Task, reason: Option<&str>) -> Task {
    let mut told = task.clone();
    told.meta.updated_at = service.now;
    told.gate = if reason.is_some() { Gate::Closed } else { Gate::Open };
    told.status.error = reason.unwrap_or_default().into();
    told
}

/// What the service's first tasks wait for; none when all that it depends on is there.
fn reason_to_wait(service: &ServiceView<'_>) -> Option<String> {
    match depends_on::parse(&service.service.spec.labels) {
        Ok(dependencies) => dependencies.iter().find_map(|dependency| missing(service, dependency)),
        // `control` lets none in; one that is here must not start what was to wait.
        Err(unreadable) => Some(unreadable.to_string()),
    }
}

fn missing(service: &ServiceView<'_>, dependency: &Dependency) -> Option<String> {
    let Some(other) = found(service, dependency) else {
        return Some(format!("waiting for service {}, which does not exist", dependency.name));
    };
    let name = &other.spec.name;
    let other = ServiceView { view: service.view, service: other, now: service.now };
    if is_there(&other, dependency.until) {
        None
    } else if other.service.spec.mode.is_job() {
        Some(format!("waiting for service {name} to complete"))
    } else {
        Some(format!("waiting for service {name} {}", dependency.until))
    }
}

/// The service that is meant: of the same stack, if it has one of that name.
fn found<'s>(service: &'s ServiceView<'_>, dependency: &Dependency) -> Option<&'s Service> {
    let view = &service.view;
    let mut names = dependency.names(&service.service.spec.labels);
    names.find_map(|name| match view.by_name(ObjectKind::Service, &name) {
        Some(ObjectId::Service(id)) => view.service(id).map(AsRef::as_ref),
        _ => None,
    })
}

/// Whether each slot that the service wants is that far; of a job, whether its present iteration is complete.
fn is_there(service: &ServiceView<'_>, until: Until) -> bool {
    match service.service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            let slots = Slot::numbered(service, |_| true);
            let there = slots.iter().filter(|slot| is_far_enough(service, slot, until)).count();
            u64::try_from(there).unwrap_or(u64::MAX) >= replicas
        }
        ServiceMode::Global => global::slots_of(service, |_| true)
            .iter()
            .filter(|slot| slot.room == Room::Open)
            .all(|slot| is_far_enough(service, slot, until)),
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => jobs::is_complete(service),
    }
}

/// One task of the slot is that far. Or the last one has ended well, and is not to run again: so are steps of an
/// installation written that are no jobs.
fn is_far_enough(service: &ServiceView<'_>, slot: &Slot<'_>, until: Until) -> bool {
    let least = match until {
        Until::Healthy if !Fault::HealthSkipped.is_made() => TaskState::Running,
        Until::Started | Until::Healthy => TaskState::Starting,
    };
    let is_far = |task: &Task| service.stays(task) && service.state(task) >= least;
    let has_ended_well = || {
        let head = slot.head(service).filter(|head| service.state(head) == TaskState::Complete);
        head.is_some() && slot.is_given_up(service)
    };
    slot.wanted(service).any(is_far) || has_ended_well()
}

#[cfg(test)]
mod tests;
