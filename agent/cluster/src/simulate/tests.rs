//! What would become of a cluster, and that nothing of it does.

use std::sync::Arc;

use super::*;
use crate::control::{Rollback, ServiceUpdate, create_service, remove_service, update_service};
use crate::fixture;
use crate::objects::task::TaskRuntime;
use crate::objects::{Service, ServiceSpec};

fn cluster(services: impl IntoIterator<Item = Service>) -> (Store, Observed) {
    let objects = (1..=3).map(|number| fixture::node(number).into());
    let services = services.into_iter().map(Into::into);
    let store = fixture::store(std::iter::once(fixture::cluster().into()).chain(objects).chain(services));
    let mut simulation = Simulation::of(Copied { store, observed: Observed::default() }, fixture::at(100));
    assert_eq!(simulation.settle(|| true), Ended::AtRest);
    (simulation.store, simulation.observed)
}

fn simulation((store, observed): &(Store, Observed)) -> Simulation {
    Simulation::of(Copied::of(&View::new(store, observed)), fixture::at(200))
}

fn web(replicas: u64) -> Service {
    let mut web = fixture::replicated(1, replicas);
    let container = crate::objects::ContainerSpec { image: "web:1".to_owned(), ..Default::default() };
    Arc::make_mut(&mut web.spec.task).runtime = TaskRuntime::Container(Box::new(container));
    web
}

fn update(simulation: &mut Simulation, change: impl FnOnce(&mut ServiceSpec)) {
    let service = simulation.store.services().next().unwrap().clone();
    let mut spec = service.spec.clone();
    change(&mut spec);
    let update = ServiceUpdate {
        version: service.meta.version,
        spec,
        rollback: Rollback::None,
        registry_auth: crate::control::RegistryAuth::Spec,
    };
    simulation
        .request(|view, now, _| update_service(view, service.id, update, now).map(|it| ((), it)))
        .unwrap();
}

#[test]
fn a_new_service_is_placed_in_the_copy_alone() {
    let before = cluster([]);
    let mut simulation = simulation(&before);
    let spec = web(2).spec;
    let _id = simulation.request(|view, now, bits| create_service(view, spec, now, bits)).unwrap();
    assert_eq!(simulation.settle(|| true), Ended::AtRest);
    let outcome = simulation.outcome();
    assert_eq!(outcome.services.len(), 1);
    assert_eq!((outcome.services[0].fate, outcome.services[0].placed.len()), (Fate::Created, 2));
    assert_eq!(before.0.services().count(), 0, "nothing is written");
    assert_eq!(simulation.before, before.0);
    let json = serde_json::to_string(&outcome).unwrap();
    assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
}

#[test]
fn another_image_rolls_and_another_number_does_not() {
    let before = cluster([web(3)]);
    let mut rolled = simulation(&before);
    update(&mut rolled, |spec| {
        let TaskRuntime::Container(container) = &mut Arc::make_mut(&mut spec.task).runtime else { return };
        container.image = "web:2".to_owned();
    });
    assert_eq!(rolled.settle(|| true), Ended::AtRest);
    let outcome = rolled.outcome().services.remove(0);
    assert_eq!((outcome.fate, outcome.placed.len(), outcome.stopped.len()), (Fate::Rolled, 3, 3));
    assert_eq!(outcome.update.as_deref(), Some("completes"));
    let mut scaled = simulation(&before);
    update(&mut scaled, |spec| spec.mode = crate::objects::ServiceMode::Replicated { replicas: 5 });
    assert_eq!(scaled.settle(|| true), Ended::AtRest);
    let outcome = scaled.outcome().services.remove(0);
    assert_eq!((outcome.fate, outcome.placed.len(), outcome.stopped.len()), (Fate::Updated, 2, 0));
}

#[test]
fn what_finds_no_node_says_why() {
    let before = cluster([]);
    let mut simulation = simulation(&before);
    let mut spec = web(1).spec;
    Arc::make_mut(&mut spec.task).resources.reservations.nano_cpus = 9_000_000_000;
    let _id = simulation.request(|view, now, bits| create_service(view, spec, now, bits)).unwrap();
    let _ended = simulation.settle(|| true);
    let outcome = simulation.outcome();
    let waiting = &outcome.services[0].waiting[0];
    assert_eq!(waiting.why, "no suitable node (insufficient resources on 3 nodes)");
    assert_eq!(waiting.nodes[0].1, "insufficient resources: asked for 9 CPUs, has 4 left");
    let text = outcome.to_string();
    assert!(
        text.starts_with("service service-1: would be created\n  ? service-1.1 would wait: no suitable"),
        "{text}"
    );
}

#[test]
fn a_removed_service_loses_its_tasks_and_the_same_spec_changes_nothing() {
    let before = cluster([web(2)]);
    let mut removed = simulation(&before);
    let id = web(2).id;
    removed.request(|view, _, _| remove_service(view, id).map(|it| ((), it))).unwrap();
    assert_eq!(removed.settle(|| true), Ended::AtRest);
    let outcome = removed.outcome().services.remove(0);
    assert_eq!((outcome.fate, outcome.stopped.len()), (Fate::Removed, 2));
    let mut same = simulation(&before);
    update(&mut same, |_| {});
    assert_eq!(same.settle(|| true), Ended::AtRest);
    let outcome = same.outcome().services.remove(0);
    assert_eq!((outcome.fate, outcome.placed.len(), outcome.stopped.len()), (Fate::Unchanged, 0, 0));
}

#[test]
fn whoever_has_no_time_left_is_told_that_it_did_not_end() {
    let before = cluster([]);
    let mut simulation = simulation(&before);
    let spec = web(2).spec;
    let _id = simulation.request(|view, now, bits| create_service(view, spec, now, bits)).unwrap();
    let turns = std::cell::Cell::new(1);
    assert_eq!(simulation.settle(|| turns.replace(0) > 0), Ended::Unfinished);
    assert_eq!(simulation.settle(|| true), Ended::AtRest);
}
