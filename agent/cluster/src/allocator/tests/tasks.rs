//! Tasks and nodes: addresses, and who has to wait.

use super::*;

fn attachment(number: u128, network: u128, addresses: &[&str]) -> Task {
    let wanted = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let spec = TaskSpec {
        runtime: TaskRuntime::Attachment { container: "c".to_owned() },
        networks: vec![NetworkAttachmentConfig { addresses: wanted, ..joining(network) }],
        ..TaskSpec::default()
    };
    Task { spec: Arc::new(spec), service: None, ..fixture::task(number, &fixture::replicated(1, 1), 0) }
}

#[test]
fn a_new_task_waits_for_a_node_with_its_addresses_and_its_services_endpoint() {
    let mut service = service_on(1, &[1]);
    service.spec.endpoint =
        Some(EndpointSpec { ports: vec![port(8080, PublishMode::Ingress)], ..EndpointSpec::default() });
    let mut dual = fixture::network(1);
    dual.spec.ipv6 = true;
    let new = fixture::task(1, &service, 1);
    let store = settled_with([dual.into(), ingress(2).into(), new.into(), service.into()]);
    let task = task(&store, 1);
    assert_eq!(task.status.state, TaskState::Pending);
    assert_eq!(&*task.status.message, "pending task scheduling");
    assert_eq!(task.status.since, NOW);
    let counts: Vec<_> = task.networks.iter().map(|it| (it.network, it.addresses.len())).collect();
    assert_eq!(counts, [(NetworkId::of(1), 2), (NetworkId::of(2), 1)]);
    assert_eq!(task.networks[0].aliases, ["alias"]);
    let endpoint = &self::service(&store, 1).endpoint;
    assert_eq!(task.endpoint.as_ref(), Some(endpoint));
    assert_eq!(endpoint.virtual_ips.len(), 2);
    assert_eq!(published(&store, 1), [8080]);
}

/// A network of four addresses: the gateway, the service's, and two for tasks.
fn small_network_with(tasks: u128) -> Store {
    let service = service_on(1, &[1]);
    let objects: Vec<Object> = (1..=tasks)
        .map(|number| fixture::task(number, &service, u64::try_from(number).unwrap()).into())
        .collect();
    let mut network = with_subnets(1, &["10.7.0.0/29"]);
    let reserved =
        [("a".to_owned(), "10.7.0.6".parse().unwrap()), ("b".to_owned(), "10.7.0.5".parse().unwrap())];
    network.spec.ipam[0].reserved = BTreeMap::from(reserved);
    settled_with([network.into(), service.into()].into_iter().chain(objects))
}

#[test]
fn a_full_network_is_named_and_an_end_lets_the_next_in() {
    let store = small_network_with(3);
    assert_eq!(reason(&store, 3), "no address is free in 10.7.0.0/29 of network network-1");
    let asked_to_stop = task(&store, 1).clone().into();
    let store = after(store, &asked_to_stop, |task| task.desired_state = TaskState::Shutdown);
    assert_eq!(task(&store, 3).status.state, TaskState::New, "it may still run, and holds its address");
    let stopped = Arc::new(task(&store, 1).clone());
    let store = after(store, &stopped, |task| task.status.state = TaskState::Shutdown);
    assert_eq!(task(&store, 3).networks[0].addresses, task(&store, 1).networks[0].addresses);
}

#[test]
fn a_task_that_is_to_end_gets_nothing() {
    let service = service_on(1, &[1]);
    let stopped = Task { desired_state: TaskState::Shutdown, ..fixture::task(1, &service, 1) };
    let orphan = fixture::task(2, &fixture::replicated(9, 1), 1);
    let store = settled_with([fixture::network(1).into(), service.into(), stopped.into(), orphan.into()]);
    assert_eq!(reason(&store, 1), "");
    assert_eq!(reason(&store, 2), "");
}

#[test]
fn an_ended_tasks_address_is_the_last_to_be_given() {
    let service = service_on(1, &[1]);
    let first = fixture::task(1 << 8, &service, 1);
    let store =
        settled_with([with_subnets(1, &["10.7.0.0/24"]).into(), service.clone().into(), first.into()]);
    let ended = Arc::new(task(&store, 1 << 8).clone());
    let mut store = after(store, &ended, |task| task.status.state = TaskState::Failed);
    let start = ended.id.bits() % 254;
    let mut wanted = Reconciled::default();
    wanted.create(fixture::task(start + 2 * 254, &service, 1));
    fixture::apply(&mut store, wanted);
    let store = settled(store);
    let next = &task(&store, start + 2 * 254).networks[0].addresses;
    assert_eq!(
        crate::objects::network::number_of(next[0].address),
        crate::objects::network::number_of(ended.networks[0].addresses[0].address) + 1
    );
}

#[test]
fn a_virtual_address_outlives_its_service_while_a_task_knows_it() {
    let mut store = small_network_with(1);
    let virtual_ip = service(&store, 1).endpoint.virtual_ips[0].addresses[0].address;
    let mut wanted = Reconciled::default();
    wanted.remove(ServiceId::of(1));
    let text = virtual_ip.to_string();
    wanted.create(attachment(9, 1, &[&text]));
    fixture::apply(&mut store, wanted);
    let store = settled(store);
    assert_eq!(reason(&store, 9), format!("address {virtual_ip} of network network-1 is in use"));
    let last = Arc::new(task(&store, 1).clone());
    let store = after(store, &last, |task| task.status.state = TaskState::Shutdown);
    assert_eq!(task(&store, 9).networks[0].addresses[0].address, virtual_ip);
}

#[test]
fn a_task_that_is_older_than_its_services_networks_holds_no_address_of_theirs() {
    let new = fixture::task(1, &service_on(1, &[1]), 1);
    let joined = service_on(1, &[1, 2]);
    let networks = [1, 2].map(|number| Object::from(fixture::network(number)));
    let store = settled_with(networks.into_iter().chain([joined.into(), new.into()]));
    let virtual_ips = service(&store, 1).endpoint.virtual_ips.clone();
    assert_eq!(virtual_ips.iter().map(|it| it.network).collect::<Vec<_>>(), [1, 2].map(NetworkId::of));
    let told = |store: &Store| task(store, 1).endpoint.clone().unwrap().virtual_ips;
    assert_eq!(told(&store), virtual_ips[..1]);

    let left = service(&store, 1).clone();
    let store = after(store, &left, |it| it.spec.task = service_on(1, &[1]).spec.task);
    let going = store.network(NetworkId::of(2)).unwrap().clone();
    let store = after(store, &going, |network| network.pending_delete = true);
    assert!(store.network(NetworkId::of(2)).is_none());
    let address = virtual_ips[1].addresses[0].address;
    assert_eq!(store.holders_of(NetworkId::of(2), address).live, 0, "the task, which has not ended");
}

#[test]
fn an_attachment_gets_the_address_that_it_asks_for_or_says_why_not() {
    let store = settled_with([
        with_subnets(1, &["10.7.0.0/24"]).into(),
        attachment(1, 1, &["10.7.0.99"]).into(),
        attachment(2, 1, &["10.7.0.99"]).into(),
        attachment(3, 1, &["10.7.0.1"]).into(),
        attachment(4, 1, &["10.8.0.9"]).into(),
        attachment(5, 1, &["10.7.0.255"]).into(),
        attachment(6, 1, &[]).into(),
    ]);
    assert_eq!(task(&store, 1).networks[0].addresses, [subnet("10.7.0.99/24")]);
    assert_eq!(task(&store, 1).endpoint, None);
    assert_eq!(reason(&store, 2), "address 10.7.0.99 of network network-1 is in use");
    assert_eq!(reason(&store, 3), "address 10.7.0.1 can't be given in network network-1");
    assert_eq!(reason(&store, 4), "address 10.8.0.9 can't be given in network network-1");
    assert_eq!(reason(&store, 5), "address 10.7.0.255 can't be given in network network-1");
    assert_eq!(task(&store, 6).status.state, TaskState::Pending);
}

#[test]
fn a_node_has_an_address_on_ingress_and_where_its_tasks_are() {
    let node = fixture::node(1);
    let networks_of = |store: &Store| -> Vec<NetworkId> {
        store.node(NodeId::of(1)).unwrap().attachments.iter().map(|it| it.network).collect()
    };
    let service = service_on(1, &[1]);
    let new = Task { node: Some(node.id), ..fixture::task(1, &service, 1) };
    let store = settled_with([
        ingress(2).into(),
        fixture::network(1).into(),
        service.into(),
        new.into(),
        node.into(),
    ]);
    let both = [NetworkId::of(2), NetworkId::of(1)];
    assert_eq!(networks_of(&store), both);

    let down = store.node(NodeId::of(1)).unwrap().clone();
    let store = after(store, &down, |node| node.status.state = NodeState::Down);
    let ended = Arc::new(task(&store, 1).clone());
    let store = after(store, &ended, |task| task.status.state = TaskState::Orphaned);
    assert_eq!(networks_of(&store), both, "nothing is taken from a node that can't hear of it");
    let back = store.node(NodeId::of(1)).unwrap().clone();
    let store = after(store, &back, |node| node.status.state = NodeState::Ready);
    assert_eq!(networks_of(&store), [NetworkId::of(2)]);
}

#[test]
fn a_node_that_was_never_ready_has_no_place_in_the_mesh() {
    let mut node = fixture::node(1);
    node.status.state = NodeState::Unknown;
    let store = settled_with([ingress(1).into(), node.into()]);
    assert!(store.node(NodeId::of(1)).unwrap().attachments.is_empty());
}
