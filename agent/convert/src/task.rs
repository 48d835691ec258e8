//! Tasks: what is to run, and how far it is.

use std::sync::Arc;

use ketch_cluster::control::{ControlError, find_network, texts};
use ketch_cluster::objects::node::Platform;
use ketch_cluster::objects::task::{
    ContainerStatus, NetworkAttachmentConfig, Placement, RestartCondition, RestartPolicy, TaskRuntime,
};
use ketch_cluster::objects::{Given, Task, TaskSpec, TaskState, TaskStatus};
use ketch_cluster::view::View;
use ketch_engine_api::swarm::{Version, network, node, task as api};

use crate::{Refusal, container, endpoint, given, moment, network as networks, resources, span};

/// Names that every node has for networks of its own, which the cluster may know.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// Finds networks by name.
///
/// # Errors
/// What no object can hold, a network that is not there, a runtime other than a container.
pub fn spec_of(view: &View<'_>, spec: api::TaskSpec) -> Result<TaskSpec, Refusal> {
    let mut task = TaskSpec { force_update: spec.force_update, ..TaskSpec::default() };
    task.runtime = runtime_of(&spec.runtime, spec.container_spec)?;
    task.resources = resources::read(spec.resources, &mut task.given)?;
    given::note(&mut task.given, Given::Placement, spec.placement.as_ref());
    task.placement = spec.placement.map(placement_of).unwrap_or_default();
    if let Some(policy) = &spec.restart_policy {
        given::note(&mut task.given, Given::RestartDelay, policy.delay.as_ref());
        given::note(&mut task.given, Given::RestartWindow, policy.window.as_ref());
        task.restart = Some(restart_of(policy)?);
    }
    task.networks = networks_of(view, spec.networks.unwrap_or_default())?;
    task.log_driver = spec.log_driver.map(given::driver_of);
    Ok(task)
}

fn runtime_of(
    name: &str,
    spec: Option<ketch_engine_api::swarm::container::ContainerSpec>,
) -> Result<TaskRuntime, Refusal> {
    match (name, spec) {
        ("" | "container", Some(spec)) => {
            container::spec_of(spec).map(|it| TaskRuntime::Container(it.into()))
        }
        ("" | "container", None) => Err(texts::conversion::runtime_mismatched()),
        _ => Err(texts::runtime_not_supported()),
    }
}

fn restart_of(policy: &api::RestartPolicy) -> Result<RestartPolicy, Refusal> {
    let condition = match policy.condition.as_str() {
        "" | "any" => RestartCondition::Any,
        "on-failure" => RestartCondition::OnFailure,
        "none" => RestartCondition::None,
        other => return Err(texts::conversion::restart_condition(other)),
    };
    let default = RestartPolicy::default();
    let read = |nanos: Option<i64>, default, negative: fn() -> ControlError| match nanos {
        Some(nanos) => span::of(nanos).ok_or_else(negative),
        None => Ok(default),
    };
    Ok(RestartPolicy {
        condition,
        delay: read(policy.delay, default.delay, texts::restart_delay_negative)?,
        max_attempts: policy.max_attempts.unwrap_or_default(),
        window: read(policy.window, default.window, texts::restart_window_negative)?,
    })
}

fn placement_of(placement: api::Placement) -> Placement {
    let platform = |it: node::Platform| Platform { architecture: it.architecture, os: it.os };
    let preferences = placement.preferences.into_iter().flatten();
    Placement {
        constraints: placement.constraints.unwrap_or_default(),
        spread: preferences.filter_map(|it| it.spread).map(|it| it.spread_descriptor).collect(),
        max_replicas_per_node: placement.max_replicas,
        platforms: placement.platforms.into_iter().flatten().map(platform).collect(),
    }
}

pub(crate) fn networks_of(
    view: &View<'_>,
    wanted: Vec<network::AttachmentConfig>,
) -> Result<Vec<NetworkAttachmentConfig>, Refusal> {
    let found = |wanted: network::AttachmentConfig| {
        let network = find_network(view, &wanted.target);
        let network = network.map_err(|error| match wanted.target.as_str() {
            name if PREDEFINED.contains(&name) => texts::conversion::predefined_network_missing(name),
            _ => error,
        })?;
        Ok(NetworkAttachmentConfig {
            target: network.id,
            aliases: wanted.aliases.unwrap_or_default(),
            addresses: Vec::new(),
            driver_options: wanted.driver_opts.unwrap_or_default(),
        })
    };
    wanted.into_iter().map(found).collect()
}

/// As a task shows it; a service's has the runtime's name besides.
#[must_use]
pub fn spec_shown(spec: &TaskSpec) -> api::TaskSpec {
    let (attachment, runtime) = match &spec.runtime {
        TaskRuntime::Container(_) => (None, ""),
        TaskRuntime::Attachment { container } => {
            (Some(api::NetworkAttachmentSpec { container_id: container.clone() }), "attachment")
        }
    };
    api::TaskSpec {
        container_spec: spec.container().map(container::spec_shown),
        plugin_spec: None,
        network_attachment_spec: attachment,
        resources: resources::shown(&spec.resources, &spec.given),
        restart_policy: restart_shown(spec),
        placement: given::part(&spec.given, Given::Placement, placement_shown(&spec.placement)),
        networks: Some(spec.networks.iter().map(attachment_config_shown).collect()),
        log_driver: spec.log_driver.as_ref().map(given::driver_shown),
        force_update: spec.force_update,
        runtime: runtime.to_owned(),
    }
}

fn restart_shown(spec: &TaskSpec) -> Option<api::RestartPolicy> {
    let (policy, default) = (spec.restart?, RestartPolicy::default());
    let condition = match policy.condition {
        RestartCondition::None => "none",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Any => "any",
    };
    let shown =
        |part, span, default| (spec.given.contains(&part) || span != default).then(|| span::shown(span));
    Some(api::RestartPolicy {
        condition: condition.to_owned(),
        delay: shown(Given::RestartDelay, policy.delay, default.delay),
        max_attempts: Some(policy.max_attempts),
        window: shown(Given::RestartWindow, policy.window, default.window),
    })
}

fn placement_shown(placement: &Placement) -> api::Placement {
    let preference = |descriptor: &String| api::Preference {
        spread: Some(api::SpreadOver { spread_descriptor: descriptor.clone() }),
    };
    api::Placement {
        constraints: Some(placement.constraints.clone()).filter(|it| !it.is_empty()),
        preferences: Some(placement.spread.iter().map(preference).collect())
            .filter(|it: &Vec<_>| !it.is_empty()),
        max_replicas: placement.max_replicas_per_node,
        platforms: Some(placement.platforms.iter().map(platform_shown).collect())
            .filter(|it: &Vec<_>| !it.is_empty()),
    }
}

pub(crate) fn platform_shown(platform: &Platform) -> node::Platform {
    node::Platform { architecture: platform.architecture.clone(), os: platform.os.clone() }
}

fn attachment_config_shown(wanted: &NetworkAttachmentConfig) -> network::AttachmentConfig {
    network::AttachmentConfig {
        target: wanted.target.to_string(),
        aliases: Some(wanted.aliases.clone()),
        driver_opts: Some(wanted.driver_options.clone()),
    }
}

/// With its networks as they are now, and the status as its worker last said.
#[must_use]
pub fn shown(view: &View<'_>, task: &Arc<Task>) -> api::Task {
    let attached = |it: &ketch_cluster::objects::NetworkAttachment| networks::attachment_shown(view, it);
    api::Task {
        id: task.id.to_string(),
        meta: moment::meta(&task.meta),
        annotations: given::annotations("", &task.labels),
        spec: spec_shown(&task.spec),
        service_id: task.service.map(|id| id.to_string()).unwrap_or_default(),
        slot: task.slot,
        node_id: task.node.map(|id| id.to_string()).unwrap_or_default(),
        status: status_shown(task, view.status(task)),
        desired_state: state_name(task.desired_state).to_owned(),
        networks_attachments: Some(task.networks.iter().map(attached).collect()),
        generic_resources: resources::generics_shown(&task.generic_resources),
        job_iteration: task.job_iteration.map(|index| Version { index }),
        volumes: None,
    }
}

/// One that was displaced says so where clients show errors, unless its end was one.
fn status_shown(task: &Task, status: &TaskStatus) -> api::TaskStatus {
    let is_asked = task.desired_state > TaskState::Complete && status.error.is_empty();
    let displaced = task.displaced.as_ref().filter(|_| is_asked);
    let container = |it: &ContainerStatus| api::ContainerStatus {
        container_id: it.id.clone(),
        pid: it.pid.into(),
        exit_code: it.exit_code.into(),
    };
    api::TaskStatus {
        timestamp: moment::shown(status.since),
        state: state_name(status.state).to_owned(),
        message: status.message.to_string(),
        err: displaced.map_or_else(|| status.error.to_string(), |it| it.reason.clone()),
        container_status: status.container.as_ref().map(container),
        port_status: api::PortStatus { ports: endpoint::ports_shown(&status.ports) },
    }
}

fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::New => "new",
        TaskState::Pending => "pending",
        TaskState::Assigned => "assigned",
        TaskState::Accepted => "accepted",
        TaskState::Preparing => "preparing",
        TaskState::Ready => "ready",
        TaskState::Starting => "starting",
        TaskState::Running => "running",
        TaskState::Complete => "complete",
        TaskState::Shutdown => "shutdown",
        TaskState::Failed => "failed",
        TaskState::Rejected => "rejected",
        TaskState::Remove => "remove",
        TaskState::Orphaned => "orphaned",
    }
}
