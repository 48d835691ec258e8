//! Services: virtual addresses and published ports.

use super::*;

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
fn nobody_is_given_a_port_of_the_clusters_own() {
    let manager = ManagerStatus { raft_id: 1, address: "10.0.0.1:32767".to_owned() };
    let manager = Node { manager: Some(manager), ..fixture::node(1) };
    let store = settled_with([ingress(1).into(), manager.into(), publishing(2767, &[0]).into()]);
    assert_eq!(published(&store, 2767), [30000]);
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
