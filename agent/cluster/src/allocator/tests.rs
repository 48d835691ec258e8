//! What the allocator gives in plain situations, and what it says when it can't. Here is what the tests are written in.

mod networks;
mod services;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::fixture;
use crate::id::{NodeId, TaskId};
use crate::objects::endpoint::{Protocol, PublishMode, ResolutionMode};
use crate::objects::network::{IpamConfig, Subnet};
use crate::objects::node::ManagerStatus;
use crate::objects::task::NetworkAttachmentConfig;
use crate::objects::{Driver, EndpointSpec, Network, Node, PortConfig, TaskSpec};
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
    status.message.to_string()
}
