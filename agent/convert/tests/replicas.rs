//! Replicas that a client does not say: Docker's one, and what the load asks for where they follow it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

use ketch_cluster::control::{Rollback, ServiceUpdate, create_service, update_service};
use ketch_cluster::objects::{Meta, ServiceMode, ServiceSpec};
use ketch_cluster::store::{Object, Store, StoreAction};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::{Observed, View};
use ketch_convert::service;

/// As `docker stack deploy` sends it, of a file that says so many.
fn spec_of(view: &View<'_>, replicas: Option<u64>, min: Option<u64>) -> ServiceSpec {
    let labels = min.map_or("{}".to_owned(), |min| {
        format!(r#"{{"ketch.scale.min":"{min}","ketch.scale.max":"50","ketch.scale.cpu":"70"}}"#)
    });
    let replicas = replicas.map_or(String::new(), |replicas| format!(r#""Replicas":{replicas}"#));
    let task = r#"{"ContainerSpec":{"Image":"a"}}"#;
    let text = format!(
        r#"{{"Name":"web","Labels":{labels},"TaskTemplate":{task},"Mode":{{"Replicated":{{{replicas}}}}}}}"#
    );
    service::spec_of(view, serde_json::from_str(&text).unwrap(), None).unwrap()
}

fn mode(replicas: u64) -> ServiceMode {
    ServiceMode::Replicated { replicas }
}

#[test]
fn a_deployed_file_without_replicas_leaves_them_to_the_load() {
    let observed = Observed::default();
    let mut store = Store::default();
    let apply = |store: &mut Store, actions: Vec<StoreAction>| {
        let next = ketch_cluster::objects::Version(store.version().0 + 1);
        store.apply(next, &actions).unwrap();
    };
    let made = {
        let view = View::new(&store, &observed);
        assert_eq!(spec_of(&view, None, None).mode, mode(1));
        let spec = spec_of(&view, None, Some(3));
        assert_eq!(spec.mode, mode(3));
        create_service(&view, spec, Timestamp::default(), &mut || 7).unwrap()
    };
    apply(&mut store, made.1);
    let by_load = {
        let mut scaled = ketch_cluster::objects::Service::clone(store.service(made.0).unwrap());
        scaled.spec.mode = mode(40);
        StoreAction::Update(Object::from(scaled))
    };
    let read = store.service(made.0).unwrap().meta.version;
    apply(&mut store, vec![by_load]);
    let view = View::new(&store, &observed);
    for (replicas, min, wanted) in
        [(None, Some(3), 40), (None, Some(45), 45), (Some(5), Some(3), 5), (None, None, 1)]
    {
        let spec = spec_of(&view, replicas, min);
        assert_eq!(spec.mode, mode(wanted), "{replicas:?} {min:?}");
        let Meta { version, .. } = view.service(made.0).unwrap().meta;
        let update =
            ServiceUpdate { version, spec, rollback: Rollback::None, registry_auth: Default::default() };
        let actions = update_service(&view, made.0, update, Timestamp::default()).unwrap();
        let [StoreAction::Update(Object::Service(updated))] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(updated.spec.mode, mode(wanted));
        assert_eq!(service::spec_shown(&updated.spec).mode.replicated.unwrap().replicas, Some(wanted));
    }
    // Who has read it before its load made it more is told so.
    let spec = spec_of(&view, None, Some(3));
    let late =
        ServiceUpdate { version: read, spec, rollback: Rollback::None, registry_auth: Default::default() };
    let refused = update_service(&view, made.0, late, Timestamp::default()).unwrap_err();
    assert!(refused.to_string().contains("update out of sequence"), "{refused}");
}
