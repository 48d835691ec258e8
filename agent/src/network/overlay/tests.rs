//! What is planned of what a node is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ketch_cluster::assignment::{Item, OwnAddress, Peer, Traffic};
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::endpoint::ResolutionMode;
use ketch_cluster::objects::{Labels, Network};

use super::fixture::{FRONT, INGRESS, Told, VIRTUAL, data_address, task, underlay};
use super::plan::{Known, Locals, MeshPort, Plan, Problem, Underlay, known, mac_for, plan};
use super::sealing::Sealing;
use crate::network::firewall::Transport;
use crate::network::relay::Leads;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A client and a task here, a task on another node.
fn told() -> Told {
    let tasks = vec![task("client", 1, 10), task("web.1", 1, 11), task("web.2", 2, 12)];
    Told { nodes: vec![1, 2, 3], tasks, ..Told::default() }
}

fn here() -> Locals {
    let local = |last: u8| ((FRONT, IpAddr::from([10, 0, 1, last])), None);
    [local(10), local(11)].into()
}

fn planned(items: &[Item]) -> Plan {
    plan(&underlay(1), items, &Known::new(), &here())
}

fn change_network(items: &mut [Item], change: impl Fn(&mut Network, &mut OwnAddress)) {
    for item in items {
        if let Item::Network(told) = item {
            change(Arc::make_mut(&mut told.network), &mut told.own);
        }
    }
}

#[test]
fn entries_are_of_those_on_other_nodes() {
    let plan = planned(&told().items(1));
    let front = &plan.networks[&FRONT.to_string()];
    assert_eq!((front.vni, front.mtu, front.own.len()), (4097, 1450, 1));
    let others = ["10.0.1.12", "10.0.1.202", "10.0.1.203"].map(address);
    assert_eq!(front.neighbours.keys().copied().collect::<Vec<_>>(), others);
    for (other, node) in others.into_iter().zip([2, 2, 3]) {
        let mac = mac_for(&[other]).unwrap();
        assert_eq!((front.neighbours[&other], front.forwarding[&mac]), (mac, data_address(node).into()));
    }
    assert_eq!(plan.peers, [2, 3].map(|node| IpAddr::from(data_address(node))).into());
    assert_eq!(plan.problems, []);
    assert!(plan.mesh.is_empty());
}

#[test]
fn a_virtual_address_leads_to_those_who_serve() {
    let mut cluster = told();
    let backends = |cluster: &Told, locals: &Locals| {
        let plan = plan(&underlay(1), &cluster.items(1), &Known::new(), locals);
        plan.networks[&FRONT.to_string()].balanced[&IpAddr::from(VIRTUAL)].clone()
    };
    assert_eq!(backends(&cluster, &here()), ["10.0.1.11", "10.0.1.12"].map(address));
    assert_eq!(backends(&cluster, &Locals::new()), [address("10.0.1.12")], "the sandbox here has gone");
    cluster.tasks[2].traffic = Traffic::Draining;
    assert_eq!(backends(&cluster, &here()), [address("10.0.1.11")]);
    let front = &planned(&cluster.items(1)).networks[&FRONT.to_string()];
    assert_eq!(front.draining, BTreeSet::from([address("10.0.1.12")]));
    assert!(front.serving.contains(&address("10.0.1.11")));
    cluster.tasks[1].traffic = Traffic::None;
    assert!(backends(&cluster, &here()).is_empty());
}

#[test]
fn what_a_new_leader_has_not_heard_of_stays_as_it_was() {
    let mut cluster = told();
    cluster.tasks[2].traffic = Traffic::Draining;
    let before = known(&cluster.items(1), &Known::new());
    for task in &mut cluster.tasks {
        task.traffic = Traffic::Unknown;
    }
    let items = cluster.items(1);
    assert_eq!(known(&items, &before), before, "and so does the next time");
    let plan = plan(&underlay(1), &items, &before, &here());
    let front = &plan.networks[&FRONT.to_string()];
    assert_eq!(front.balanced[&IpAddr::from(VIRTUAL)], [address("10.0.1.11")]);
    assert_eq!(front.draining, BTreeSet::from([address("10.0.1.12")]));
    // Of a task that nobody knew, nothing is known.
    assert!(planned(&items).networks[&FRONT.to_string()].balanced[&IpAddr::from(VIRTUAL)].is_empty());
}

#[test]
fn names_are_services_tasks_and_aliases() {
    let mut items = told().items(1);
    let names = |items: &[Item], name: &str| -> Vec<IpAddr> {
        let told = &planned(items).names[&FRONT.to_string()];
        told.addresses.get(name).into_iter().flatten().copied().collect()
    };
    let tasks = ["10.0.1.11", "10.0.1.12"].map(address);
    assert_eq!(names(&items, "web"), [IpAddr::from(VIRTUAL)]);
    assert_eq!(names(&items, "app"), [IpAddr::from(VIRTUAL)], "an alias of the service");
    assert_eq!(names(&items, "tasks.web"), tasks);
    assert_eq!(names(&items, "tasks.app"), tasks);
    assert_eq!(names(&items, "web.2"), [tasks[1]]);
    assert_eq!(names(&items, "client"), [address("10.0.1.10")]);
    let reverse = planned(&items).names[&FRONT.to_string()].names.clone();
    assert_eq!(reverse[&IpAddr::from(VIRTUAL)], "web");
    assert_eq!(reverse[&tasks[0]], "web.1");
    for item in &mut items {
        if let Item::Service(service) = item {
            (service.mode, service.virtual_ips) = (ResolutionMode::DnsRr, Vec::new());
        }
    }
    assert_eq!(names(&items, "web"), tasks);
    assert_eq!(names(&items, "app"), tasks);
}

/// The tasks are in the mesh's network too, and the node's own by the bridge to the host.
fn mesh() -> (Told, Locals) {
    let mut cluster = Told { ingress: true, ..told() };
    for task in &mut cluster.tasks[1..] {
        let [_, _, _, last] = task.addresses[0].1;
        task.addresses.push((INGRESS, [10, 0, 0, last]));
    }
    let mut locals = here();
    let _none = locals.insert((INGRESS, address("10.0.0.11")), Some([172, 18, 0, 3].into()));
    (cluster, locals)
}

#[test]
fn the_mesh_leads_to_tasks_here_by_the_bridge_and_to_others_by_the_door() {
    let (mut cluster, locals) = mesh();
    let of_node_one = |cluster: &Told| plan(&underlay(1), &cluster.items(1), &Known::new(), &locals);
    let by_bridge = SocketAddr::from(([172, 18, 0, 3], 80));
    let plan_of_one = of_node_one(&cluster);
    let key = (Transport::Tcp, 8080);
    assert_eq!(
        plan_of_one.mesh[&key],
        MeshPort { here: vec![by_bridge], elsewhere: 1, ..MeshPort::default() }
    );
    assert_eq!(plan_of_one.mesh.len(), 2, "UDP has its own");
    let ingress = |plan: &Plan| plan.networks[&INGRESS.to_string()].ports[&key].clone();
    assert_eq!(ingress(&plan_of_one), [SocketAddr::from(([10, 0, 0, 12], 80))]);
    assert!(!plan_of_one.names.contains_key(&INGRESS.to_string()));
    cluster.labels = Labels::from([("ketch.mesh.prefer-local".to_owned(), "true".to_owned())]);
    assert_eq!(of_node_one(&cluster).mesh[&key], MeshPort { here: vec![by_bridge], ..MeshPort::default() });
    cluster.tasks[2].traffic = Traffic::None;
    let alone = of_node_one(&cluster);
    assert_eq!(ingress(&alone), [SocketAddr::from(([10, 0, 0, 11], 80))], "for what the daemon carries");
    cluster.tasks[1].traffic = Traffic::Draining;
    let draining = BTreeSet::from([IpAddr::from([172, 18, 0, 3])]);
    assert_eq!(of_node_one(&cluster).mesh[&key], MeshPort { draining, ..MeshPort::default() });
    cluster.tasks[1].traffic = Traffic::None;
    assert_eq!(of_node_one(&cluster).mesh[&key], MeshPort::default());
    let elsewhere = plan(&underlay(3), &mesh().0.items(3), &Known::new(), &Locals::new());
    assert_eq!(elsewhere.mesh[&key], MeshPort { elsewhere: 2, ..MeshPort::default() });
}

#[test]
fn a_port_whose_tasks_are_told_who_connects_leads_to_their_own_addresses() {
    let (mut cluster, locals) = mesh();
    cluster.labels = Labels::from([("ketch.publish.proxy".to_owned(), "80".to_owned())]);
    let (tcp, udp) = ((Transport::Tcp, 8080), (Transport::Udp, 8080));
    let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
    let planned = |cluster: &Told| plan(&underlay(1), &cluster.items(1), &Known::new(), &locals);
    let leads = |cluster: &Told| planned(cluster).mesh[&tcp].relayed.clone().unwrap();
    let both = Leads { backends: vec![at(11), at(12)], stay: [at(11), at(12)].into() };
    assert_eq!(leads(&cluster), both);
    assert_eq!(planned(&cluster).mesh[&udp].relayed, None);
    let ports = planned(&cluster).networks[&INGRESS.to_string()].ports.clone();
    assert_eq!(ports.keys().copied().collect::<Vec<_>>(), [udp], "nobody comes by the door");
    let _none = cluster.labels.insert("ketch.mesh.prefer-local".to_owned(), "true".to_owned());
    assert_eq!(leads(&cluster), Leads { backends: vec![at(11)], ..both.clone() }, "who is there stays");
    cluster.tasks[1].traffic = Traffic::Draining;
    assert_eq!(leads(&cluster), Leads { backends: vec![at(12)], ..both });
    cluster.tasks[1].traffic = Traffic::None;
    assert_eq!(leads(&cluster), Leads { backends: vec![at(12)], stay: [at(12)].into() });
    cluster.labels = Labels::from([("ketch.publish.proxy".to_owned(), "8080".to_owned())]);
    assert_eq!(planned(&cluster).mesh[&tcp].relayed, None, "a port of the task is meant");
}

#[test]
fn what_can_not_be_served_is_said() {
    let items = Told { keys: vec![1, 2], ..told() }.items(1);
    let without = Underlay { encrypts: false, ..underlay(1) };
    let plan_of_encrypted = plan(&without, &items, &Known::new(), &here());
    assert_eq!(plan_of_encrypted.problems, [Problem::Encrypted("front".to_owned())]);
    assert!(plan_of_encrypted.networks.is_empty() && plan_of_encrypted.names.is_empty());
    assert!(plan_of_encrypted.refused.contains_key(&FRONT.to_string()));

    let mut items = told().items(1);
    change_network(&mut items, |network, _| network.allocation = None);
    assert_eq!(planned(&items).problems, [Problem::Unallocated("front".to_owned())]);

    let mut items = told().items(1);
    change_network(&mut items, |_, own| *own = OwnAddress::Missing);
    let plan_without_own = planned(&items);
    assert_eq!(plan_without_own.problems, [Problem::NoOwnAddress("front".to_owned())]);
    let front = &plan_without_own.networks[&FRONT.to_string()];
    assert!(
        front.balanced.is_empty() && !front.neighbours.is_empty(),
        "tasks are reached by their addresses"
    );

    let mut items = told().items(1);
    let other = NodeId::of(9);
    let data_address = address("fd00::9");
    items.push(Item::Peer(Peer { node: other, data_address, attachments: Vec::new() }));
    let plan_of_two_families = planned(&items);
    assert_eq!(plan_of_two_families.problems, [Problem::OtherFamily(other, data_address)]);
    assert!(!plan_of_two_families.peers.contains(&data_address));
}

#[test]
fn an_encrypted_network_is_sealed_between_the_nodes_that_serve_it() {
    let encrypted = Told { keys: vec![1, 2], ..told() };
    let with = Underlay { encrypts: true, ..underlay(1) };
    let planned = |items: &[Item]| plan(&with, items, &Known::new(), &here());
    let sealing = planned(&encrypted.items(1)).sealing;
    assert_eq!(sealing.networks, BTreeSet::from([4097]));
    assert_eq!(sealing.peers, [2, 3].map(|node| IpAddr::from(data_address(node))).into());
    assert_eq!(sealing.keys.iter().map(|key| key.generation).collect::<Vec<_>>(), [1, 2]);
    let front = &planned(&encrypted.items(1)).networks[&FRONT.to_string()];
    assert_eq!((front.encrypted, front.mtu), (true, 1416));
    assert_eq!(planned(&told().items(1)).sealing, Sealing::default());
}

#[test]
fn the_same_is_planned_whatever_the_order_of_items() {
    let mut items = mesh().0.items(1);
    let before = planned(&items);
    items.reverse();
    assert_eq!(planned(&items), before);
}

#[test]
fn the_mtu_is_what_an_outer_header_leaves() {
    let mut items = told().items(1);
    let mtu = |items: &[Item], local: &str| {
        let mut underlay = underlay(1);
        underlay.address = address(local);
        let plan = plan(&underlay, items, &Known::new(), &here());
        plan.networks[&FRONT.to_string()].mtu
    };
    assert_eq!((mtu(&items, "192.168.77.1"), mtu(&items, "fd00::1")), (1450, 1430));
    for (text, wanted) in [("9000", 9000), ("12", 1450), ("many", 1450)] {
        change_network(&mut items, |network, _| {
            let options = &mut network.spec.driver.options;
            let _before = options.insert("com.docker.network.driver.mtu".to_owned(), text.to_owned());
        });
        assert_eq!(mtu(&items, "192.168.77.1"), wanted, "{text}");
    }
}

#[test]
fn ethernet_addresses_follow_from_those_of_ip() {
    let macs = BTreeMap::from([("10.0.1.11", [2, 0x42, 10, 0, 1, 11]), ("fd00::1:2", [2, 0x42, 0, 1, 0, 2])]);
    for (text, mac) in macs {
        assert_eq!(mac_for(&[address(text)]), Some(mac));
    }
    assert_eq!(mac_for(&[address("fd00::1"), address("10.0.1.11")]), Some([2, 0x42, 10, 0, 1, 11]));
    assert_eq!(mac_for(&[]), None);
}
