//! What the scheduler promises, one case at a time. That it holds in any cluster is in `reference`.

use std::sync::Arc;

use super::filter::Filter;
use super::schedule;
use crate::fixture::{self, at};
use crate::id::{NodeId, ServiceId};
use crate::objects::container::{Mount, VolumeOptions};
use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::node::{Availability, NodeState};
use crate::objects::{
    Driver, Endpoint, Labels, Network, NetworkAttachment, Node, PortConfig, Resources, Service, Task,
    TaskSpec, TaskState, TaskStatus, Version,
};
use crate::store::{Object, Store, StoreAction};
use crate::view::{Observed, Told, View};

/// A service whose tasks are of this spec.
fn service(number: u128, change: impl FnOnce(&mut TaskSpec)) -> Service {
    let mut service = fixture::replicated(number, 1);
    change(Arc::make_mut(&mut service.spec.task));
    service
}

fn pending(number: u128, service: &Service) -> Task {
    let status = TaskStatus { state: TaskState::Pending, ..TaskStatus::default() };
    Task { status, ..fixture::task(number, service, 1) }
}

fn node(number: u128, change: impl FnOnce(&mut Node)) -> Node {
    let mut node = fixture::node(number);
    change(&mut node);
    node
}

fn labelled(number: u128, key: &str, value: &str) -> Node {
    node(number, |node| drop(node.spec.labels.insert(key.to_owned(), value.to_owned())))
}

/// The tasks as a pass over these objects writes them, by their ids.
fn written(objects: impl IntoIterator<Item = Object>) -> Vec<Task> {
    let store = fixture::store(objects);
    let mut tasks: Vec<Task> = actions(&store)
        .into_iter()
        .map(|action| match action {
            StoreAction::Update(Object::Task(task)) => Task::clone(&task),
            other => panic!("the scheduler only updates tasks, not {other:?}"),
        })
        .collect();
    tasks.sort_by_key(|task| task.id);
    tasks
}

fn actions(store: &Store) -> Vec<StoreAction> {
    schedule(&View::new(store, &Observed::default()), at(1000)).actions
}

/// Where the only pending task goes, or why it does not.
fn outcome(objects: impl IntoIterator<Item = Object>) -> Result<u128, String> {
    let [task] = &written(objects)[..] else { panic!("one task waits") };
    match task.status.state {
        TaskState::Assigned => Ok(task.node.unwrap().bits()),
        _ => Err(task.status.error.to_string()),
    }
}

fn objects(nodes: impl IntoIterator<Item = Node>, task: Task) -> Vec<Object> {
    nodes.into_iter().map(Object::from).chain([task.into()]).collect()
}

#[test]
fn an_assigned_task_has_its_node_and_docker_s_words() {
    let mut task = pending(9, &service(5, |_| {}));
    task.status.error = "no suitable node".into();
    let [task] = &written(objects([fixture::node(1)], task))[..] else { panic!("one task") };
    assert_eq!(task.node, Some(NodeId::of(1)));
    let message = "scheduler assigned task to node".into();
    let expected =
        TaskStatus { state: TaskState::Assigned, since: at(1000), message, ..TaskStatus::default() };
    assert_eq!(task.status, expected);
}

/// The words are what `docker service ps` shows and scripts look for.
#[test]
fn each_filter_says_in_swarmkits_words_why() {
    let told: Vec<_> = Filter::ALL.map(|filter| [1, 2].map(|nodes| filter.explain(nodes))).concat();
    let expected = [
        "1 node not available for new tasks",
        "2 nodes not available for new tasks",
        "insufficient resources on 1 node",
        "insufficient resources on 2 nodes",
        "missing plugin on 1 node",
        "missing plugin on 2 nodes",
        "encrypted networks not supported by the kernel on 1 node",
        "encrypted networks not supported by the kernel on 2 nodes",
        "scheduling constraints not satisfied on 1 node",
        "scheduling constraints not satisfied on 2 nodes",
        "unsupported platform on 1 node",
        "unsupported platform on 2 nodes",
        "host-mode port already in use on 1 node",
        "host-mode port already in use on 2 nodes",
        "max replicas per node limit exceed",
        "max replicas per node limit exceed",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_reason_counts_each_node_once_and_the_most_come_first() {
    let service = service(5, |spec| {
        spec.resources.reservations.memory_bytes = 1 << 30;
        spec.placement.constraints = vec!["node.labels.zone == a".to_owned()];
    });
    let small = |number| node(number, |it| it.description.as_mut().unwrap().resources.memory_bytes = 1);
    let nodes = [small(1), small(2), labelled(3, "zone", "b")];
    let reason = "no suitable node (insufficient resources on 2 nodes; scheduling constraints not satisfied on 1 node)";
    assert_eq!(outcome(objects(nodes, pending(9, &service))), Err(reason.to_owned()));
    assert_eq!(outcome(objects([], pending(9, &service))), Err("no suitable node".to_owned()));
}

#[test]
fn a_reason_that_is_told_already_is_not_written_again() {
    let mut task = pending(9, &service(5, |_| {}));
    task.status.error = "no suitable node".into();
    assert_eq!(written(objects([], task)), []);
}

#[test]
fn only_ready_and_active_nodes_get_tasks() {
    let service = service(5, |_| {});
    let nodes = [
        node(1, |it| it.status.state = NodeState::Down),
        node(2, |it| it.spec.availability = Availability::Pause),
        node(3, |it| it.spec.availability = Availability::Drain),
        node(4, |it| it.status.state = NodeState::Unknown),
    ];
    assert_eq!(
        outcome(objects(nodes.clone().into_iter().chain([fixture::node(6)]), pending(9, &service))),
        Ok(6)
    );
    let reason = "no suitable node (4 nodes not available for new tasks)".to_owned();
    assert_eq!(outcome(objects(nodes, pending(9, &service))), Err(reason));
}

#[test]
fn what_is_shut_down_still_holds_its_resources() {
    let service = service(5, |spec| spec.resources.reservations.nano_cpus = 3_000_000_000);
    let running = fixture::task_on(fixture::task(8, &service, 1), &fixture::node(1), TaskState::Running);
    let stopping = Task { desired_state: TaskState::Shutdown, ..running };
    let ended = fixture::task_on(stopping.clone(), &fixture::node(1), TaskState::Shutdown);
    let with = |other: Task| {
        outcome(objects([fixture::node(1)], pending(9, &service)).into_iter().chain([other.into()]))
    };
    assert_eq!(with(stopping), Err("no suitable node (insufficient resources on 1 node)".to_owned()));
    assert_eq!(with(ended), Ok(1));
}

#[test]
fn a_workers_word_counts_before_it_is_committed() {
    let service = service(5, |spec| spec.resources.reservations.nano_cpus = 3_000_000_000);
    let running = fixture::task_on(fixture::task(8, &service, 1), &fixture::node(1), TaskState::Assigned);
    let store = fixture::store(
        objects([fixture::node(1)], pending(9, &service)).into_iter().chain([running.clone().into()]),
    );
    let mut observed = Observed::default();
    observed.note(running.id, Told { state: TaskState::Complete, ..Told::default() }, at(999));
    let actions = schedule(&View::new(&store, &observed), at(1000)).actions;
    let [StoreAction::Update(Object::Task(task))] = &actions[..] else { panic!("one task is placed") };
    assert_eq!(task.node, Some(NodeId::of(1)));
}

#[test]
fn drivers_must_be_on_the_node() {
    let volume = |name: &str| {
        let driver = Some(Driver { name: name.to_owned(), ..Driver::default() });
        let mount =
            Mount { volume: VolumeOptions { driver, ..VolumeOptions::default() }, ..Mount::default() };
        service(5, |spec| {
            let crate::objects::task::TaskRuntime::Container(container) = &mut spec.runtime else { panic!() };
            container.mounts = vec![mount];
        })
    };
    let with = |plugins: &[(&str, &str)]| {
        let plugins = plugins.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect();
        node(1, |node| node.description.as_mut().unwrap().engine.plugins = plugins)
    };
    let missing = Err("no suitable node (missing plugin on 1 node)".to_owned());
    let place = |node: Node, service: &Service| outcome(objects([node], pending(9, service)));
    assert_eq!(place(with(&[]), &volume("local")), Ok(1));
    assert_eq!(place(with(&[("Network", "nfs")]), &volume("nfs")), missing);
    assert_eq!(place(with(&[("Volume", "nfs")]), &volume("nfs")), Ok(1));
    assert_eq!(place(with(&[("Volume", "nfs:latest")]), &volume("nfs")), Ok(1));
    let log =
        service(5, |spec| spec.log_driver = Some(Driver { name: "gelf".to_owned(), ..Driver::default() }));
    assert_eq!(place(with(&[("Log", "json-file")]), &log), missing);
    assert_eq!(place(with(&[("Log", "gelf")]), &log), Ok(1));
    assert_eq!(place(with(&[]), &log), Ok(1), "a node that lists no log driver says nothing of them");
}

/// A network, a node that has its driver, and a task that is in it.
fn networked(change: impl FnOnce(&mut Network), encryption: bool) -> Vec<Object> {
    let mut network = fixture::network(3);
    change(&mut network);
    let mut task = pending(9, &service(5, |_| {}));
    task.networks = vec![NetworkAttachment {
        network: network.id,
        addresses: Vec::new(),
        aliases: Vec::new(),
        driver_options: Labels::new(),
    }];
    let node = node(1, |node| {
        let description = node.description.as_mut().unwrap();
        description.engine.plugins = [("Network".to_owned(), "overlay".to_owned())].into();
        description.encryption = encryption;
    });
    objects([node], task).into_iter().chain([network.into()]).collect()
}

#[test]
fn an_encrypted_network_needs_a_kernel_that_can() {
    let encrypt = |network: &mut Network| {
        network.spec.driver.options.insert("encrypted".to_owned(), String::new());
    };
    assert_eq!(outcome(networked(|_| {}, false)), Ok(1));
    assert_eq!(outcome(networked(encrypt, true)), Ok(1));
    let reason = "no suitable node (encrypted networks not supported by the kernel on 1 node)".to_owned();
    assert_eq!(outcome(networked(encrypt, false)), Err(reason));
}

#[test]
fn a_networks_driver_is_overlay_when_it_says_nothing() {
    assert_eq!(outcome(networked(|network| network.spec.driver.name = "overlay".to_owned(), false)), Ok(1));
    let missing = Err("no suitable node (missing plugin on 1 node)".to_owned());
    assert_eq!(outcome(networked(|network| network.spec.driver.name = "macvlan".to_owned(), false)), missing);
}

fn with_port(task: Task, protocol: Protocol, published_port: u16, publish_mode: PublishMode) -> Task {
    let port = PortConfig { name: String::new(), protocol, target_port: 80, published_port, publish_mode };
    Task { endpoint: Some(Endpoint { ports: vec![port], ..Endpoint::default() }), ..task }
}

#[test]
fn a_host_port_is_free_per_protocol() {
    let service = service(5, |_| {});
    let holder = fixture::task_on(fixture::task(8, &service, 1), &fixture::node(1), TaskState::Running);
    let holder = with_port(holder, Protocol::Tcp, 80, PublishMode::Host);
    let place = |protocol, port, mode| {
        let task = with_port(pending(9, &service), protocol, port, mode);
        outcome(objects([fixture::node(1)], task).into_iter().chain([holder.clone().into()]))
    };
    let taken = Err("no suitable node (host-mode port already in use on 1 node)".to_owned());
    assert_eq!(place(Protocol::Tcp, 80, PublishMode::Host), taken);
    assert_eq!(place(Protocol::Udp, 80, PublishMode::Host), Ok(1));
    assert_eq!(place(Protocol::Tcp, 0, PublishMode::Host), Ok(1));
    assert_eq!(place(Protocol::Tcp, 80, PublishMode::Ingress), Ok(1));
}

#[test]
fn a_task_with_a_node_goes_there_or_nowhere() {
    let service =
        service(5, |spec| spec.resources.reservations = Resources { nano_cpus: 1, ..Resources::default() });
    let bound = |node: u128| Task { node: Some(NodeId::of(node)), ..pending(9, &service) };
    let small = node(2, |it| it.description.as_mut().unwrap().resources.nano_cpus = 0);
    let nodes = || [fixture::node(1), small.clone()];
    let [task] = &written(objects(nodes(), bound(1)))[..] else { panic!("one task") };
    assert_eq!(task.status.state, TaskState::Assigned);
    assert_eq!(&*task.status.message, "scheduler confirmed task can run on preassigned node");
    assert_eq!(outcome(objects(nodes(), bound(2))), Err("insufficient resources on 1 node".to_owned()));
    let gone = Err("1 node not available for new tasks".to_owned());
    assert_eq!(outcome(objects(nodes(), bound(7))), gone, "its node is no more");
}

#[test]
fn a_task_that_is_no_longer_wanted_is_left_alone() {
    let task = Task { desired_state: TaskState::Shutdown, ..pending(9, &service(5, |_| {})) };
    assert_eq!(written(objects([fixture::node(1)], task)), []);
    let new = fixture::task(9, &service(5, |_| {}), 1);
    assert_eq!(written(objects([fixture::node(1)], new)), [], "it has no addresses yet");
}

#[test]
fn a_node_where_it_failed_five_times_is_the_last_choice() {
    let service = service(1, |_| {});
    let failed = |number: u128, since| {
        let mut task =
            fixture::task_on(fixture::task(number, &service, 1), &fixture::node(1), TaskState::Failed);
        task.status.since = since;
        Object::from(task)
    };
    let place = |nodes: &[u128], failures: u128, since| {
        let failures = (0..failures).map(|number| failed(100 + number, since));
        let nodes = nodes.iter().map(|number| fixture::node(*number));
        outcome(objects(nodes, pending(9, &service)).into_iter().chain(failures))
    };
    assert_eq!(place(&[1, 2], 4, at(900)), Ok(1));
    assert_eq!(place(&[1, 2], 5, at(900)), Ok(2));
    assert_eq!(place(&[1, 2], 5, at(700)), Ok(1), "five minutes ago");
    assert_eq!(place(&[1], 9, at(900)), Ok(1), "there is no other");
    let changed = Service { spec_version: Version(7), ..service.clone() };
    let task = pending(9, &changed);
    let failures = (0..9).map(|number| failed(100 + number, at(900)));
    let placed = outcome(objects([1, 2].map(fixture::node), task).into_iter().chain(failures));
    assert_eq!(placed, Ok(1), "they were of another version of the spec");
}

#[test]
fn tasks_go_where_fewest_of_the_service_and_then_fewest_are() {
    let (web, other) = (service(1, |_| {}), service(2, |_| {}));
    let on = |number: u128, service: &Service, node: u128| {
        Object::from(fixture::task_on(
            fixture::task(number, service, 1),
            &fixture::node(node),
            TaskState::Running,
        ))
    };
    let place = |running: Vec<Object>| {
        outcome(objects([fixture::node(1), fixture::node(2)], pending(9, &web)).into_iter().chain(running))
    };
    assert_eq!(place(vec![on(20, &web, 1), on(21, &other, 2), on(22, &other, 2)]), Ok(2));
    assert_eq!(place(vec![on(20, &other, 1)]), Ok(2));
    assert_eq!(place(vec![]), Ok(1));
}

#[test]
fn services_begin_at_nodes_of_their_own() {
    let ids = [1_u128 << 126, 2 << 126, 3 << 126];
    let first_of = |service_id: u128| {
        let mut service = service(5, |_| {});
        service.id = ServiceId::of(service_id);
        outcome(objects(ids.map(fixture::node), pending(9, &service))).unwrap()
    };
    assert_eq!(
        [first_of(5), first_of(ids[0] + 1), first_of(ids[1] + 1), first_of(ids[2] + 1)],
        [ids[0], ids[1], ids[2], ids[0]]
    );
}

#[test]
fn preferences_spread_over_values_before_nodes() {
    let service = service(5, |spec| spec.placement.spread = vec!["node.labels.zone".to_owned()]);
    let nodes =
        [labelled(1, "zone", "a"), labelled(2, "zone", "a"), labelled(3, "zone", "a"), fixture::node(4)];
    let tasks = (0..4).map(|slot| Object::from(Task { slot, ..pending(10 + u128::from(slot), &service) }));
    let placed = written(nodes.into_iter().map(Object::from).chain(tasks));
    let on_4 = placed.iter().filter(|task| task.node == Some(NodeId::of(4))).count();
    assert_eq!((placed.len(), on_4), (4, 2), "a node without the label is a branch of its own");
}

#[test]
fn what_waits_longest_gets_the_room() {
    let one_cpu = |spec: &mut TaskSpec| spec.resources.reservations.nano_cpus = 3_000_000_000;
    let (young, old) = (service(1, one_cpu), service(2, one_cpu));
    let mut tasks = [pending(10, &young), pending(11, &old)];
    tasks[0].meta.created_at = at(50);
    tasks[1].meta.created_at = at(40);
    let placed = written([Object::from(fixture::node(1))].into_iter().chain(tasks.map(Object::from)));
    assert_eq!([placed[0].node, placed[1].node], [None, Some(NodeId::of(1))]);
}
