//! Rotation: what becomes of the services that use a secret or config whose data is to be other data.
//!
//! Data never changes in an object: another one takes its name, and the old one is superseded. It stays for the tasks that
//! were made of it, and for a rollback; [`payloads`](crate::payloads) removes it when nobody names it any more. A service
//! with the label `ketch.roll_on_change=true` is updated to the new one in the same transaction, as `docker service update
//! --secret-rm --secret-add` would do it. Others keep what they have until a user updates them.

use std::sync::Arc;

use crate::id::{ConfigId, SecretId};
use crate::label::roll_on_change;
use crate::objects::service::UpdateState;
use crate::objects::task::TaskRuntime;
use crate::objects::{ContainerSpec, Service, ServiceSpec};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::rollback::{is_to_be_carried_out, specs_in_use};
use super::size::{MAX_TRANSACTION_BYTES, size_of};
use super::texts;

pub(super) fn asks(service: &Service) -> bool {
    roll_on_change::parse(&service.spec.labels).unwrap_or(false)
}

/// Whether some service that uses one of that name asks to be rolled: then its data may change. By the name, as those are updated: after a
/// rollback a service has an earlier one.
pub(super) fn is_asked_for(view: &View<'_>, uses: impl Fn(&ServiceSpec) -> bool) -> bool {
    view.services().any(|service| asks(service) && uses(&service.spec))
}

/// Whether it is in use, and by none but services that ask to be rolled: then it may be removed, to be made again.
pub(super) fn is_asked_for_by_all(view: &View<'_>, uses: impl Fn(&ServiceSpec) -> bool) -> bool {
    let users = || view.services().filter(|service| specs_in_use(view, service).any(&uses));
    users().next().is_some() && users().all(|service| asks(service))
}

/// The updates of the services that ask for it. `point` makes a container name the new one, if it names one that was called so,
/// and says whether it does.
pub(super) fn rolled(
    view: &View<'_>,
    now: Timestamp,
    point: impl Fn(&mut ContainerSpec) -> bool,
) -> Vec<StoreAction> {
    let asking = view.services().filter(|service| asks(service));
    asking
        .filter_map(|service| Some(StoreAction::Update(pointed((view, service), now, &point)?.into())))
        .collect()
}

fn pointed(
    (view, service): (&View<'_>, &Service),
    now: Timestamp,
    point: impl Fn(&mut ContainerSpec) -> bool,
) -> Option<Service> {
    let mut spec = service.spec.clone();
    let TaskRuntime::Container(container) = &mut Arc::make_mut(&mut spec.task).runtime else { return None };
    if !point(container) {
        return None;
    }
    let mut rolled = service.clone();
    rolled.meta.updated_at = now;
    let state = service.update_status.as_ref().map(|status| status.state);
    if is_under_way(view, service) || state == Some(UpdateState::Paused) {
        // What its rollback goes back to is what was before that: the spec that is half there may be a bad one.
        rolled.spec = spec;
    } else {
        exchange(&mut rolled, spec);
    }
    // One that has stopped for somebody to look at it goes on when somebody says so, not because a file has changed.
    if !matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused)) {
        rolled.update_status = None;
    }
    // A job's iteration stays: a change of a file is no reason to run it, but its next task has the new one.
    Some(rolled)
}

/// Gives a service its next spec, and remembers the one before for a rollback: that which has run. One `docker stack deploy` may change
/// several payloads, and then the service; what lies between these steps is no state that anybody wanted.
pub(super) fn replace(view: &View<'_>, service: &mut Service, next: ServiceSpec) {
    if is_half_rolled(view, service)
        || asks(service) && service.spec == next && service.previous_spec.is_some()
    {
        service.spec = next;
    } else {
        exchange(service, next);
    }
}

/// The same, whatever was before.
pub(super) fn exchange(service: &mut Service, next: ServiceSpec) {
    service.previous_spec = Some(std::mem::replace(&mut service.spec, next));
    service.previous_spec_version = Some(service.spec_version);
}

/// Whether an update brings its spec, or is about to.
fn is_under_way(view: &View<'_>, service: &Service) -> bool {
    match &service.update_status {
        Some(status) => status.state == UpdateState::Updating,
        // Of a job nobody ever asks for a state of its update.
        None => !service.spec.mode.is_job() && is_to_be_carried_out(view, service),
    }
}

/// Whether its spec came of the one before by a rotation, which has not been carried out yet.
fn is_half_rolled(view: &View<'_>, service: &Service) -> bool {
    let is_of = |previous: &ServiceSpec| without_ids(previous) == without_ids(&service.spec);
    is_under_way(view, service) && asks(service) && service.previous_spec.as_ref().is_some_and(is_of)
}

/// The spec, whichever secrets and configs of the same names it has.
fn without_ids(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    if let TaskRuntime::Container(container) = &mut Arc::make_mut(&mut spec.task).runtime {
        container.secrets.iter_mut().for_each(|it| it.secret = SecretId::of(0));
        container.configs.iter_mut().for_each(|it| it.config = ConfigId::of(0));
    }
    spec
}

/// Whether all of it enters at once: in parts, a service could be left behind.
pub(super) fn fits(kind: ObjectKind, actions: Vec<StoreAction>) -> Result<Vec<StoreAction>, ControlError> {
    match size_of(&actions) {
        Some(size) if size > MAX_TRANSACTION_BYTES => {
            Err(texts::rotation_too_large(kind, size, MAX_TRANSACTION_BYTES))
        }
        _ => Ok(actions),
    }
}

#[cfg(test)]
mod tests;
