//! Ports that are closed to others, and published ones that are not for everybody, with real packets.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ketch_cluster::assignment::{Item, ServiceEntry};
use ketch_cluster::id::{ServiceId, TaskId};
use ketch_cluster::objects::Labels;
use ketch_cluster::objects::endpoint::ResolutionMode;

use super::overlay::{Node, asked, both_tasks_of_the_mesh, within};
use super::{Joined, World, alone, nft};
use crate::network::ipam::Prefix;
use crate::network::link::Links;
use crate::network::overlay::fixture::{Running, Told, data_address, task, underlay};
use crate::network::record::OfService;

const SHOP: ServiceId = ServiceId::of(8);
/// Longer than a packet takes, as what is closed says nothing.
const SILENCE: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(20);

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

fn apply(node: &Node, told: &Told) {
    let mut items = told.items(node.number);
    items.push(Item::Service(ServiceEntry {
        service: SHOP,
        name: "shop".to_owned(),
        labels: Labels::new(),
        mode: ResolutionMode::DnsRr,
        virtual_ips: Vec::new(),
        ports: Vec::new(),
        allowed: None,
    }));
    let problems = node.on(|networks| networks.apply(&underlay(node.number), &items).unwrap());
    assert_eq!(problems, []);
}

fn of_shop(name: &'static str, node: u8, last: u8) -> Running {
    Running { service: Some(SHOP), ..task(name, node, last) }
}

/// A task's container; its number among those that are told.
fn join(node: &Node, name: &str, number: u128, networks: &[(&str, &str)]) -> Joined {
    let mut wanted = node.world.wanted(name, networks[0].0, &[]);
    for (network, address) in networks {
        let _none = wanted.endpoints.insert((*network).to_owned(), asked(address));
    }
    wanted.service = Some(OfService { task: TaskId::of(number).to_string(), labels: Labels::new() });
    node.on(|networks| networks.join(&wanted).unwrap())
}

fn space(joined: &Joined) -> &Path {
    joined.namespace.as_deref().unwrap()
}

/// By both families.
fn listening(joined: &Joined, port: u16) -> TcpListener {
    within(space(joined), || TcpListener::bind(("::", port)).unwrap())
}

/// Whether a connection is made, of several tries if it is to be.
fn reaches(from: &Path, to: &str) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    within(from, || TcpStream::connect_timeout(&to, SILENCE).is_ok())
}

fn comes_to_reach(from: &Path, to: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if reaches(from, to) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// The address that a container has in the bridge to its host.
fn by_host(joined: &Joined) -> String {
    let shown = within(space(joined), || Command::new("ip").args(["-o", "-4", "address"]).output().unwrap());
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let address = shown.split_whitespace().find(|word| word.starts_with("172."));
    address.unwrap_or_else(|| panic!("{shown}")).split('/').next().unwrap_or_default().to_owned()
}

#[test]
fn closed_ports_are_for_those_who_are_named_alone() {
    alone(|world| {
        let (one, mut two) = (Node::new(world, 1), Node::new(world, 2));
        let tasks = vec![
            task("web.1", 2, 12),
            of_shop("shop.1", 1, 20),
            of_shop("shop.2", 2, 21),
            task("other.1", 1, 30),
            task("other.2", 2, 31),
        ];
        let closed = [("ketch.allow", "shop:80,shop:53/udp")];
        let mut told =
            Told { nodes: vec![1, 2], tasks, ipv6: true, labels: labels(&closed), ..Told::default() };
        let tell =
            |one: &Node, two: &Node, told: &Told| [one, two].into_iter().for_each(|node| apply(node, told));
        tell(&one, &two, &told);
        let web = join(&two, "web1", 1, &[("front", "10.0.1.12 fd00:1::12")]);
        let shops = [
            join(&one, "shop1", 2, &[("front", "10.0.1.20 fd00:1::20")]),
            join(&two, "shop2", 3, &[("front", "10.0.1.21 fd00:1::21")]),
        ];
        let others = [
            join(&one, "other1", 4, &[("front", "10.0.1.30 fd00:1::30")]),
            join(&two, "other2", 5, &[("front", "10.0.1.31 fd00:1::31")]),
        ];
        let _servers = [80, 81].map(|port| listening(&web, port));
        tell(&one, &two, &told);
        let (own, by_name) = (["10.0.1.12", "[fd00:1::12]"], ["10.0.1.2", "[fd00:1::2]"]);
        let host = format!("{}:80", by_host(&web));
        let holds = |two: &Node| {
            for shop in &shops {
                for address in own.iter().chain(&by_name) {
                    assert!(comes_to_reach(space(shop), &format!("{address}:80")), "{address} by a shop");
                    assert!(!reaches(space(shop), &format!("{address}:81")), "{address}, another port");
                }
            }
            for other in &others {
                for address in own.iter().chain(&by_name) {
                    assert!(!reaches(space(other), &format!("{address}:80")), "{address} by another");
                }
            }
            assert!(!reaches(&two.space, &host), "by the host");
        };
        holds(&two);
        // What it asks others is answered.
        let _shop = listening(&shops[0], 8000);
        assert!(
            comes_to_reach(space(&web), "10.0.1.20:8000") && comes_to_reach(space(&web), "[fd00:1::20]:8000")
        );
        let datagrams = within(space(&shops[0]), || UdpSocket::bind("0.0.0.0:8000").unwrap());
        let asking = within(space(&web), || UdpSocket::bind("0.0.0.0:5000").unwrap());
        for socket in [&datagrams, &asking] {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
        }
        let _sent = asking.send_to(b"x", "10.0.1.20:8000").unwrap();
        let (_, from) = datagrams.recv_from(&mut [0; 8]).unwrap();
        let _sent = datagrams.send_to(b"y", from).unwrap();
        assert!(asking.recv(&mut [0; 8]).is_ok(), "an answer");
        let stranger = within(space(&others[0]), || UdpSocket::bind("0.0.0.0:8000").unwrap());
        let _sent = stranger.send_to(b"z", "10.0.1.12:5000").unwrap();
        assert!(asking.recv(&mut [0; 8]).is_err(), "what was not asked for");

        // Whoever flushes the node's rules opens nothing, and neither does an agent that starts anew.
        let _flushed = within(&two.space, || nft(&["flush", "ruleset"]));
        two.start();
        assert!(!reaches(space(&others[1]), "10.0.1.12:80"));
        apply(&two, &told);
        holds(&two);

        told.labels = labels(&[("ketch.allow", "*:81")]);
        tell(&one, &two, &told);
        for address in own.iter().chain(&by_name) {
            assert!(comes_to_reach(space(&others[0]), &format!("{address}:81")), "{address}");
            assert!(!reaches(space(&shops[0]), &format!("{address}:80")), "{address}");
        }
        told.labels = Labels::new();
        tell(&one, &two, &told);
        assert!(comes_to_reach(space(&others[1]), "10.0.1.2:80") && comes_to_reach(&two.space, &host));
        let rules = within(space(&web), || nft(&["list", "ruleset"]));
        assert!(!rules.contains("ketch-allow"), "{rules}");
    });
}

/// A client outside of the nodes, with this address.
fn asks(from: &str, node: u8, port: u16) -> bool {
    let to = SocketAddr::from((data_address(node).octets(), port));
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    let _in_progress = rustix::net::connect(&socket, &to);
    std::thread::sleep(SILENCE);
    rustix::net::sockopt::socket_error(&socket).is_ok_and(|error| error.is_ok())
        && rustix::net::getpeername(&socket).is_ok()
}

fn comes_to_ask(from: &str, node: u8, port: u16) -> bool {
    (0..20).any(|_| asks(from, node, port))
}

#[test]
fn published_ports_are_for_some_and_open_in_some_places() {
    alone(|world: &World| {
        let nodes = [1, 2, 3].map(|number| Node::new(world, number));
        let mut told =
            Told { nodes: vec![1, 2, 3], tasks: both_tasks_of_the_mesh(), ingress: true, ..Told::default() };
        let tell = |told: &Told| nodes.iter().for_each(|node| apply(node, told));
        told.labels =
            labels(&[("ketch.publish.from", "192.168.77.100,192.168.77.128/25"), ("ketch.allow", "")]);
        tell(&told);
        let joined = [(0_usize, "web1", 1, 11), (1, "web2", 2, 12)].map(|(node, name, number, last)| {
            let (mesh, front) = (format!("10.0.0.{last}"), format!("10.0.1.{last}"));
            join(&nodes[node], name, number, &[("ingress", mesh.as_str()), ("front", front.as_str())])
        });
        let _servers = joined.each_ref().map(|one| listening(one, 80));
        tell(&told);
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        for last in [100, 101, 200] {
            lan.address(bridge, Prefix::new([192, 168, 77, last].into(), 24).unwrap()).unwrap();
        }
        // By each node, to tasks here and elsewhere, though all their ports are closed but for the mesh.
        for node in [1, 2, 3] {
            for from in ["192.168.77.100", "192.168.77.200"] {
                assert!((0..4).all(|_| comes_to_ask(from, node, 8080)), "{from} by {node}");
            }
            assert!(!asks("192.168.77.101", node, 8080), "by {node}");
        }
        for own in ["127.0.0.1:8080", "[::1]:8080", "192.168.77.3:8080"] {
            assert!(!reaches(&nodes[2].space, own), "{own}: the node is none of those");
        }
        let _flushed = within(&nodes[2].space, || nft(&["flush", "ruleset"]));
        std::thread::sleep(SILENCE);
        assert!(!asks("192.168.77.101", 3, 8080) && comes_to_ask("192.168.77.100", 3, 8080));

        told.labels = labels(&[("ketch.publish.ip", "192.168.77.1")]);
        tell(&told);
        assert!(comes_to_ask("192.168.77.101", 1, 8080) && !asks("192.168.77.101", 2, 8080));
        assert!(!reaches(&nodes[0].space, "127.0.0.1:8080"));
        told.labels = labels(&[("ketch.publish.ip", "eth0,::1")]);
        tell(&told);
        assert!(comes_to_ask("192.168.77.101", 2, 8080));
        assert!(!reaches(&nodes[1].space, "127.0.0.1:8080") && comes_to_reach(&nodes[1].space, "[::1]:8080"));
        told.labels = Labels::new();
        tell(&told);
        assert!(comes_to_reach(&nodes[1].space, "127.0.0.1:8080"));
        for node in &nodes {
            let rules = within(&node.space, || nft(&["list", "ruleset"]));
            assert!(!rules.contains("-published"), "{rules}");
        }
    });
}

#[test]
fn what_a_container_publishes_itself_is_narrowed_before_anybody_tells_of_its_service() {
    alone(|world: &World| {
        let mut node = Node::new(world, 1);
        let told = Told { nodes: vec![1], tasks: vec![task("web.1", 1, 11)], ..Told::default() };
        apply(&node, &told);
        let mut wanted = node.world.wanted("web1", "front", &[("80/tcp", "", "8081")]);
        let _none = wanted.endpoints.insert("front".to_owned(), asked("10.0.1.11"));
        let from = labels(&[("ketch.publish.from", "192.168.77.100")]);
        wanted.service = Some(OfService { task: TaskId::of(1).to_string(), labels: from.clone() });
        let web = node.on(|networks| networks.join(&wanted).unwrap());
        let _server = listening(&web, 80);
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        for last in [100, 101] {
            lan.address(bridge, Prefix::new([192, 168, 77, last].into(), 24).unwrap()).unwrap();
        }
        let mut narrowed = told.clone();
        narrowed.labels = from;
        apply(&node, &narrowed);
        assert!(comes_to_ask("192.168.77.100", 1, 8081) && !asks("192.168.77.101", 1, 8081));
        let _flushed = within(&node.space, || nft(&["flush", "ruleset"]));
        node.start();
        assert!(comes_to_ask("192.168.77.100", 1, 8081), "it is led to the container again");
        assert!(!asks("192.168.77.101", 1, 8081), "nobody has told of the service yet");
        apply(&node, &narrowed);
        assert!(comes_to_ask("192.168.77.100", 1, 8081) && !asks("192.168.77.101", 1, 8081));
    });
}
