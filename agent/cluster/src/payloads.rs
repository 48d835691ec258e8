//! Superseded secrets and configs: removed once no spec that a service may go back to, and no task that may run, names them.
//!
//! `control` supersedes one when its data is to be other data (see its `rotation`). Called by the queue.

use crate::objects::{ServiceSpec, TaskSpec};
use crate::reconciled::Reconciled;
use crate::store::ObjectId;
use crate::view::View;

/// Removes those that are named by nobody. Nothing here hangs on time.
#[must_use]
pub fn reconcile(view: &View<'_>) -> Reconciled {
    let mut wanted = Reconciled::default();
    for payload in view.superseded().filter(|payload| !is_named(view, *payload)) {
        wanted.remove(payload);
    }
    wanted
}

/// The secrets and configs that a task with this spec is given.
pub(crate) fn named_by(spec: &TaskSpec) -> impl Iterator<Item = ObjectId> {
    let secrets = spec.container().into_iter().flat_map(|it| &it.secrets);
    let configs = spec.container().into_iter().flat_map(|it| &it.configs);
    secrets.map(|it| it.secret.into()).chain(configs.map(|it| it.config.into()))
}

/// Tasks come last: there are many, and the spec before the present one names what was superseded until the next update.
fn is_named(view: &View<'_>, payload: ObjectId) -> bool {
    let names = |spec: &TaskSpec| named_by(spec).any(|named| named == payload);
    let in_spec = |spec: &ServiceSpec| names(&spec.task);
    view.services()
        .any(|service| in_spec(&service.spec) || service.previous_spec.as_ref().is_some_and(in_spec))
        || view.tasks().any(|task| !task.status.state.is_terminal() && names(&task.spec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::id::{ConfigId, SecretId};
    use crate::objects::container::{ConfigReference, ConfigTarget, SecretReference};
    use crate::objects::task::TaskRuntime;
    use crate::objects::{Config, ConfigSpec, ContainerSpec, Meta, Secret, SecretSpec, Service, TaskState};
    use crate::store::{Object, StoreAction};
    use crate::view::Observed;

    const SECRET: SecretId = SecretId::of(3);
    const CONFIG: ConfigId = ConfigId::of(4);

    fn payloads() -> [Object; 2] {
        let (meta, superseded) = (Meta::default(), true);
        let spec = SecretSpec { name: "key".to_owned(), ..SecretSpec::default() };
        let secret = Secret { id: SECRET, meta, spec, internal: false, superseded };
        let spec = ConfigSpec { name: "conf".to_owned(), ..ConfigSpec::default() };
        [secret.into(), Config { id: CONFIG, meta, spec, superseded }.into()]
    }

    fn using() -> ServiceSpec {
        let secret = SecretReference { secret: SECRET, name: "key".to_owned(), file: Default::default() };
        let target = ConfigTarget::File(Default::default());
        let config = ConfigReference { config: CONFIG, name: "conf".to_owned(), target };
        let container =
            ContainerSpec { secrets: vec![secret], configs: vec![config], ..ContainerSpec::default() };
        let runtime = TaskRuntime::Container(Box::new(container));
        let spec = TaskSpec { runtime, ..TaskSpec::default() };
        ServiceSpec { task: spec.into(), ..fixture::replicated(1, 1).spec }
    }

    fn removed(others: impl IntoIterator<Item = Object>) -> Vec<StoreAction> {
        let store = fixture::store(payloads().into_iter().chain(others));
        reconcile(&View::new(&store, &Observed::default())).actions
    }

    #[test]
    fn what_nobody_names_is_removed() {
        let both = [SECRET.into(), CONFIG.into()].map(StoreAction::Remove);
        let plain = fixture::replicated(1, 1);
        assert_eq!(removed([]), both);
        assert_eq!(removed([plain.clone().into()]), both);
        let present = Service { spec: using(), ..plain.clone() };
        assert_eq!(removed([present.clone().into()]), []);
        let before = Service { previous_spec: Some(using()), ..plain.clone() };
        assert_eq!(removed([before.into()]), [], "a rollback may want it");
        for (state, kept) in [(TaskState::Running, true), (TaskState::Shutdown, false)] {
            let task = fixture::task_on(fixture::task(9, &present, 1), &fixture::node(1), state);
            assert_eq!(removed([plain.clone().into(), task.into()]).is_empty(), kept, "{state:?}");
        }
    }

    #[test]
    fn what_is_not_superseded_stays() {
        let [Object::Secret(secret), _] = payloads() else { panic!() };
        let store = fixture::store([Secret { superseded: false, ..Secret::clone(&secret) }.into()]);
        assert_eq!(reconcile(&View::new(&store, &Observed::default())).actions, []);
    }
}
