//! Published ports whose tasks are told who connects, with real packets: three nodes, two with a task, a client on no node.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use ketch_cluster::assignment::Traffic;
use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Labels;

use super::overlay::{Node, both_tasks_of_the_mesh, within};
use super::{Joined, alone, listen, nft};
use crate::network::ipam::Prefix;
use crate::network::link::Links;
use crate::network::overlay::fixture::{INGRESS, Told, data_address, task, underlay};
use crate::network::record::OfService;

const CLIENT: [u8; 4] = [192, 168, 77, 100];
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers each connection with its name and what the header says of the client, or with what came instead of one.
fn serve(joined: &Joined, name: &'static str) {
    let listener = listen(joined, 80);
    let answer = move |mut connection: TcpStream| -> std::io::Result<()> {
        let mut bytes = [0; 64];
        let length = connection.read(&mut bytes)?;
        let said = match (bytes[13], length) {
            (0x11, 28) => IpAddr::from([bytes[16], bytes[17], bytes[18], bytes[19]]).to_string(),
            (0x21, 52) => IpAddr::from(<[u8; 16]>::try_from(&bytes[16..32]).unwrap()).to_string(),
            _ => "no header".to_owned(),
        };
        connection.write_all(format!("{name} {said}").as_bytes())?;
        // Until the client has ended.
        connection.read(&mut bytes).map(drop)
    };
    drop(
        std::thread::Builder::new()
            .spawn(move || {
                for connection in listener.incoming().flatten() {
                    drop(std::thread::Builder::new().spawn(move || answer(connection)).unwrap());
                }
            })
            .unwrap(),
    );
}

fn connected(to: SocketAddr) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// What the task says that a new connection comes to.
fn word(to: SocketAddr, first: &[u8]) -> String {
    let asked = || {
        let mut connection = connected(to)?;
        connection.write_all(first)?;
        let mut bytes = [0; 64];
        let length = connection.read(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    asked().unwrap_or_else(|error| error.kind().to_string())
}

fn port_of(node: u8) -> SocketAddr {
    SocketAddr::from((data_address(node), 8080))
}

/// So many words, counted.
fn words(to: SocketAddr, times: usize) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    (0..times).for_each(|_| *found.entry(word(to, b"")).or_default() += 1);
    found
}

fn apply(nodes: &[Node], told: &Told) {
    for node in nodes {
        let problems =
            node.on(|networks| networks.apply(&underlay(node.number), &told.items(node.number)).unwrap());
        assert_eq!(problems, []);
    }
}

fn join(node: &Node, name: &str, last: u8) -> Joined {
    join_of(node, name, (last, None))
}

/// Of a service's task, whose labels are asked for.
fn join_of(node: &Node, name: &str, (last, service): (u8, Option<OfService>)) -> Joined {
    let mut wanted = node.world.wanted(name, "ingress", &[]);
    for (network, third) in [("ingress", 0), ("front", 1)] {
        let address = super::overlay::asked(&format!("10.0.{third}.{last}"));
        let _none = wanted.endpoints.insert(network.to_owned(), address);
    }
    wanted.service = service;
    node.on(|networks| networks.join(&wanted).unwrap())
}

/// The rules of a machine.
fn rules(space: &Path) -> String {
    within(space, || nft(&["list", "ruleset"]))
}

#[test]
fn tasks_are_told_who_connects_to_any_node() {
    alone(|world| {
        let nodes = [1, 2, 3].map(|number| Node::new(world, number));
        let mut told =
            Told { nodes: vec![1, 2, 3], tasks: both_tasks_of_the_mesh(), ingress: true, ..Told::default() };
        told.labels = Labels::from([("ketch.publish.proxy".to_owned(), "80/tcp".to_owned())]);
        apply(&nodes, &told);
        serve(&join(&nodes[0], "web.1", 11), "web.1");
        serve(&join(&nodes[1], "web.2", 12), "web.2");
        apply(&nodes, &told);
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        lan.address(bridge, Prefix::new(CLIENT.into(), 24).unwrap()).unwrap();

        let both = |client: &str| {
            BTreeMap::from([(format!("web.1 {client}"), 2_usize), (format!("web.2 {client}"), 2)])
        };
        for node in 1..=3 {
            assert_eq!(words(port_of(node), 4), both("192.168.77.100"), "by node{node}");
        }
        let by_ipv6 = within(&nodes[2].space, || words("[::1]:8080".parse().unwrap(), 4));
        assert_eq!(by_ipv6, both("::1"), "from the node itself");
        for node in &nodes {
            let rules = rules(&node.space);
            assert!(!rules.contains("tcp-8080"), "no rule leads there: {rules}");
            assert!(rules.contains("udp-8080"), "datagrams are as ever: {rules}");
        }

        // Whoever leaves gets nothing new, and keeps what he has until he is gone.
        let mut old = connected(port_of(3)).unwrap();
        let mut bytes = [0; 64];
        let length = old.read(&mut bytes).unwrap();
        let (its, other) = if bytes[..length].starts_with(b"web.1") { (0, "web.2") } else { (1, "web.1") };
        told.tasks[its].traffic = Traffic::Draining;
        apply(&nodes, &told);
        for node in 1..=3 {
            assert_eq!(words(port_of(node), 4), [(format!("{other} 192.168.77.100"), 4)].into());
        }
        old.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(old.read(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it is open");
        old.set_read_timeout(Some(PATIENCE)).unwrap();
        told.tasks[its].traffic = Traffic::None;
        apply(&nodes, &told);
        assert_eq!(
            old.read(&mut bytes).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset,
            "he has gone"
        );

        // A node's own first, and then as every other port.
        told.tasks[its].traffic = Traffic::Serving;
        let _none = told.labels.insert("ketch.mesh.prefer-local".to_owned(), "true".to_owned());
        apply(&nodes, &told);
        assert_eq!(words(port_of(1), 4), [("web.1 192.168.77.100".to_owned(), 4)].into());
        told.labels.clear();
        apply(&nodes, &told);
        assert!(rules(&nodes[0].space).contains("tcp-8080"));
        for node in 1..=3 {
            assert!(word(port_of(node), b"x").ends_with(" no header"), "by node{node}");
        }
    });
}

#[test]
fn narrowed_ports_are_so_by_the_clients_own_address() {
    alone(|world| {
        let nodes = [Node::new(world, 1)];
        let mut told =
            Told { nodes: vec![1], tasks: both_tasks_of_the_mesh(), ingress: true, ..Told::default() };
        told.tasks.truncate(1);
        let labels = [("ketch.publish.proxy", "80"), ("ketch.publish.from", "192.168.77.100")];
        told.labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
        apply(&nodes, &told);
        serve(&join(&nodes[0], "web.1", 11), "web.1");
        apply(&nodes, &told);
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        lan.address(bridge, Prefix::new([192, 168, 77, 101].into(), 24).unwrap()).unwrap();
        assert!(connected(port_of(1)).is_err(), "a stranger");
        lan.remove_address(bridge, Prefix::new([192, 168, 77, 101].into(), 24).unwrap()).unwrap();
        lan.address(bridge, Prefix::new(CLIENT.into(), 24).unwrap()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while word(port_of(1), b"") != "web.1 192.168.77.100" {
            assert!(Instant::now() < deadline, "one who may");
        }
    });
}

/// What a neighbour gets for a header of his own making, by an address of a task.
fn forged(neighbour: &Joined, to: [u8; 4]) -> std::io::Result<String> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend([203, 0, 113, 9, 10, 0, 0, 1, 0, 80, 0, 80]);
    within(neighbour.namespace.as_deref().unwrap(), || {
        let to = SocketAddr::from((to, 80));
        let mut connection = TcpStream::connect_timeout(&to, Duration::from_millis(700))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(&header)?;
        let mut bytes = [0; 64];
        let length = connection.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    })
}

#[test]
fn a_neighbour_forges_no_header_where_ports_are_closed_to_him() {
    alone(|world| {
        let nodes = [1, 2].map(|number| Node::new(world, number));
        let mut told =
            Told { nodes: vec![1, 2], tasks: both_tasks_of_the_mesh(), ingress: true, ..Told::default() };
        let mut other = task("other.1", 1, 30);
        other.addresses.push((INGRESS, [10, 0, 0, 30]));
        told.tasks.push(other);
        let labels = [("ketch.publish.proxy", "80/tcp"), ("ketch.allow", "")];
        told.labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
        apply(&nodes, &told);
        let of = |number| Some(OfService { task: TaskId::of(number).to_string(), labels: Labels::new() });
        serve(&join_of(&nodes[0], "web.1", (11, of(1))), "web.1");
        serve(&join_of(&nodes[1], "web.2", (12, of(2))), "web.2");
        let neighbour = join_of(&nodes[0], "other.1", (30, of(3)));
        apply(&nodes, &told);
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        lan.address(bridge, Prefix::new(CLIENT.into(), 24).unwrap()).unwrap();

        let both = BTreeMap::from(["web.1", "web.2"].map(|name| (format!("{name} 192.168.77.100"), 2_usize)));
        for node in [1, 2] {
            assert_eq!(words(port_of(node), 4), both, "the mesh is let in, by node{node}");
        }
        let places = [[10, 0, 0, 11], [10, 0, 0, 12], [10, 0, 1, 11], [10, 0, 1, 12]];
        for to in places {
            assert!(forged(&neighbour, to).is_err(), "{to:?}");
        }
        // Without it nobody can tell his from the mesh's.
        let _closed = told.labels.remove("ketch.allow");
        apply(&nodes, &told);
        for to in places {
            assert!(forged(&neighbour, to).unwrap().ends_with(" 203.0.113.9"), "{to:?}");
        }
    });
}
