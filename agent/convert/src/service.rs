//! Services: their specs, and how they stand.

use std::sync::Arc;

use ketch_cluster::control::{TaskCounts, texts};
use ketch_cluster::label::scale;
use ketch_cluster::objects::service::{
    FailureAction, JobStatus, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{Labels, SecretText, Service, ServiceMode, ServiceSpec};
use ketch_cluster::store::{ObjectId, ObjectKind};
use ketch_cluster::view::View;
use ketch_engine_api::swarm::Version;
use ketch_engine_api::swarm::service as api;

use crate::{Refusal, defaults, endpoint, moment, span, task};

/// The object of a spec, whose networks are found by name, and so is the service, where it says no replicas. `registry_auth` is of a new service; of an update,
/// [`query::registry_auth`](crate::query::registry_auth) says where the credentials come from.
///
/// # Errors
/// What no object can hold, and a network that is not there.
pub fn spec_of(
    view: &View<'_>,
    spec: api::ServiceSpec,
    registry_auth: Option<SecretText>,
) -> Result<ServiceSpec, Refusal> {
    let mut task = task::spec_of(view, spec.task_template)?;
    if task.networks.is_empty() {
        task.networks = task::networks_of(view, spec.networks.unwrap_or_default())?;
    }
    if let TaskRuntime::Container(container) = &mut task.runtime {
        container.registry_auth = registry_auth;
    }
    let labels = spec.labels.unwrap_or_default();
    let mode = mode_of(&spec.mode, || replicas_unsaid(view, &spec.name, &labels))?;
    Ok(ServiceSpec {
        name: spec.name,
        labels,
        task: Arc::new(task),
        mode,
        update: spec.update_config.map(update_of).transpose()?,
        rollback: spec.rollback_config.map(update_of).transpose()?,
        endpoint: spec.endpoint_spec.map(endpoint::spec_of).transpose()?,
    })
}

/// Docker's default is one; of a service whose replicas follow its load it is what the load asks for.
fn replicas_unsaid(view: &View<'_>, name: &str, labels: &Labels) -> u64 {
    let known = match view.by_name(ObjectKind::Service, name) {
        Some(ObjectId::Service(id)) => view.service(id),
        _ => None,
    };
    scale::unsaid(labels, known.map(|service| &service.spec)).unwrap_or(1)
}

fn mode_of(mode: &api::ServiceMode, unsaid: impl FnOnce() -> u64) -> Result<ServiceMode, Refusal> {
    let api::ServiceMode { replicated, global, replicated_job, global_job } = mode;
    let given = [replicated.is_some(), global.is_some(), replicated_job.is_some(), global_job.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(texts::conversion::modes_too_many());
    }
    if global.is_some() {
        return Ok(ServiceMode::Global);
    }
    if global_job.is_some() {
        return Ok(ServiceMode::GlobalJob);
    }
    if let Some(job) = replicated_job {
        let max_concurrent = job.max_concurrent.unwrap_or(1);
        let total_completions = job.total_completions.unwrap_or(max_concurrent);
        return Ok(ServiceMode::ReplicatedJob { max_concurrent, total_completions });
    }
    let replicas = replicated.as_ref().and_then(|it| it.replicas);
    Ok(ServiceMode::Replicated { replicas: replicas.unwrap_or_else(unsaid) })
}

fn update_of(config: api::UpdateConfig) -> Result<UpdateConfig, Refusal> {
    let failure_action = match config.failure_action.as_str() {
        "" | "pause" => FailureAction::Pause,
        "continue" => FailureAction::Continue,
        "rollback" => FailureAction::Rollback,
        other => return Err(texts::conversion::failure_action(other)),
    };
    let order = match config.order.as_str() {
        "" | "stop-first" => UpdateOrder::StopFirst,
        "start-first" => UpdateOrder::StartFirst,
        other => return Err(texts::conversion::update_order(other)),
    };
    Ok(UpdateConfig {
        parallelism: config.parallelism,
        delay: span::of(config.delay).ok_or_else(texts::update_delay_negative)?,
        failure_action,
        monitor: span::of(config.monitor).ok_or_else(texts::update_monitor_negative)?,
        max_failure_ratio: config.max_failure_ratio.0,
        order,
    })
}

/// What of a spec is shown that its user did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Defaults {
    /// Nothing: it can be sent back as an update.
    #[default]
    LeftOut,
    /// `insertDefaults=true`: what the service really runs with.
    FilledIn,
}

/// With its tasks in numbers, where they were asked for (`status=true`).
#[must_use]
pub fn shown(service: &Service, defaults: Defaults, counts: Option<TaskCounts>) -> api::Service {
    api::Service {
        id: service.id.to_string(),
        meta: moment::meta(&service.meta),
        spec: match defaults {
            Defaults::LeftOut => spec_shown(&service.spec),
            Defaults::FilledIn => defaults::filled_in(spec_shown(&service.spec)),
        },
        previous_spec: service.previous_spec.as_ref().map(spec_shown),
        endpoint: endpoint::shown(&service.endpoint, service.spec.endpoint.as_ref()),
        update_status: service.update_status.as_ref().map(update_status_shown),
        service_status: counts.map(counts_shown),
        job_status: service.job.map(job_shown),
    }
}

#[must_use]
pub fn spec_shown(spec: &ServiceSpec) -> api::ServiceSpec {
    let mut task_template = task::spec_shown(&spec.task);
    if spec.task.container().is_some() {
        "container".clone_into(&mut task_template.runtime);
    }
    api::ServiceSpec {
        name: spec.name.clone(),
        labels: Some(spec.labels.clone()),
        task_template,
        mode: mode_shown(spec.mode),
        update_config: spec.update.as_ref().map(update_shown),
        rollback_config: spec.rollback.as_ref().map(update_shown),
        networks: None,
        endpoint_spec: spec.endpoint.as_ref().map(endpoint::spec_shown),
    }
}

fn mode_shown(mode: ServiceMode) -> api::ServiceMode {
    let mut shown = api::ServiceMode::default();
    match mode {
        ServiceMode::Replicated { replicas } => {
            shown.replicated = Some(api::Replicated { replicas: Some(replicas) });
        }
        ServiceMode::Global => shown.global = Some(api::Global {}),
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            shown.replicated_job = Some(api::ReplicatedJob {
                max_concurrent: Some(max_concurrent),
                total_completions: Some(total_completions),
            });
        }
        ServiceMode::GlobalJob => shown.global_job = Some(api::Global {}),
    }
    shown
}

pub(crate) fn update_shown(config: &UpdateConfig) -> api::UpdateConfig {
    let failure_action = match config.failure_action {
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
        FailureAction::Rollback => "rollback",
    };
    let order = match config.order {
        UpdateOrder::StopFirst => "stop-first",
        UpdateOrder::StartFirst => "start-first",
    };
    api::UpdateConfig {
        parallelism: config.parallelism,
        delay: span::shown(config.delay),
        failure_action: failure_action.to_owned(),
        monitor: span::shown(config.monitor),
        max_failure_ratio: api::Ratio(config.max_failure_ratio),
        order: order.to_owned(),
    }
}

fn update_status_shown(status: &UpdateStatus) -> api::UpdateStatus {
    let state = match status.state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "paused",
        UpdateState::Completed => "completed",
        UpdateState::RollbackStarted => "rollback_started",
        UpdateState::RollbackPaused => "rollback_paused",
        UpdateState::RollbackCompleted => "rollback_completed",
    };
    api::UpdateStatus {
        state: state.to_owned(),
        started_at: Some(moment::shown(status.started_at)),
        completed_at: status.completed_at.map(moment::shown),
        message: status.message.clone(),
    }
}

fn counts_shown(counts: TaskCounts) -> api::ServiceStatus {
    api::ServiceStatus {
        running_tasks: counts.running,
        desired_tasks: counts.desired,
        completed_tasks: counts.completed,
    }
}

fn job_shown(job: JobStatus) -> api::JobStatus {
    api::JobStatus {
        job_iteration: Version { index: job.iteration },
        last_execution: moment::shown(job.last_execution),
    }
}
