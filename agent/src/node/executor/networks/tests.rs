//! Which networks a container is in by its task's attachments, and which ports it was given.

use std::sync::Arc;

use ketch_cluster::assignment::{NodeNetwork, OwnAddress};
use ketch_cluster::objects::endpoint::{Protocol, PublishMode};
use ketch_cluster::objects::{ContainerSpec, Driver, Endpoint, Labels, Meta, NetworkSpec};
use ketch_engine_api::network::PortBinding;

use super::super::request::tests::task;
use super::*;

fn network(id: u128, name: &str, driver: &str) -> Item {
    let driver = Driver { name: driver.to_owned(), ..Driver::default() };
    let spec = NetworkSpec { name: name.to_owned(), driver, ..NetworkSpec::default() };
    let id = NetworkId::of(id);
    let network = Network { id, meta: Meta::default(), spec, allocation: None, pending_delete: false };
    Item::Network(NodeNetwork { network: Arc::new(network), own: OwnAddress::NotNeeded })
}

fn attachment(id: u128, addresses: &[&str]) -> NetworkAttachment {
    NetworkAttachment {
        network: NetworkId::of(id),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        aliases: vec!["alias".to_owned()],
        driver_options: Labels::new(),
    }
}

fn in_networks(attachments: Vec<NetworkAttachment>) -> Task {
    Task { networks: attachments, ..task(ContainerSpec::default()) }
}

#[test]
fn the_clusters_networks_go_by_id_and_have_their_addresses() {
    let known = Known::of(&[network(1, "front", "overlay"), network(2, "lan", "macvlan")]);
    let task = in_networks(vec![attachment(1, &["10.0.1.5/24", "fd00::5/64"]), attachment(2, &[])]);
    let id = NetworkId::of(1).to_string();
    let networking = known.networking(&task).unwrap();
    assert_eq!(networking.mode, id);
    assert_eq!(networking.needed, [(id.clone(), "front".to_owned()), ("lan".to_owned(), "lan".to_owned())]);
    let front = &networking.endpoints[&id];
    let ipam = front.ipam_config.as_ref().unwrap();
    assert_eq!((ipam.ipv4_address.as_str(), ipam.ipv6_address.as_str()), ("10.0.1.5", "fd00::5"));
    assert_eq!(front.aliases, None, "the cluster's names are not the node's");
    let lan = &networking.endpoints["lan"];
    assert_eq!((&lan.ipam_config, &lan.aliases), (&None, &Some(vec!["alias".to_owned()])));
}

#[test]
fn the_nodes_own_networks_go_by_name() {
    let known = Known::of(&[network(1, "host", "host")]);
    let networking = known.networking(&in_networks(vec![attachment(1, &[])])).unwrap();
    assert_eq!(networking.mode, "host");
    assert_eq!(networking.endpoints["host"], EndpointSettings::default());
    assert_eq!(known.networking(&in_networks(Vec::new())).unwrap().mode, "default");
}

#[test]
fn ports_are_told_as_they_were_given() {
    let port = |target_port, published_port, publish_mode| PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port,
        published_port,
        publish_mode,
    };
    let ports = vec![
        port(80, 0, PublishMode::Host),
        port(80, 8080, PublishMode::Host),
        port(81, 8081, PublishMode::Ingress),
        port(82, 0, PublishMode::Host),
    ];
    let mut task = task(ContainerSpec::default());
    task.endpoint = Some(Endpoint { ports, ..Endpoint::default() });
    let binding = |number: &str| PortBinding { host_ip: "0.0.0.0".to_owned(), host_port: number.to_owned() };
    let shown = PortMap::from([
        ("80/tcp".to_owned(), Some(vec![binding("8080"), binding("49153"), binding("8080")])),
        ("82/tcp".to_owned(), None),
    ]);
    let numbers: Vec<_> = given(&shown, &task).iter().map(|port| port.published_port).collect();
    assert_eq!(numbers, [49153, 8080, 0]);
}
