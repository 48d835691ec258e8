//! Which specs of a service count as in use: its own, and the one before it while the updater may still go back to that by
//! itself. Nobody checks the spec of such a rollback, so what it names must not go, nor be taken by others, in the meantime.

use crate::objects::service::{FailureAction, UpdateState};
use crate::objects::{Service, ServiceSpec, TaskState};
use crate::view::View;

pub(super) fn specs_in_use<'s>(
    view: &View<'_>,
    service: &'s Service,
) -> impl Iterator<Item = &'s ServiceSpec> {
    let previous = service.previous_spec.as_ref().filter(|_| may_be_rolled_back(view, service));
    std::iter::once(&service.spec).chain(previous)
}

/// An update that fails is rolled back, and it is on, or about to begin.
fn may_be_rolled_back(view: &View<'_>, service: &Service) -> bool {
    if service.spec.update.unwrap_or_default().failure_action != FailureAction::Rollback {
        return false;
    }
    match &service.update_status {
        Some(status) => status.state == UpdateState::Updating,
        // The updater has not seen it yet, or there is nothing to replace.
        None => is_to_be_carried_out(view, service),
    }
}

/// Tasks of an earlier spec are to run.
pub(super) fn is_to_be_carried_out(view: &View<'_>, service: &Service) -> bool {
    view.tasks_of(service.id)
        .any(|task| task.spec_version != service.spec_version && task.desired_state <= TaskState::Complete)
}
