//! `task`, one case at a time.

use super::super::tests::{port, with_view};
use super::*;
use crate::fixture::{self, at};
use crate::objects::endpoint::PublishMode;
use crate::objects::{ContainerSpec, Endpoint, EndpointSpec, Network, Node, Service, Version};
use crate::store::{Object, Store};

fn service() -> Service {
    let mut service = fixture::replicated(1, 2);
    service.spec.labels.insert("tier".to_owned(), "front".to_owned());
    service
}

fn running(number: u128, slot: u64, node: &Node) -> Task {
    fixture::task_on(fixture::task(number, &service(), slot), node, TaskState::Running)
}

fn store(tasks: impl IntoIterator<Item = Task>) -> Store {
    let objects = [
        Object::from(service()),
        fixture::replicated(2, 1).into(),
        fixture::node(8).into(),
        fixture::node(9).into(),
    ];
    fixture::store(objects.into_iter().chain(tasks.into_iter().map(Object::from)))
}

fn listed(store: &Store, pairs: &[(&str, &str)]) -> Result<Vec<TaskId>, ControlError> {
    with_view(store, |view| list_tasks(view, &pairs.iter().copied().collect()))
        .map(|tasks| tasks.iter().map(|task| task.id).collect())
}

#[test]
fn tasks_are_listed_by_each_key() {
    let mut ended = running(12, 1, &fixture::node(9));
    ended.desired_state = TaskState::Shutdown;
    let other = fixture::task(13, &fixture::replicated(2, 1), 1);
    let mut attached = fixture::task(14, &service(), 0);
    attached.service = None;
    attached.name = attached.id.to_string().into();
    Arc::make_mut(&mut attached.spec).runtime = TaskRuntime::Attachment { container: "c".to_owned() };
    let store = store([running(11, 1, &fixture::node(8)), ended, other, attached]);
    let [a, b, c, d] = [11, 12, 13, 14].map(TaskId::of);
    let list = |pairs: &[(&str, &str)]| listed(&store, pairs).unwrap();
    assert_eq!(list(&[]), [a, b, c], "attachments are not shown");
    assert_eq!(list(&[("service", "service-1")]), [a, b]);
    assert_eq!(list(&[("service", "service-1"), ("service", "service-2")]), [a, b, c]);
    assert_eq!(list(&[("node", "node-9")]), [b]);
    assert_eq!(list(&[("service", "service-2"), ("node", "node-9")]), []);
    assert_eq!(list(&[("name", "service-2.")]), [c]);
    assert_eq!(list(&[("id", &a.to_string())]), [a]);
    assert_eq!(list(&[("id", &a.to_string()), ("id", &c.to_string())]), [a, c]);
    assert_eq!(list(&[("label", "tier=front")]), [a, b]);
    assert_eq!(list(&[("desired-state", "running"), ("desired-state", "")]), [a, c]);
    assert_eq!(list(&[("desired-state", "SHUTDOWN")]), [b]);
    assert_eq!(list(&[("runtime", "attachment")]), [d]);
    let text = |error: Result<Vec<TaskId>, ControlError>| error.unwrap_err().to_string();
    assert_eq!(text(listed(&store, &[("desired-state", "idle")])), "Invalid desired-state filter: 'idle'");
    assert_eq!(text(listed(&store, &[("service", "none")])), "service none not found");
    assert_eq!(text(listed(&store, &[("node", "none")])), "node none not found");
    assert_eq!(text(listed(&store, &[("state", "x")])), "invalid filter 'state'");
}

#[test]
fn every_state_has_its_name() {
    for (text, state) in [
        ("new", TaskState::New),
        ("pending", TaskState::Pending),
        ("assigned", TaskState::Assigned),
        ("accepted", TaskState::Accepted),
        ("preparing", TaskState::Preparing),
        ("ready", TaskState::Ready),
        ("starting", TaskState::Starting),
        ("running", TaskState::Running),
        ("complete", TaskState::Complete),
        ("shutdown", TaskState::Shutdown),
        ("failed", TaskState::Failed),
        ("rejected", TaskState::Rejected),
        ("remove", TaskState::Remove),
        ("orphaned", TaskState::Orphaned),
    ] {
        assert_eq!(state_named(text), Some(state));
        assert_eq!(serde_json::to_value(state).unwrap(), text, "as it is serialized");
    }
}

/// A task of an older spec version that was changed so is up to date, or not.
fn is_current(change: impl FnOnce(&mut Task)) -> bool {
    let mut task = running(11, 1, &fixture::node(8));
    task.spec_version = Version(0);
    change(&mut task);
    listed(&store([task]), &[("_up-to-date", "true")]).unwrap() == [TaskId::of(11)]
}

fn change_container(task: &mut Task, change: impl FnOnce(&mut ContainerSpec)) {
    let TaskRuntime::Container(container) = &mut Arc::make_mut(&mut task.spec).runtime else { panic!() };
    change(container);
}

#[test]
fn a_task_that_no_update_replaces_is_up_to_date() {
    assert!(is_current(|_| ()), "the same by another version");
    assert!(!is_current(|task| change_container(task, |it| it.image = "old".to_owned())));
    assert!(is_current(|task| {
        task.spec_version = Version(1);
        change_container(task, |it| it.image = "old".to_owned());
    }));
    assert!(!is_current(|task| task.service = None));
    assert!(!is_current(|task| {
        let spec = EndpointSpec { ports: vec![port(80, PublishMode::Ingress)], ..EndpointSpec::default() };
        task.endpoint = Some(Endpoint { spec, ..Endpoint::default() });
    }));
    assert!(is_current(|task| task.endpoint = Some(Endpoint::default())));
    let placed = |task: &mut Task| {
        Arc::make_mut(&mut task.spec).placement.constraints.push("node.role == manager".to_owned());
    };
    assert!(is_current(placed), "its node is good for what is wanted now");
    assert!(!is_current(|task| {
        placed(task);
        task.node = None;
    }));
    let credentials =
        |task: &mut Task| change_container(task, |it| it.registry_auth = Some("x".to_owned().into()));
    assert!(is_current(credentials), "it has its image");
    assert!(!is_current(|task| {
        credentials(task);
        task.status.state = TaskState::Preparing;
    }));
}

fn attachable() -> Network {
    let mut network = fixture::network(3);
    network.spec.attachable = true;
    network
}

fn attach(store: &Store, network: &str) -> Result<(TaskId, Vec<StoreAction>), ControlError> {
    attach_as(store, network, None)
}

fn attach_as(
    store: &Store,
    network: &str,
    place: Option<(u128, u128)>,
) -> Result<(TaskId, Vec<StoreAction>), ControlError> {
    let (node, place) = place.map_or((8, None), |(node, id)| (node, Some(TaskId::of(id))));
    let attachment = Attachment {
        node: NodeId::of(node),
        place,
        container: "c1".to_owned(),
        name: "box".to_owned(),
        aliases: vec!["other".to_owned()],
        network: network.to_owned(),
        addresses: vec!["10.0.0.7".parse().unwrap()],
    };
    with_view(store, |view| attach_network(view, attachment, at(2), &mut || 77))
}

#[test]
fn a_plain_container_joins_and_leaves() {
    let mut store = fixture::store([attachable().into()]);
    let (id, actions) = attach(&store, "network-3").unwrap();
    assert!(attach(&store, &attachable().id.to_string()).is_ok(), "by its id");
    super::super::tests::commit(&mut store, &actions);
    let task = store.task(id).unwrap();
    assert_eq!((task.node, task.desired_state), (Some(NodeId::of(8)), TaskState::Running));
    assert_eq!((task.status.state, &*task.status.message), (TaskState::New, "created"));
    assert_eq!((&*task.name, task.spec.networks[0].target), ("box", attachable().id));
    assert_eq!((task.spec.networks[0].addresses.len(), task.spec.networks[0].aliases.len()), (1, 1));
    with_view(&store, |view| {
        let refused = Err(texts::attachment_of_another_node(id));
        assert_eq!(detach_network(view, id, NodeId::of(9)), refused);
        assert_eq!(detach_network(view, id, NodeId::of(8)), Ok(vec![StoreAction::Remove(id.into())]));
    });
}

#[test]
fn a_place_that_is_asked_for_again_is_the_same() {
    let service_task = fixture::task(5, &service(), 1);
    let mut store =
        fixture::store([attachable().into(), fixture::network(2).into(), service_task.clone().into()]);
    let (id, actions) = attach_as(&store, "network-3", Some((8, 500))).unwrap();
    assert_eq!(id, TaskId::of(500));
    super::super::tests::commit(&mut store, &actions);
    assert_eq!(attach_as(&store, "network-3", Some((8, 500))), Ok((id, Vec::new())));
    let anothers = |id| Err(texts::attachment_of_another_node(id));
    assert_eq!(attach_as(&store, "network-3", Some((9, 500))), anothers(id));
    let of_service = service_task.id;
    assert_eq!(attach_as(&store, "network-3", Some((8, of_service.bits()))), anothers(of_service));
}

#[test]
fn a_node_has_so_many_places_and_no_more() {
    let mut store = fixture::store([attachable().into()]);
    let (_, actions) = attach(&store, "network-3").unwrap();
    super::super::tests::commit(&mut store, &actions);
    let first = store.tasks_on(NodeId::of(8)).next().unwrap().clone();
    let others = (0..MOST_PLACES - 1).map(|number| {
        let id = TaskId::of(1000 + u128::try_from(number).unwrap());
        StoreAction::Create(Task { id, ..(*first).clone() }.into())
    });
    super::super::tests::commit(&mut store, &others.collect::<Vec<_>>());
    assert_eq!(attach(&store, "network-3"), Err(texts::too_many_attachments(MOST_PLACES)));
}

#[test]
fn only_attachable_networks_are_joined_and_only_attachments_left() {
    let service_task = fixture::task(5, &service(), 1);
    let mut going = attachable();
    going.pending_delete = true;
    let store =
        fixture::store([fixture::network(2).into(), going.clone().into(), service_task.clone().into()]);
    assert_eq!(attach(&store, "network-2"), Err(texts::network_not_attachable("network-2")));
    for gone in ["network-3", "nonsense"] {
        let refused = attach(&store, gone).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("rpc error: code = NotFound desc = network {gone} not found")
        );
    }
    with_view(&store, |view| {
        let refused = Err(texts::attachment_not_found(service_task.id));
        assert_eq!(detach_network(view, service_task.id, NodeId::of(8)), refused);
    });
}
