//! Networks: subnets, identifiers, and when they go.

use super::*;

fn with_vni(number: u128, list: &str) -> Network {
    let mut network = fixture::network(number);
    let options =
        BTreeMap::from([("com.docker.network.driver.overlay.vxlanid_list".to_owned(), list.to_owned())]);
    network.spec.driver = Driver { name: "overlay".to_owned(), options };
    network
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
    assert_eq!(&*task(&store, 1).status.error, "");
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
    let store = settled_with([ingress(1).into(), publishing(1, &[80]).into()]);
    let going = store.network(NetworkId::of(1)).unwrap().clone();
    let store = after(store, &going, |network| network.pending_delete = true);
    let first = service(&store, 1).clone();
    assert!(store.network(NetworkId::of(1)).is_some());
    let store = after(store, &first, |service| service.spec.endpoint = None);
    assert!(store.network(NetworkId::of(1)).is_none());
}

#[test]
fn an_ingress_network_that_goes_is_the_ingress_network_no_more() {
    let mut going = ingress(1);
    going.pending_delete = true;
    let ending = fixture::task_on(
        Task {
            networks: vec![attached(1, "10.9.0.9/24")],
            ..fixture::task(9, &fixture::replicated(9, 1), 1)
        },
        &fixture::node(2),
        TaskState::Running,
    );
    let service = publishing(1, &[80]);
    let store = settled_with([
        going.into(),
        ingress(2).into(),
        service.into(),
        fixture::node(1).into(),
        ending.clone().into(),
    ]);
    let virtual_ips = &self::service(&store, 1).endpoint.virtual_ips;
    assert_eq!(virtual_ips.iter().map(|it| it.network).collect::<Vec<_>>(), [NetworkId::of(2)]);
    let attachments = &store.node(NodeId::of(1)).unwrap().attachments;
    assert_eq!(attachments.iter().map(|it| it.network).collect::<Vec<_>>(), [NetworkId::of(2)]);
    let last = Arc::new(task(&store, 9).clone());
    let store = after(store, &last, |task| task.status.state = TaskState::Shutdown);
    assert!(store.network(NetworkId::of(1)).is_none(), "it goes though a service publishes");
}

fn attached(network: u128, address: &str) -> NetworkAttachment {
    NetworkAttachment {
        network: NetworkId::of(network),
        addresses: vec![subnet(address)],
        aliases: Vec::new(),
        driver_options: BTreeMap::new(),
    }
}
