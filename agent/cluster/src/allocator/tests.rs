//! What the allocator gives in plain situations, and what it says when it can't.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::fixture;
use crate::id::{NodeId, TaskId};
use crate::objects::endpoint::{Protocol, PublishMode, ResolutionMode};
use crate::objects::network::{IpamConfig, Subnet};
use crate::objects::task::NetworkAttachmentConfig;
use crate::objects::{Driver, EndpointSpec, Network, PortConfig, TaskSpec};
use crate::store::{Object, Store};
use crate::view::Observed;

const NOW: Timestamp = Timestamp(77);

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn ingress(number: u128) -> Network {
    let mut network = fixture::network(number);
    network.spec.ingress = true;
    network.spec.name = "ingress".to_owned();
    network
}

fn with_subnets(number: u128, subnets: &[&str]) -> Network {
    let mut network = fixture::network(number);
    let config = |text: &&str| IpamConfig { subnet: Some(subnet(text)), ..IpamConfig::default() };
    network.spec.ipam = subnets.iter().map(config).collect();
    network
}

fn with_vni(number: u128, list: &str) -> Network {
    let mut network = fixture::network(number);
    let options =
        BTreeMap::from([("com.docker.network.driver.overlay.vxlanid_list".to_owned(), list.to_owned())]);
    network.spec.driver = Driver { name: "overlay".to_owned(), options };
    network
}

fn joining(network: u128) -> NetworkAttachmentConfig {
    NetworkAttachmentConfig {
        target: NetworkId::of(network),
        aliases: vec!["alias".to_owned()],
        addresses: Vec::new(),
        driver_options: BTreeMap::new(),
    }
}

fn service_on(number: u128, networks: &[u128]) -> Service {
    let mut service = fixture::replicated(number, 1);
    let networks = networks.iter().map(|network| joining(*network)).collect();
    service.spec.task = Arc::new(TaskSpec { networks, ..TaskSpec::default() });
    service
}

fn port(published_port: u16, publish_mode: PublishMode) -> PortConfig {
    PortConfig { name: String::new(), protocol: Protocol::Tcp, target_port: 80, published_port, publish_mode }
}

fn publishing(number: u128, ports: &[u16]) -> Service {
    let ports = ports.iter().map(|published| port(*published, PublishMode::Ingress)).collect();
    let mut service = service_on(number, &[]);
    service.spec.endpoint = Some(EndpointSpec { ports, ..EndpointSpec::default() });
    service
}

fn attachment(number: u128, network: u128, addresses: &[&str]) -> Task {
    let wanted = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let spec = TaskSpec {
        runtime: TaskRuntime::Attachment { container: "c".to_owned() },
        networks: vec![NetworkAttachmentConfig { addresses: wanted, ..joining(network) }],
        ..TaskSpec::default()
    };
    Task { spec: Arc::new(spec), service: None, ..fixture::task(number, &fixture::replicated(1, 1), 0) }
}

/// Lets the allocator work until it wants nothing; the store after that.
fn settled(mut store: Store) -> Store {
    for _ in 0..4 {
        let wanted = reconcile(&View::new(&store, &Observed::default()), NOW);
        assert_eq!(wanted.wake_at, None);
        if wanted.actions.is_empty() {
            return store;
        }
        fixture::apply(&mut store, wanted);
    }
    panic!("the allocator still wants something");
}

fn settled_with(objects: impl IntoIterator<Item = Object>) -> Store {
    settled(fixture::store(objects))
}

/// The store after one object was changed and the allocator has seen it.
fn after<T>(mut store: Store, object: &Arc<T>, change: impl FnOnce(&mut T)) -> Store
where
    T: Clone + Into<Object>,
{
    let mut object = T::clone(object);
    change(&mut object);
    let mut wanted = Reconciled::default();
    wanted.update(object);
    fixture::apply(&mut store, wanted);
    settled(store)
}

fn allocation(store: &Store, network: u128) -> (Option<u32>, Vec<String>, Vec<String>) {
    let network = store.network(NetworkId::of(network)).unwrap();
    let allocation = network.allocation.clone().unwrap_or_default();
    let subnets = allocation.pools.iter().map(|pool| pool.subnet.unwrap().to_string()).collect();
    let gateways = allocation.pools.iter().map(|pool| pool.gateway.unwrap().to_string()).collect();
    (allocation.vni, subnets, gateways)
}

fn subnets(store: &Store, network: u128) -> Vec<String> {
    allocation(store, network).1
}

fn task(store: &Store, number: u128) -> &Task {
    store.task(TaskId::of(number)).unwrap()
}

fn service(store: &Store, number: u128) -> &Arc<Service> {
    store.service(ServiceId::of(number)).unwrap()
}

fn published(store: &Store, number: u128) -> Vec<u16> {
    service(store, number).endpoint.ports.iter().map(|port| port.published_port).collect()
}

/// What the task, which must still be new, says of itself.
fn reason(store: &Store, number: u128) -> String {
    let status = &task(store, number).status;
    assert_eq!((status.state, &status.error), (TaskState::New, &status.message));
    status.message.clone()
}

#[test]
fn the_ingress_network_has_the_first_subnet_and_the_others_follow_by_age() {
    let mut older = fixture::network(9);
    older.meta.created_at = Timestamp(1);
    let mut younger = fixture::network(3);
    younger.meta.created_at = Timestamp(2);
    let mut mesh = ingress(7);
    mesh.meta.created_at = Timestamp(3);
    let store = settled_with([older.into(), younger.into(), mesh.into(), fixture::cluster().into()]);
    assert_eq!(allocation(&store, 7).1, ["10.0.0.0/24"]);
    assert_eq!(allocation(&store, 7).2, ["10.0.0.1"]);
    assert_eq!(subnets(&store, 9), ["10.0.1.0/24"]);
    assert_eq!(subnets(&store, 3), ["10.0.2.0/24"]);
    assert_eq!(store.network(NetworkId::of(7)).unwrap().meta.updated_at, NOW);
}

#[test]
fn a_free_subnet_is_found_between_those_of_users() {
    let taken = with_subnets(1, &["10.0.0.0/23"]);
    let also_taken = with_subnets(2, &["10.0.3.128/25"]);
    let first = settled_with([taken.into(), also_taken.into()]);
    let mut wanted = Reconciled::default();
    wanted.create(fixture::network(3));
    wanted.create(fixture::network(4));
    let mut store = first;
    fixture::apply(&mut store, wanted);
    let store = settled(store);
    assert_eq!(subnets(&store, 3), ["10.0.2.0/24"]);
    assert_eq!(subnets(&store, 4), ["10.0.4.0/24"]);
}

#[test]
fn ipv6_without_a_subnet_is_a_part_of_the_clusters_own_prefix() {
    let network = |number| {
        let mut network = fixture::network(number);
        network.spec.ipv6 = true;
        network
    };
    let mut cluster = fixture::cluster();
    cluster.id = crate::id::ClusterId::of(0xabcd_1234_5678_9abc);
    let store = settled_with([cluster.into(), network(0x0001_0005).into(), network(5).into()]);
    assert_eq!(subnets(&store, 5), ["10.0.0.0/24", "fd34:5678:9abc:5::/64"]);
    assert_eq!(subnets(&store, 0x0001_0005)[1], "fd34:5678:9abc:6::/64", "the next free one");
    assert_eq!(allocation(&store, 5).2[1], "fd34:5678:9abc:5::1");
}

#[test]
fn what_a_user_asks_for_is_kept_or_refused_by_name() {
    let asks = |change: &dyn Fn(&mut Network)| {
        let mut network = with_subnets(1, &["10.9.0.7/24"]);
        change(&mut network);
        let service = service_on(1, &[1]);
        settled_with([network.into(), fixture::task(1, &service, 1).into(), service.into()])
    };
    let store = asks(&|network| {
        network.spec.ipam[0].range = Some(subnet("10.9.0.64/26"));
        network.spec.ipam[0].reserved.insert("host".to_owned(), "10.9.0.1".parse().unwrap());
    });
    assert_eq!(
        (subnets(&store, 1), allocation(&store, 1).2),
        (vec!["10.9.0.0/24".to_owned()], vec!["10.9.0.2".to_owned()])
    );
    assert!(subnet("10.9.0.64/26").contains(task(&store, 1).networks[0].addresses[0].address));

    let outside = asks(&|network| network.spec.ipam[0].gateway = Some("10.8.0.1".parse().unwrap()));
    assert_eq!(
        reason(&outside, 1),
        "network network-1 has no subnet: address 10.8.0.1 is not in 10.9.0.0/24"
    );
    let outside = asks(&|network| network.spec.ipam[0].range = Some(subnet("10.9.0.0/16")));
    assert_eq!(
        reason(&outside, 1),
        "network network-1 has no subnet: range 10.9.0.0/16 is not in 10.9.0.0/24"
    );
    let twice = asks(&|network| network.spec.ipam.push(network.spec.ipam[0].clone()));
    assert_eq!(
        reason(&twice, 1),
        "network network-1 has no subnet: it may have one of each address family, and asks for a second one with 10.9.0.0/24"
    );
    let without = asks(&|network| {
        network.spec.ipam =
            vec![IpamConfig { gateway: Some("10.9.0.1".parse().unwrap()), ..IpamConfig::default() }];
    });
    assert_eq!(
        reason(&without, 1),
        "network network-1 has no subnet: a range, a gateway or reserved addresses need a subnet"
    );
    let foreign = asks(&|network| network.spec.ipam_driver.name = "dhcp".to_owned());
    assert_eq!(reason(&foreign, 1), "network network-1 has no subnet: there is no IPAM driver dhcp");
}

#[test]
fn an_overlap_waits_until_the_other_network_is_gone() {
    let service = service_on(1, &[2]);
    let store = settled_with([with_subnets(1, &["10.5.0.0/16"]).into()]);
    let mut wanted = Reconciled::default();
    wanted.create(with_subnets(2, &["10.5.3.0/24"]));
    wanted.create(service.clone());
    wanted.create(fixture::task(1, &service, 1));
    let mut store = store;
    fixture::apply(&mut store, wanted);
    let store = settled(store);
    assert_eq!(
        reason(&store, 1),
        "network network-2 has no subnet: 10.5.3.0/24 overlaps with 10.5.0.0/16 of network network-1"
    );
    let other = store.network(NetworkId::of(1)).unwrap().clone();
    let store = after(store, &other, |network| network.pending_delete = true);
    assert!(store.network(NetworkId::of(1)).is_none());
    assert_eq!(subnets(&store, 2), ["10.5.3.0/24"]);
    assert_eq!(task(&store, 1).status.state, TaskState::Pending);
    assert_eq!(task(&store, 1).status.error, "");
}

#[test]
fn vnis_are_the_users_or_far_from_the_last_ones() {
    let store = settled_with([with_vni(1, "300, 301").into(), fixture::network(2).into()]);
    assert_eq!(allocation(&store, 1).0, Some(300));
    assert_eq!(allocation(&store, 2).0, Some(4098));

    let last = (1 << 24) - 4096;
    let store = settled_with([fixture::network(last - 1).into(), fixture::network(2 * last - 1).into()]);
    assert_eq!(allocation(&store, last - 1).0, Some((1 << 24) - 1));
    assert_eq!(allocation(&store, 2 * last - 1).0, Some(4096), "the next after the last is the first");

    for (list, fault) in
        [("x", "\"x\" is not a number from 1 to 16777215"), ("300", "300 is that of another network")]
    {
        let service = service_on(1, &[2]);
        let (first, second) = (with_vni(1, "300"), with_vni(2, list));
        let store =
            settled_with([first.into(), second.into(), fixture::task(1, &service, 1).into(), service.into()]);
        assert_eq!(reason(&store, 1), format!("network network-2 has no VXLAN identifier: {fault}"));
    }
}

#[test]
fn a_network_of_the_node_has_nothing_to_give() {
    let mut host = fixture::network(1);
    host.spec.driver.name = "host".to_owned();
    let service = service_on(1, &[1]);
    let store = settled_with([host.into(), fixture::task(1, &service, 1).into(), service.into()]);
    assert!(store.network(NetworkId::of(1)).unwrap().allocation.is_none());
    assert!(self::service(&store, 1).endpoint.virtual_ips.is_empty());
    let task = task(&store, 1);
    assert_eq!(task.status.state, TaskState::Pending);
    assert_eq!((task.networks.len(), task.networks[0].addresses.len()), (1, 0));
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
    assert_eq!(task.status.message, "pending task scheduling");
    assert_eq!(task.status.since, NOW);
    let counts: Vec<_> = task.networks.iter().map(|it| (it.network, it.addresses.len())).collect();
    assert_eq!(counts, [(NetworkId::of(1), 2), (NetworkId::of(2), 1)]);
    assert_eq!(task.networks[0].aliases, ["alias"]);
    let endpoint = &self::service(&store, 1).endpoint;
    assert_eq!(task.endpoint.as_ref(), Some(endpoint));
    assert_eq!(endpoint.virtual_ips.len(), 2);
    assert_eq!(published(&store, 1), [8080]);
}

#[test]
fn round_robin_has_no_virtual_address() {
    let mut service = service_on(1, &[1]);
    service.spec.endpoint = Some(EndpointSpec { mode: ResolutionMode::DnsRr, ports: Vec::new() });
    let store = settled_with([fixture::network(1).into(), service.into()]);
    let endpoint = &self::service(&store, 1).endpoint;
    assert_eq!((endpoint.spec.mode, endpoint.virtual_ips.len()), (ResolutionMode::DnsRr, 0));
}

#[test]
fn a_virtual_address_stays_over_updates_and_moves_with_the_networks() {
    let service = service_on(1, &[1, 2]);
    let store = settled_with([fixture::network(1).into(), fixture::network(2).into(), service.into()]);
    let before = self::service(&store, 1).clone();
    let store = after(store, &before, |service| {
        let networks = vec![joining(2)];
        service.spec.task = Arc::new(TaskSpec { networks, ..TaskSpec::default() });
    });
    assert_eq!(self::service(&store, 1).endpoint.virtual_ips, before.endpoint.virtual_ips[1..]);
}

#[test]
fn without_an_ingress_network_nothing_is_published() {
    let service = publishing(1, &[80]);
    let store = settled_with([fixture::task(1, &service, 1).into(), service.into()]);
    assert_eq!(reason(&store, 1), "the cluster has no ingress network");
    assert!(published(&store, 1).is_empty());
}

#[test]
fn a_missing_network_is_named() {
    let service = service_on(1, &[5]);
    let store = settled_with([fixture::task(1, &service, 1).into(), service.into()]);
    assert_eq!(reason(&store, 1), format!("network {} not found", NetworkId::of(5)));
}

#[test]
fn an_open_port_is_chosen_once_and_kept_for_its_target() {
    let store =
        settled_with([ingress(1).into(), publishing(2767, &[0]).into(), publishing(5535, &[0]).into()]);
    assert_eq!(published(&store, 2767), [32767]);
    assert_eq!(published(&store, 5535), [30000], "the next after the last is the first");
    let before = service(&store, 2767).clone();
    let store = after(store, &before, |service| {
        let udp = PortConfig { protocol: Protocol::Udp, ..port(0, PublishMode::Ingress) };
        let ports = vec![udp, port(30001, PublishMode::Ingress), port(0, PublishMode::Ingress)];
        service.spec.endpoint = Some(EndpointSpec { ports, ..EndpointSpec::default() });
    });
    assert_eq!(published(&store, 2767), [32767, 30001, 32767], "a port is of one protocol");
}

#[test]
fn a_port_that_another_service_has_is_refused_until_it_is_free() {
    let second = publishing(2, &[80]);
    let store = settled_with([
        ingress(1).into(),
        publishing(1, &[80]).into(),
        fixture::task(1, &second, 1).into(),
        second.into(),
    ]);
    assert_eq!(reason(&store, 1), "port 80/tcp is published by service service-1");
    assert_eq!(service(&store, 2).endpoint, Endpoint::default());
    let first = service(&store, 1).clone();
    let store = after(store, &first, |service| service.spec.endpoint = None);
    assert_eq!((published(&store, 1), published(&store, 2)), (vec![], vec![80]));
    assert_eq!(task(&store, 1).status.state, TaskState::Pending);
}

#[test]
fn a_port_of_hosts_is_shared_but_not_with_the_mesh() {
    let on_hosts = |number| {
        let mut service = publishing(number, &[]);
        service.spec.endpoint =
            Some(EndpointSpec { ports: vec![port(80, PublishMode::Host)], ..EndpointSpec::default() });
        service
    };
    let mesh = publishing(3, &[80]);
    let task_of_mesh = fixture::task(1, &mesh, 1);
    let store = settled_with([
        ingress(1).into(),
        on_hosts(1).into(),
        on_hosts(2).into(),
        mesh.into(),
        task_of_mesh.into(),
    ]);
    assert_eq!((published(&store, 1), published(&store, 2)), (vec![80], vec![80]));
    assert_eq!(reason(&store, 1), "port 80/tcp is published by service service-1");
    assert!(service(&store, 1).endpoint.virtual_ips.is_empty(), "hosts' ports need no mesh");
}

#[test]
fn one_service_cannot_publish_a_port_twice() {
    let service = publishing(1, &[80, 80]);
    let store = settled_with([ingress(1).into(), fixture::task(1, &service, 1).into(), service.into()]);
    assert_eq!(reason(&store, 1), "port 80/tcp is published twice");
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

#[test]
fn a_network_is_removed_after_its_last_user() {
    let service = service_on(1, &[1]);
    let mut going = fixture::network(1);
    going.pending_delete = true;
    let node = fixture::node(1);
    let running = fixture::task_on(fixture::task(1, &service, 1), &node, TaskState::New);
    let mut store = settled_with([going.into(), service.into(), running.into(), node.into()]);
    assert_eq!(store.node(NodeId::of(1)).unwrap().attachments.len(), 1, "until then it works as ever");
    let mut wanted = Reconciled::default();
    wanted.remove(ServiceId::of(1));
    fixture::apply(&mut store, wanted);
    let store = settled(store);
    assert!(store.network(NetworkId::of(1)).is_some());
    let last = Arc::new(task(&store, 1).clone());
    let store = after(store, &last, |task| task.status.state = TaskState::Shutdown);
    assert!(store.network(NetworkId::of(1)).is_none());
    assert!(store.node(NodeId::of(1)).unwrap().attachments.is_empty());
}

#[test]
fn an_ingress_network_stays_while_a_port_is_published() {
    let mut going = ingress(1);
    going.pending_delete = true;
    let store = settled_with([going.into(), publishing(1, &[80]).into()]);
    let first = service(&store, 1).clone();
    assert!(store.network(NetworkId::of(1)).is_some());
    let store = after(store, &first, |service| service.spec.endpoint = None);
    assert!(store.network(NetworkId::of(1)).is_none());
}
