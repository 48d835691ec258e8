//! `network`, one case at a time.

use std::sync::Arc;

use super::super::tests::{
    attachment, cluster, commit, created, endpoint, ingress, port, spec, with_task, with_view,
};
use super::*;
use crate::fixture::{self, at};
use crate::objects::NetworkAttachment;
use crate::objects::endpoint::PublishMode;
use crate::objects::network::NetworkAllocation;
use crate::objects::task::TaskRuntime;
use crate::objects::{Driver, ServiceSpec};
use crate::store::Store;

fn named(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() }
}

fn create(store: &Store, spec: NetworkSpec) -> Result<NetworkId, ControlError> {
    with_view(store, |view| create_network(view, spec, at(1), &mut || 50)).map(|(id, _)| id)
}

fn remove(store: &Store, id: NetworkId) -> Result<Vec<StoreAction>, ControlError> {
    with_view(store, |view| remove_network(view, id, at(9)))
}

fn driver(name: &str) -> Driver {
    Driver { name: name.to_owned(), ..Driver::default() }
}

fn pool(subnet: &str) -> IpamConfig {
    IpamConfig { subnet: Some(subnet.parse().unwrap()), ..IpamConfig::default() }
}

#[test]
fn names_are_good_and_free() {
    let store = fixture::store(cluster());
    assert_eq!(create(&store, named("net")), Ok(NetworkId::of(50)));
    for name in PREDEFINED_NAMES {
        assert_eq!(create(&store, named(name)), Err(texts::network_predefined(name)));
    }
    assert_eq!(create(&store, named("")), Err(texts::name_missing()));
    assert_eq!(create(&store, named("network-2")), Err(texts::network_exists("network-2")));
}

#[test]
fn the_mesh_has_one_network() {
    let store = fixture::store(cluster());
    let mesh = || NetworkSpec { ingress: true, ..named("mesh") };
    assert_eq!(create(&store, mesh()), Err(texts::ingress_exists(ingress(1).id)));
    let none = Store::default();
    assert!(create(&none, mesh()).is_ok());
    assert_eq!(create(&none, NetworkSpec { attachable: true, ..mesh() }), Err(texts::ingress_attachable()));
    let bridged = NetworkSpec { driver: driver("bridge"), ..mesh() };
    assert_eq!(create(&none, bridged), Err(texts::ingress_driver()));
}

#[test]
fn drivers_and_labels_are_those_that_are_known() {
    let store = Store::default();
    for good in ["", "overlay", "macvlan"] {
        assert!(create(&store, NetworkSpec { driver: driver(good), ..named("net") }).is_ok(), "{good}");
    }
    let weave = NetworkSpec { driver: driver("weave"), ..named("net") };
    assert_eq!(create(&store, weave), Err(texts::driver_not_found("weave")));
    let dhcp = NetworkSpec { ipam_driver: driver("dhcp"), ..named("net") };
    assert_eq!(create(&store, dhcp), Err(texts::ipam_driver_not_found("dhcp")));
    assert!(create(&store, NetworkSpec { ipam_driver: driver("Default"), ..named("net") }).is_ok());
    let mut predefined = named("net");
    predefined.labels.insert(PREDEFINED_LABEL.to_owned(), "true".to_owned());
    assert_eq!(create(&store, predefined), Err(texts::predefined_label()));
}

#[test]
fn pools_hold_what_is_said_of_them() {
    let store = Store::default();
    let with = |ipam: Vec<IpamConfig>| create(&store, NetworkSpec { ipam, ..named("net") });
    let address = |text: &str| Some(text.parse().unwrap());
    let range = |text: &str| Some(text.parse::<Subnet>().unwrap());
    let good =
        IpamConfig { range: range("10.1.0.128/25"), gateway: address("10.1.0.1"), ..pool("10.1.0.0/24") };
    assert!(with(vec![good, pool("fd00::/64")]).is_ok());
    assert_eq!(with(vec![IpamConfig::default()]), Err(texts::subnet_missing()));
    assert_eq!(with(vec![pool("10.1.0.0/31")]), Err(texts::subnet_too_small(&"10.1.0.0/31")));
    for outside in ["10.2.0.0/25", "10.1.0.0/16"] {
        let ranged = IpamConfig { range: range(outside), ..pool("10.1.0.0/24") };
        assert_eq!(with(vec![ranged]), Err(texts::subnet_without_range(&"10.1.0.0/24", &outside)));
    }
    let gateway = IpamConfig { gateway: address("10.2.0.1"), ..pool("10.1.0.0/24") };
    assert_eq!(with(vec![gateway]), Err(texts::subnet_without_gateway(&"10.1.0.0/24", &"10.2.0.1")));
    let mut reserving = pool("10.1.0.0/24");
    reserving.reserved.insert("router".to_owned(), "10.2.0.9".parse().unwrap());
    assert_eq!(with(vec![reserving]), Err(texts::subnet_without_reserved(&"10.1.0.0/24", &"10.2.0.9")));
    assert_eq!(with(vec![pool("10.1.0.0/24"), pool("10.2.0.0/24")]), Err(texts::subnets_of_one_family()));
}

#[test]
fn subnets_of_two_networks_do_not_overlap() {
    let mut asked = fixture::network(1);
    asked.spec.ipam.push(pool("10.1.0.0/16"));
    let mut given = fixture::network(2);
    given.allocation = Some(NetworkAllocation { vni: None, pools: vec![pool("10.2.0.0/24")] });
    let store = fixture::store([asked.into(), given.into()]);
    let with = |subnet: &str| create(&store, NetworkSpec { ipam: vec![pool(subnet)], ..named("net") });
    assert_eq!(with("10.1.5.0/24"), Err(texts::subnet_overlaps()));
    assert_eq!(with("10.0.0.0/8"), Err(texts::subnet_overlaps()));
    assert_eq!(with("10.2.0.0/24"), Err(texts::subnet_overlaps()));
    assert!(with("10.3.0.0/24").is_ok());
}

#[test]
fn a_network_stays_while_services_use_it() {
    let mut store = fixture::store(cluster());
    let network = fixture::network(2);
    assert_eq!(remove(&store, network.id), Ok(vec![StoreAction::Remove(network.id.into())]));
    let service =
        created(&mut store, with_task(spec("web"), |task| task.networks.push(attachment(&network))));
    assert_eq!(remove(&store, network.id), Err(texts::network_in_use_by_service(network.id, service)));
    let missing = NetworkId::of(99);
    assert_eq!(remove(&store, missing), Err(texts::gone(&missing.into())));
}

#[test]
fn the_meshs_network_stays_while_services_publish() {
    let mut store = fixture::store(cluster());
    let mesh = ingress(1).id;
    let host = ServiceSpec { endpoint: endpoint(&[port(80, PublishMode::Host)]), ..spec("host") };
    created(&mut store, host);
    assert!(remove(&store, mesh).is_ok());
    let published = ServiceSpec { endpoint: endpoint(&[port(81, PublishMode::Ingress)]), ..spec("web") };
    let service = created(&mut store, published);
    assert_eq!(remove(&store, mesh), Err(texts::ingress_in_use(service)));
}

#[test]
fn a_nodes_own_network_is_not_removed() {
    let mut host = fixture::network(1);
    host.spec.labels.insert(PREDEFINED_LABEL.to_owned(), "true".to_owned());
    let store = fixture::store([host.clone().into()]);
    assert_eq!(remove(&store, host.id), Err(texts::predefined_not_removable(host.id, "network-1")));
}

#[test]
fn tasks_that_still_end_keep_a_network_a_while() {
    let network = fixture::network(2);
    let service = fixture::replicated(1, 1);
    let mut task = fixture::task_on(fixture::task(5, &service, 1), &fixture::node(9), TaskState::Running);
    task.desired_state = TaskState::Remove;
    task.networks.push(NetworkAttachment {
        network: network.id,
        addresses: Vec::new(),
        aliases: Vec::new(),
        driver_options: Default::default(),
    });
    let mut store = fixture::store([network.clone().into(), task.into()]);
    let actions = remove(&store, network.id).unwrap();
    commit(&mut store, &actions);
    assert!(store.network(network.id).unwrap().pending_delete);
    assert_eq!(remove(&store, network.id), Err(texts::gone(&network.id.into())), "it is removed once");
}

#[test]
fn a_plain_container_holds_its_network() {
    let network = fixture::network(2);
    let mut task = fixture::task_on(
        fixture::task(5, &fixture::replicated(1, 1), 0),
        &fixture::node(9),
        TaskState::Running,
    );
    task.service = None;
    let spec = Arc::make_mut(&mut task.spec);
    spec.runtime = TaskRuntime::Attachment { container: "c".to_owned() };
    spec.networks.push(attachment(&network));
    let store = fixture::store([network.clone().into(), task.clone().into()]);
    assert_eq!(remove(&store, network.id), Err(texts::network_in_use_by_task(network.id, task.id)));
    let ended = fixture::task_on(task, &fixture::node(9), TaskState::Failed);
    let store = fixture::store([network.clone().into(), ended.into()]);
    assert_eq!(remove(&store, network.id), Ok(vec![StoreAction::Remove(network.id.into())]));
}
