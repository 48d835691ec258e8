//! Services: created, updated, rolled back, removed, listed, counted.

use std::sync::Arc;

use crate::fault::Fault;
use crate::id::{NewBits, ServiceId};
use crate::label::{scale, schedule};
use crate::objects::service::{JobStatus, ScheduleStatus, UpdateState, UpdateStatus};
use crate::objects::task::TaskRuntime;
use crate::objects::{Endpoint, Meta, SecretText, Service, ServiceMode, ServiceSpec, TaskState, Version};
use crate::orchestrator::texts::ROLLBACK_REQUESTED;
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::{rotation, texts, validate};

/// What the API's `services/{id}/update` asks for.
#[derive(Debug, Clone)]
pub struct ServiceUpdate {
    /// The one that the client has read.
    pub version: Version,
    pub spec: ServiceSpec,
    pub rollback: Rollback,
    pub registry_auth: RegistryAuth,
}

/// `rollback=previous`: the update goes back to the spec before this one, and what the client sent is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rollback {
    #[default]
    None,
    Previous,
}

/// Where the registry's credentials come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RegistryAuth {
    /// The client sent them.
    Given(SecretText),
    #[default]
    Spec,
    PreviousSpec,
}

/// # Errors
/// When the spec is not good, or not in this cluster: a name or port is taken, what it refers to is missing.
pub fn create_service(
    view: &View<'_>,
    spec: ServiceSpec,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<(ServiceId, Vec<StoreAction>), ControlError> {
    validate::service(view, &spec, None)?;
    if view.by_name(ObjectKind::Service, &spec.name).is_some() {
        return Err(texts::service_exists(&spec.name));
    }
    let id = ServiceId::new(bits);
    let service = Service {
        id,
        meta: Meta::new(now),
        job: spec.mode.is_job().then(|| new_job(&spec, now)),
        spec,
        // The store writes it.
        spec_version: Version::default(),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: Endpoint::default(),
        update_status: None,
        replicas_changed_at: None,
    };
    Ok((id, vec![StoreAction::Create(service.into())]))
}

/// # Errors
/// As of [`create_service`], and when the mode or name would change, there is no spec to go back to, or the version is
/// not the service's.
pub fn update_service(
    view: &View<'_>,
    id: ServiceId,
    update: ServiceUpdate,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let old = found(view, id)?;
    let next = next_spec(old, &update)?;
    validate::service(view, &next, Some(id))?;
    if std::mem::discriminant(&old.spec.mode) != std::mem::discriminant(&next.mode) {
        return Err(texts::mode_change());
    }
    if old.spec.name != next.name {
        return Err(texts::rename());
    }
    if old.meta.version != update.version && !Fault::StaleVersion.is_made() {
        return Err(texts::out_of_sequence());
    }
    let mut service = Service::clone(old);
    service.meta.updated_at = now;
    match update.rollback {
        Rollback::None => rotation::replace(view, &mut service, next),
        Rollback::Previous => rotation::exchange(&mut service, next),
    }
    service.note_replicas(old.spec.mode, now);
    service.update_status = (update.rollback == Rollback::Previous).then(|| rollback_started(now));
    service.job = old.job.map(|job| next_job(job, (&old.spec, &service.spec), now));
    Ok(vec![StoreAction::Update(service.into())])
}

/// A job with a schedule waits for its first due time.
fn new_job(spec: &ServiceSpec, now: Timestamp) -> JobStatus {
    let schedule =
        is_scheduled(spec).then_some(ScheduleStatus { decided_until: now, ran: false, passed: None });
    JobStatus { iteration: 0, last_execution: now, schedule }
}

fn is_scheduled(spec: &ServiceSpec) -> bool {
    spec.labels.contains_key(schedule::LABEL)
}

/// An update is a new run. Of a job with a schedule it is none, unless it is forced: what is due by the new schedule is so from
/// now on, whatever its past would have been.
fn next_job(job: JobStatus, (old, new): (&ServiceSpec, &ServiceSpec), now: Timestamp) -> JobStatus {
    let anew = JobStatus { iteration: job.iteration + 1, last_execution: now, schedule: None };
    if !is_scheduled(new) {
        return anew;
    }
    let is_same = schedule::ALL.iter().all(|label| old.labels.get(*label) == new.labels.get(*label));
    let is_forced = new.task.force_update > old.task.force_update;
    let known = job.schedule.unwrap_or(ScheduleStatus { decided_until: now, ran: true, passed: None });
    let decided_until = if is_same { known.decided_until } else { known.decided_until.max(now) };
    let schedule = Some(ScheduleStatus { decided_until, ran: known.ran || is_forced, passed: known.passed });
    if is_forced { JobStatus { schedule, ..anew } } else { JobStatus { schedule, ..job } }
}

/// # Errors
/// When there is no such service.
pub fn remove_service(view: &View<'_>, id: ServiceId) -> Result<Vec<StoreAction>, ControlError> {
    found(view, id).map(|service| vec![StoreAction::Remove(service.id.into())])
}

fn found<'v>(view: &'v View<'_>, id: ServiceId) -> Result<&'v Arc<Service>, ControlError> {
    view.service(id).ok_or_else(|| texts::gone(&id.into()))
}

/// The spec that the service is to have.
fn next_spec(old: &Service, update: &ServiceUpdate) -> Result<ServiceSpec, ControlError> {
    match update.rollback {
        Rollback::Previous => {
            let previous = old.previous_spec.clone().ok_or_else(|| texts::no_previous_spec(old.id))?;
            Ok(scale::rolled_back(&old.spec, previous))
        }
        Rollback::None => {
            let auth = registry_auth(old, &update.registry_auth)?;
            let mut spec = update.spec.clone();
            if let TaskRuntime::Container(container) = &mut Arc::make_mut(&mut spec.task).runtime {
                container.registry_auth = auth;
            }
            Ok(spec)
        }
    }
}

fn registry_auth(old: &Service, from: &RegistryAuth) -> Result<Option<SecretText>, ControlError> {
    let auth_of = |spec: &ServiceSpec| spec.task.container().and_then(|it| it.registry_auth.clone());
    match (from, &old.previous_spec) {
        (RegistryAuth::Given(auth), _) => Ok(Some(auth.clone())),
        (RegistryAuth::Spec, _) => Ok(auth_of(&old.spec)),
        (RegistryAuth::PreviousSpec, Some(previous)) => Ok(auth_of(previous)),
        (RegistryAuth::PreviousSpec, None) => Err(texts::no_previous_auth()),
    }
}

/// The updater counts the slots when it takes the rollback up.
pub(super) fn rollback_started(now: Timestamp) -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: now,
        completed_at: None,
        failed_before: 0,
        message: ROLLBACK_REQUESTED.to_owned(),
        slots: 0,
    }
}

/// The services that match `name`, `id`, `label`, `mode` and `runtime`.
///
/// # Errors
/// When there is another key.
pub fn list_services(view: &View<'_>, filters: &Filters) -> Result<Vec<Arc<Service>>, ControlError> {
    filters.accept(&["name", "id", "label", "mode", "runtime"])?;
    let matches = |service: &&Arc<Service>| {
        filters.starts("name", &service.spec.name)
            && filters.starts("id", &service.id.to_string())
            && filters.labels("label", &service.spec.labels)
            && filters.equals("mode", mode_name(service.spec.mode))
            && filters.equals("runtime", "container")
    };
    Ok(view.services().filter(matches).cloned().collect())
}

fn mode_name(mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
        ServiceMode::ReplicatedJob { .. } => "replicated-job",
        ServiceMode::GlobalJob => "global-job",
    }
}

/// A service's tasks in numbers: the `ServiceStatus` of `GET /services?status=true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskCounts {
    pub running: u64,
    pub desired: u64,
    /// Of a job's present iteration.
    pub completed: u64,
}

/// Counts a service's tasks; of a job those of its present iteration.
#[must_use]
pub fn count_tasks(view: &View<'_>, service: &Service) -> TaskCounts {
    let (is_global, desired) = match service.spec.mode {
        ServiceMode::Replicated { replicas } => (false, replicas),
        ServiceMode::ReplicatedJob { max_concurrent, .. } => (false, max_concurrent),
        ServiceMode::Global | ServiceMode::GlobalJob => (true, 0),
    };
    let mut counts = TaskCounts { desired, ..TaskCounts::default() };
    let iteration = service.job.map(|job| job.iteration);
    for task in
        view.tasks_of(service.id).filter(|task| iteration.is_none() || task.job_iteration == iteration)
    {
        let state = view.state(task);
        let is_wanted = match task.desired_state {
            TaskState::Running => true,
            TaskState::Complete => state != TaskState::Complete,
            _ => false,
        };
        counts.running += u64::from(state == TaskState::Running);
        counts.completed += u64::from(iteration.is_some() && state == TaskState::Complete);
        counts.desired += u64::from(is_global && is_wanted);
    }
    counts
}

#[cfg(test)]
mod tests;
