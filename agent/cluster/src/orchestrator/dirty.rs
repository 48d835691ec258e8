//! Whether a task is still what its service asks for.

use std::sync::Arc;

use super::fence;
use super::service_view::ServiceView;
use crate::constraint::Constraints;
use crate::label::{allow, publish};
use crate::objects::task::TaskRuntime;
use crate::objects::{EndpointSpec, Task, TaskSpec, TaskState};

/// Whether the task must be replaced, since it runs something else than the service's spec says. A task of the same spec
/// version never is; of another one, it is compared. Two differences don't count: placement that the task's node satisfies
/// as it is, and the registry's credentials of a task that may have its image. What is not known is not dirty.
pub(super) fn is_dirty(service: &ServiceView<'_>, task: &Task) -> bool {
    task.spec_version != service.service.spec_version
        && (has_other_endpoint(service, task)
            || has_other_fence(service, task)
            || has_other_access(service, task)
            || differs(service, task))
}

/// Its worker stops a task by the fence that the task was made with: of another one managers would count on what does not happen.
fn has_other_fence(service: &ServiceView<'_>, task: &Task) -> bool {
    task.service_labels.get(fence::LABEL) != service.service.spec.labels.get(fence::LABEL)
}

/// A node is told of services that are in networks of the cluster: of another one it knows what its task was made with.
fn has_other_access(service: &ServiceView<'_>, task: &Task) -> bool {
    let (was, is) = (&task.service_labels, &service.service.spec.labels);
    let is_told = task.networks.iter().any(|attachment| !attachment.addresses.is_empty());
    !is_told
        && [allow::LABEL, publish::FROM, publish::IP].iter().any(|label| was.get(*label) != is.get(*label))
}

fn has_other_endpoint(service: &ServiceView<'_>, task: &Task) -> bool {
    let plain = EndpointSpec::default();
    let wanted = service.service.spec.endpoint.as_ref().unwrap_or(&plain);
    task.endpoint.as_ref().is_some_and(|endpoint| endpoint.spec != *wanted)
}

fn differs(service: &ServiceView<'_>, task: &Task) -> bool {
    let wanted = &service.service.spec.task;
    if Arc::ptr_eq(wanted, &task.spec) || wanted == &task.spec {
        return false;
    }
    let mut tolerated = TaskSpec::clone(wanted);
    if node_satisfies(service, task) {
        tolerated.placement = task.spec.placement.clone();
    }
    if may_have_its_image(service, task) {
        take_credentials(&mut tolerated, &task.spec);
    }
    tolerated != *task.spec
}

fn node_satisfies(service: &ServiceView<'_>, task: &Task) -> bool {
    let constraints = Constraints::parse(&service.service.spec.task.placement.constraints);
    let node = task.node.and_then(|node| service.view.node(node));
    node.is_some_and(|node| constraints.is_ok_and(|constraints| constraints.allow(node)))
}

/// Only a task that has no node yet, that is said to be on its way to its image, or that was refused is known to have none.
/// A new leader has heard nothing of a task that has run for days: to it, that one is assigned.
fn may_have_its_image(service: &ServiceView<'_>, task: &Task) -> bool {
    !matches!(
        service.state(task),
        TaskState::New
            | TaskState::Pending
            | TaskState::Accepted
            | TaskState::Preparing
            | TaskState::Rejected
    )
}

fn take_credentials(to: &mut TaskSpec, from: &TaskSpec) {
    if let (TaskRuntime::Container(to), Some(from)) = (&mut to.runtime, from.container()) {
        to.registry_auth.clone_from(&from.registry_auth);
    }
}
