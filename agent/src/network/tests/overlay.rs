//! Overlay networks with real packets: nodes are network namespaces joined by a bridge, each with a daemon's networks of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ketch_cluster::assignment::{Item, ServiceEntry, Traffic};
use ketch_cluster::id::ServiceId;
use ketch_cluster::objects::Labels;
use ketch_cluster::objects::endpoint::{ResolutionMode, VirtualIp};
use ketch_engine_api::network::{EndpointIpamConfig, EndpointSettings};

use std::collections::{BTreeMap, BTreeSet};

use super::{Joined, Networks, World, address, alone, ask, listen, nft, reach};
use crate::network::can_encrypt;
use crate::network::device::Pair;
use crate::network::ipam::Prefix;
use crate::network::link::{Links, mac_of};
use crate::network::namespace;
use crate::network::overlay::Underlay;
use crate::network::overlay::fixture::{
    FRONT, INGRESS, Running, Told, VIRTUAL, data_address, task, underlay,
};
use crate::network::xfrm::Xfrm;
use crate::store::Store;

/// A machine.
pub(super) struct Node {
    pub(super) number: u8,
    pub(super) space: PathBuf,
    pub(super) world: World,
    networks: Option<Networks>,
}

/// Runs something on a machine.
pub(super) fn within<T: Send>(space: &Path, run: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(space).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            run()
        });
        thread.join().unwrap()
    })
}

impl Node {
    /// A machine with a daemon that belongs to the cluster.
    pub(super) fn new(world: &World, number: u8) -> Self {
        let node = Self::stranger(world, number);
        node.enter();
        node
    }

    fn enter(&self) {
        self.on(|networks| networks.enter_cluster(&underlay(self.number)).unwrap());
    }

    /// One that does not, in the bridge `lan` of the calling thread's namespace.
    fn stranger(world: &World, number: u8) -> Self {
        let folder = world.folder.join(format!("node{number}"));
        std::fs::create_dir(&folder).unwrap();
        let space = folder.join("net");
        namespace::create(&space, None, || Ok(())).unwrap();
        let mut lan = Links::open().unwrap();
        let bridge = lan.bridge("lan", [2, 2, 2, 2, 2, 2], 1500).unwrap();
        let file = std::fs::File::open(&space).unwrap();
        let pair = Pair {
            name: &format!("lan{number}"),
            master: bridge,
            mtu: 1500,
            peer: "eth0",
            peer_mac: mac_of(data_address(number)),
            peer_namespace: std::os::fd::AsFd::as_fd(&file),
            isolated: false,
            hairpin: false,
        };
        lan.pair(&pair).unwrap();
        let own_world = within(&space, || {
            let mut links = Links::open().unwrap();
            links.up(1).unwrap();
            let eth0 = links.index("eth0").unwrap().unwrap();
            links.address(eth0, Prefix::new(data_address(number).into(), 24).unwrap()).unwrap();
            links.up(eth0).unwrap();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            World { store: Store::open(&folder.join("store")).unwrap(), folder: folder.clone(), runtime }
        });
        let mut node = Self { number, space, world: own_world, networks: None };
        node.networks = Some(within(&node.space, || node.world.open()));
        node
    }

    /// Its daemon is started again.
    pub(super) fn start(&mut self) {
        self.networks = None;
        self.networks = Some(within(&self.space, || self.world.open()));
        self.enter();
    }

    pub(super) fn on<T: Send>(&self, run: impl FnOnce(&Networks) -> T + Send) -> T {
        within(&self.space, || run(self.networks.as_ref().unwrap()))
    }

    fn apply(&self, cluster: &Told) {
        let problems =
            self.on(|networks| networks.apply(&underlay(self.number), &cluster.items(self.number)).unwrap());
        assert_eq!(problems, []);
    }

    /// A container with addresses in networks.
    fn join(&self, name: &str, networks: &[(&str, &str)]) -> Joined {
        let mut wanted = self.world.wanted(name, networks[0].0, &[]);
        for (network, address) in networks {
            let _none = wanted.endpoints.insert((*network).to_owned(), asked(address));
        }
        self.on(|networks| networks.join(&wanted).unwrap())
    }
}

/// Runs until the test's end.
fn in_background(work: impl FnOnce() + Send + 'static) {
    drop(std::thread::Builder::new().spawn(work).unwrap());
}

/// Answers each connection with its name, for as long as the test.
fn serve(joined: &Joined, name: &'static str) {
    let listener = listen(joined, 80);
    in_background(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            in_background(move || {
                let peer = connection.peer_addr().unwrap().ip();
                let mut line = [0; 64];
                while let Ok(1..) = connection.read(&mut line) {
                    if connection.write_all(format!("{name} {peer}\n").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// One answer on a connection.
fn talk(connection: &mut TcpStream) -> std::io::Result<String> {
    connection.write_all(b"x")?;
    let mut answer = [0; 64];
    match connection.read(&mut answer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => Ok(String::from_utf8_lossy(&answer[..length]).trim().to_owned()),
    }
}

fn connect(to: ([u8; 4], u16)) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_secs(2))?;
    connection.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(connection)
}

/// Who answers, from a container.
fn answer(from: &Joined, to: ([u8; 4], u16)) -> std::io::Result<String> {
    within(from.namespace.as_deref().unwrap(), || talk(&mut connect(to)?))
}

/// An address of IPv4, and behind a space one of IPv6.
pub(super) fn asked(addresses: &str) -> EndpointSettings {
    let (ipv4, ipv6) = addresses.split_once(' ').unwrap_or((addresses, ""));
    let ipam = EndpointIpamConfig {
        ipv4_address: ipv4.to_owned(),
        ipv6_address: ipv6.to_owned(),
        ..EndpointIpamConfig::default()
    };
    EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() }
}

fn two_nodes(world: &World, tasks: Vec<Running>) -> (Node, Node, Told) {
    let (one, two) = (Node::new(world, 1), Node::new(world, 2));
    let told = Told { nodes: vec![1, 2], tasks, ..Told::default() };
    (one, two, told)
}

#[test]
fn containers_of_two_nodes_reach_each_other_by_address_and_name() {
    alone(|world| {
        let (one, two, told) = two_nodes(world, vec![task("db.1", 1, 11), task("web.1", 2, 12)]);
        one.apply(&told);
        two.apply(&told);
        let db = one.join("db", &[("front", "10.0.1.11")]);
        let web = two.join("web", &[("front", "10.0.1.12")]);
        assert_eq!(address(&db, "front"), std::net::IpAddr::from([10, 0, 1, 11]));
        assert_eq!(db.settings.networks.keys().collect::<Vec<_>>(), ["front"], "the way out is not shown");
        let server = listen(&web, 80);
        assert_eq!(reach(Some(&db), ([10, 0, 1, 12].into(), 80), &server), Some([10, 0, 1, 11].into()));
        drop(server);
        // Its names: the task's, the container's, the service's and its aliases, all of the tasks.
        two.apply(&told);
        one.apply(&told);
        assert_eq!(ask(&db, "web.1", 1), (0, vec![vec![10, 0, 1, 12]]));
        assert_eq!(ask(&db, "web", 1), (0, vec![VIRTUAL.to_vec()]));
        assert_eq!(ask(&db, "app", 1), (0, vec![VIRTUAL.to_vec()]));
        assert_eq!(ask(&db, "tasks.web.front", 1), (0, vec![vec![10, 0, 1, 12]]));
        assert_eq!(ask(&web, "db.1", 1), (0, vec![vec![10, 0, 1, 11]]));
        let container = format!("{:0<64}", "db");
        one.on(|networks| networks.leave(&container).unwrap());
        one.on(|networks| networks.forget_overlays().unwrap());
        one.on(|networks| assert!(networks.find("front").is_err()));
        assert_eq!(std::fs::read_dir(one.world.folder.join("overlays")).unwrap().count(), 0);
        let rules = within(&one.space, || nft(&["list", "ruleset"]));
        assert!(!rules.contains("vxlan"), "{rules}");
    });
}

/// How often each answered.
fn answers(from: &Joined, to: ([u8; 4], u16), times: usize) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for _ in 0..times {
        *found.entry(answer(from, to).unwrap_or_else(|error| error.to_string())).or_default() += 1;
    }
    found
}

/// Two tasks of a service on two nodes, and a client on the first.
fn served(world: &World) -> (Node, Node, Told, Joined) {
    let tasks = vec![task("client", 1, 10), task("web.1", 1, 11), task("web.2", 2, 12)];
    let (one, two, told) = two_nodes(world, tasks);
    one.apply(&told);
    two.apply(&told);
    let client = one.join("client", &[("front", "10.0.1.10")]);
    serve(&one.join("web1", &[("front", "10.0.1.11")]), "web.1");
    serve(&two.join("web2", &[("front", "10.0.1.12")]), "web.2");
    // They run by now, and so the managers say that they serve.
    one.apply(&told);
    two.apply(&told);
    (one, two, told, client)
}

#[test]
fn a_virtual_address_leads_to_all_tasks_in_turn_and_survives_the_daemon() {
    alone(|world| {
        let (mut one, two, told, client) = served(world);
        let both = BTreeMap::from([("web.1 10.0.1.201".to_owned(), 3), ("web.2 10.0.1.201".to_owned(), 3)]);
        assert_eq!(answers(&client, (VIRTUAL, 80), 6), both);
        let mut kept = within(client.namespace.as_deref().unwrap(), || connect((VIRTUAL, 80)).unwrap());
        let by = talk(&mut kept).unwrap();
        let space = one.world.folder.join("overlays").join(FRONT.to_string());
        let links = || within(&space, || Links::open().unwrap().list().unwrap());
        let before = links();
        one.start();
        let running = ["client", "web1"].map(|name| format!("{name:0<64}"));
        one.on(|networks| networks.keep(&BTreeSet::from(running.clone())).unwrap());
        assert_eq!(talk(&mut kept).unwrap(), by, "without the daemon having been told");
        // The leader is a new one, too, and has heard of nobody.
        let mut unheard = told.clone();
        unheard.tasks.iter_mut().for_each(|task| task.traffic = Traffic::Unknown);
        one.apply(&unheard);
        assert_eq!(links(), before, "nothing was made anew");
        assert_eq!(talk(&mut kept).unwrap(), by);
        assert_eq!(answers(&client, (VIRTUAL, 80), 6), both);
        one.apply(&told);
        // A task whose container has gone gets nothing more, whatever the managers know.
        two.on(|networks| networks.leave(&format!("{:0<64}", "web2")).unwrap());
        one.on(|networks| networks.leave(&format!("{:0<64}", "web1")).unwrap());
        let rules = within(&space, || nft(&["list", "table", "ip", "ketch-overlay"]));
        assert!(!rules.contains("10.0.1.11") && rules.contains("10.0.1.12"), "{rules}");
    });
}

#[test]
fn a_draining_task_keeps_its_connections_and_gets_no_new_ones() {
    alone(|world| {
        let (one, two, mut told, client) = served(world);
        let space = client.namespace.as_deref().unwrap();
        let mut kept = within(space, || {
            let mut both = [(); 2].map(|()| connect((VIRTUAL, 80)).unwrap()).into_iter();
            let kept = both.find_map(|mut one| talk(&mut one).unwrap().starts_with("web.2").then_some(one));
            kept.unwrap()
        });
        told.tasks[2].traffic = Traffic::Draining;
        one.apply(&told);
        two.apply(&told);
        assert_eq!(talk(&mut kept).unwrap(), "web.2 10.0.1.201");
        assert_eq!(answers(&client, (VIRTUAL, 80), 4), BTreeMap::from([("web.1 10.0.1.201".to_owned(), 4)]));
        // A new leader has not heard of them: what was known holds.
        for task in &mut told.tasks {
            task.traffic = Traffic::Unknown;
        }
        one.apply(&told);
        assert_eq!(talk(&mut kept).unwrap(), "web.2 10.0.1.201");
        assert_eq!(answers(&client, (VIRTUAL, 80), 2), BTreeMap::from([("web.1 10.0.1.201".to_owned(), 2)]));
        // It has gone, and whoever waits for it learns of it at once.
        drop(told.tasks.remove(2));
        one.apply(&told);
        let error = talk(&mut kept).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

/// Answers datagrams with its name.
fn serve_datagrams(joined: &Joined, name: &'static str) {
    let socket = within(joined.namespace.as_deref().unwrap(), || UdpSocket::bind("0.0.0.0:80").unwrap());
    in_background(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _gone = socket.send_to(name.as_bytes(), client);
        }
    });
}

#[test]
fn datagrams_of_a_draining_task_go_to_others_at_once() {
    alone(|world| {
        let tasks = vec![task("client", 1, 10), task("web.1", 1, 11), task("web.2", 2, 12)];
        let (one, two, mut told) = two_nodes(world, tasks);
        one.apply(&told);
        two.apply(&told);
        let client = one.join("client", &[("front", "10.0.1.10")]);
        serve_datagrams(&one.join("web1", &[("front", "10.0.1.11")]), "web.1");
        serve_datagrams(&two.join("web2", &[("front", "10.0.1.12")]), "web.2");
        one.apply(&told);
        let socket = within(client.namespace.as_deref().unwrap(), || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        socket.connect(SocketAddr::from((VIRTUAL, 80))).unwrap();
        let ask = || {
            let _length = socket.send(b"x").unwrap();
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[..length]).into_owned()
        };
        let first = ask();
        assert_eq!(ask(), first, "a flow stays where it is");
        let (gone, other) = if first == "web.1" { (1, "web.2") } else { (2, "web.1") };
        told.tasks[gone].traffic = Traffic::Draining;
        one.apply(&told);
        assert_eq!(ask(), other);
    });
}

/// A VXLAN datagram with a datagram for port 9999 of 10.0.1.12 in it.
fn forged() -> Vec<u8> {
    let mut frame = vec![8, 0, 0, 0, 0, 0x10, 1, 0];
    frame.extend_from_slice(&mac_of(Ipv4Addr::new(10, 0, 1, 12)));
    frame.extend_from_slice(&mac_of(Ipv4Addr::new(10, 0, 1, 11)));
    let mut header = vec![8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 1, 11, 10, 0, 1, 12];
    let sum: u32 = header[2..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[12..14].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&[0x27, 0x0f, 0x27, 0x0f, 0, 10, 0, 0, b'h', b'i']);
    frame
}

/// Whether the frame of [`forged`] arrives in the container of node 2 when it is sent from a namespace.
struct Forging(UdpSocket);

impl Forging {
    fn at(web: &Joined) -> Self {
        let inside = within(web.namespace.as_deref().unwrap(), || UdpSocket::bind("0.0.0.0:9999").unwrap());
        inside.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        Self(inside)
    }

    fn arrives(&self, from: &Path) -> bool {
        within(from, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            // What is dropped at the output is refused.
            let _refused = socket.send_to(&forged(), (data_address(2), 4789));
        });
        self.0.recv(&mut [0; 16]).is_ok()
    }

    /// The same where it is to: a datagram may be late on a busy machine, or meet a neighbour that is not known yet. None is left for
    /// who looks next.
    fn comes_to_arrive(&self, from: &Path) -> bool {
        let has_arrived = (0..10).any(|_| self.arrives(from));
        while self.0.recv(&mut [0; 16]).is_ok() {}
        has_arrived
    }
}

/// A container of no network of the cluster, on the default bridge.
fn bystander(node: &Node) -> PathBuf {
    let joined = node.on(|networks| networks.join(&node.world.wanted("by", "bridge", &[])).unwrap());
    joined.namespace.unwrap()
}

#[test]
fn datagrams_of_strangers_and_of_containers_are_dropped() {
    alone(|world| {
        let (one, two, mut told) = two_nodes(world, vec![task("db.1", 1, 11), task("web.1", 2, 12)]);
        // The third looks after none of its containers; the fourth is not of the cluster; the fifth serves no network.
        let (careless, stranger, idle) =
            (Node::stranger(world, 3), Node::stranger(world, 4), Node::new(world, 5));
        told.nodes.extend([3, 5]);
        one.apply(&told);
        two.apply(&told);
        let db = one.join("db", &[("front", "10.0.1.11")]);
        let web = Forging::at(&two.join("web", &[("front", "10.0.1.12")]));
        assert!(
            web.comes_to_arrive(&careless.space),
            "the datagram is well made, and programs of nodes are believed"
        );
        assert!(
            web.comes_to_arrive(&bystander(&careless)),
            "so are containers, which leave by their node's address"
        );
        assert!(!web.arrives(&stranger.space), "of no node of the cluster");
        assert!(!web.arrives(db.namespace.as_deref().unwrap()), "of a container, with its node's address");
        assert!(!web.arrives(&one.space), "of a container with the host's network");
        assert!(!web.arrives(&bystander(&one)), "of a container of no network of the cluster");
        assert!(!web.arrives(&idle.space) && !web.arrives(&bystander(&idle)), "of a node without networks");
        assert!(!web.arrives(&two.space) && !web.arrives(&bystander(&two)), "of the very node");
        // Not even for the moment after somebody has flushed all rules.
        let _flushed = within(&two.space, || nft(&["flush", "ruleset"]));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!web.arrives(&stranger.space) && web.comes_to_arrive(&careless.space));
        // What a node without networks keeps to goes with the cluster.
        let rules = || within(&idle.space, || nft(&["list", "ruleset"]));
        assert!(rules().contains("-vxlan"));
        idle.on(|networks| networks.forget_overlays().unwrap());
        assert!(!rules().contains("-vxlan"));
        assert!(web.comes_to_arrive(&idle.space));
    });
}

#[test]
fn an_agent_that_may_not_ask_its_managers_yet_knows_whom_to_let_in() {
    alone(|world| {
        let (one, mut two, mut told) = two_nodes(world, vec![task("db.1", 1, 11), task("web.1", 2, 12)]);
        let (careless, stranger) = (Node::stranger(world, 3), Node::stranger(world, 4));
        told.nodes.push(3);
        one.apply(&told);
        two.apply(&told);
        let web = Forging::at(&two.join("web", &[("front", "10.0.1.12")]));
        two.networks = None;
        let _flushed = within(&two.space, || nft(&["flush", "ruleset"]));
        assert!(web.comes_to_arrive(&stranger.space), "nobody looks");
        // A locked manager's: it belongs to the cluster, and is told nothing.
        two.start();
        assert!(!web.arrives(&stranger.space) && web.comes_to_arrive(&careless.space));
        let _flushed = within(&two.space, || nft(&["flush", "ruleset"]));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!web.arrives(&stranger.space) && web.comes_to_arrive(&careless.space), "it watches");
    });
}

#[test]
fn a_cluster_that_was_left_makes_no_networks_any_more() {
    alone(|world| {
        let (one, _two, told) = two_nodes(world, vec![task("db.1", 1, 11)]);
        one.on(|networks| networks.forget_overlays().unwrap());
        one.apply(&told);
        one.on(|networks| assert!(networks.find("front").is_err()));
        one.enter();
        one.apply(&told);
        one.on(|networks| assert!(networks.find("front").is_ok()));
        one.on(|networks| networks.go_on_leaving().unwrap());
        one.on(|networks| assert!(networks.find("front").is_ok(), "it belongs to one again"));
    });
}

/// Runs `ip`.
fn ip(arguments: &[&str]) {
    let done = std::process::Command::new("ip").args(arguments).status();
    assert!(done.is_ok_and(|status| status.success()), "{arguments:?}");
}

/// Whether a datagram from this address of the thread's namespace arrives.
fn sent_as(from: [u8; 4], (to, receiver): ([u8; 4], &UdpSocket)) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::from(from), 0)).unwrap();
    let _length = socket.send_to(b"x", (Ipv4Addr::from(to), 9999)).unwrap();
    receiver.recv(&mut [0; 16]).is_ok()
}

/// What is to be seen may take its time on a busy machine, and is looked for again.
fn at_last(mut is_so: impl FnMut() -> bool) -> bool {
    (0..10).any(|_| is_so())
}

#[test]
fn a_container_has_no_address_but_its_own() {
    alone(|world| {
        let tasks = vec![task("db.1", 1, 11), task("web.1", 2, 12), task("near.1", 1, 13)];
        let (one, two, told) = two_nodes(world, tasks);
        one.apply(&told);
        two.apply(&told);
        let db = one.join("db", &[("front", "10.0.1.11")]);
        let near = one.join("near", &[("front", "10.0.1.13")]);
        let web = two.join("web", &[("front", "10.0.1.12")]);
        let receivers = [&web, &near].map(|joined| Forging::at(joined).0);
        let [far, here] = [([10, 0, 1, 12], &receivers[0]), ([10, 0, 1, 13], &receivers[1])];
        let space = one.world.folder.join("overlays").join(FRONT.to_string());
        within(db.namespace.as_deref().unwrap(), || {
            // As whoever has NET_RAW may write it.
            ip(&["address", "add", "10.0.1.77/32", "dev", "eth0"]);
            for to in [far, here] {
                assert!(at_last(|| sent_as([10, 0, 1, 11], to)), "as what it is");
                assert!(!sent_as([10, 0, 1, 77], to), "with another's address");
            }
        });
        // By its answers nobody comes to take it for another.
        let claims = || {
            within(near.namespace.as_deref().unwrap(), || {
                ip(&["neighbour", "flush", "all"]);
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let _length = socket.send_to(b"x", ("10.0.1.77", 9999)).unwrap();
                std::thread::sleep(Duration::from_millis(300));
                let shown =
                    std::process::Command::new("ip").args(["neighbour", "show", "10.0.1.77"]).output();
                String::from_utf8_lossy(&shown.unwrap().stdout).contains("02:42:0a:00:01:0b")
            })
        };
        assert!(!claims());
        let _without = within(&space, || nft(&["delete", "table", "bridge", "ketch-ports"]));
        assert!(at_last(claims), "the rules keep it from that");
        within(db.namespace.as_deref().unwrap(), || assert!(at_last(|| sent_as([10, 0, 1, 77], far))));
        // Whoever flushes rules keeps no container's network from its end.
        one.on(|networks| networks.leave(&format!("{:0<64}", "db")).unwrap());
    });
}

pub(super) fn both_tasks_of_the_mesh() -> Vec<Running> {
    let of_mesh = |mut task: Running| {
        let [_, _, _, last] = task.addresses[0].1;
        task.addresses.push((INGRESS, [10, 0, 0, last]));
        task
    };
    vec![of_mesh(task("web.1", 1, 11)), of_mesh(task("web.2", 2, 12))]
}

#[test]
fn published_ports_lead_to_tasks_from_every_node() {
    alone(|world| {
        let nodes = [1, 2, 3].map(|number| Node::new(world, number));
        let mut told =
            Told { nodes: vec![1, 2, 3], tasks: both_tasks_of_the_mesh(), ingress: true, ..Told::default() };
        let apply = |told: &Told| nodes.iter().for_each(|node| node.apply(told));
        apply(&told);
        let both = |last: u8| [("ingress", format!("10.0.0.{last}")), ("front", format!("10.0.1.{last}"))];
        for (node, name, last) in [(&nodes[0], "web.1", 11), (&nodes[1], "web.2", 12)] {
            let networks = both(last);
            let networks: Vec<_> = networks.iter().map(|(name, address)| (*name, address.as_str())).collect();
            serve(&node.join(name, &networks), name);
        }
        apply(&told);
        // The client is outside.
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        lan.address(bridge, Prefix::new([192, 168, 77, 100].into(), 24).unwrap()).unwrap();
        let ask = |node: u8, times: usize| {
            let mut found = BTreeMap::new();
            for _ in 0..times {
                let answer = connect((data_address(node).octets(), 8080)).and_then(|mut one| talk(&mut one));
                *found.entry(answer.unwrap_or_else(|error| error.to_string())).or_default() += 1;
            }
            found
        };
        let found = |list: &[(&str, usize)]| -> BTreeMap<String, usize> {
            list.iter().map(|(text, times)| ((*text).to_owned(), *times)).collect()
        };
        assert_eq!(ask(1, 4), found(&[("web.1 192.168.77.100", 2), ("web.2 10.0.0.201", 2)]));
        assert_eq!(ask(2, 4), found(&[("web.1 10.0.0.202", 2), ("web.2 192.168.77.100", 2)]));
        assert_eq!(ask(3, 4), found(&[("web.1 10.0.0.203", 2), ("web.2 10.0.0.203", 2)]));
        let local =
            within(&nodes[2].space, || connect(([127, 0, 0, 1], 8080)).and_then(|mut it| talk(&mut it)));
        assert!(local.unwrap().starts_with("web."), "from the node itself");
        let by_ipv6 = within(&nodes[2].space, || talk(&mut TcpStream::connect("[::1]:8080")?));
        assert!(by_ipv6.unwrap().starts_with("web."), "carried by the daemon");
        let taken = within(&nodes[2].space, || TcpListener::bind(("0.0.0.0", 8080)).unwrap_err().kind());
        assert_eq!(taken, ErrorKind::AddrInUse);
        told.labels = Labels::from([("ketch.mesh.prefer-local".to_owned(), "true".to_owned())]);
        apply(&told);
        assert_eq!(ask(1, 3), found(&[("web.1 192.168.77.100", 3)]));
        assert_eq!(ask(3, 2).len(), 2);
        let mut kept = connect((data_address(1).octets(), 8080)).unwrap();
        assert_eq!(talk(&mut kept).unwrap(), "web.1 192.168.77.100");
        told.tasks[0].traffic = Traffic::Draining;
        apply(&told);
        assert_eq!(ask(1, 2), found(&[("web.2 10.0.0.201", 2)]));
        assert_eq!(talk(&mut kept).unwrap(), "web.1 192.168.77.100", "it goes on");
        nodes[0].on(|networks| networks.leave(&format!("{:0<64}", "web.1")).unwrap());
        assert_eq!(talk(&mut kept).unwrap_err().kind(), ErrorKind::ConnectionReset, "it has gone");
        assert_eq!(ask(2, 2), found(&[("web.2 192.168.77.100", 2)]));
        nodes[2].on(|networks| networks.forget_overlays().unwrap());
        assert_eq!(ask(3, 1), found(&[("Connection refused (os error 111)", 1)]));
    });
}

#[test]
fn ipv6_goes_the_same_ways() {
    alone(|world| {
        let tasks = vec![task("client", 1, 10), task("web.1", 1, 11), task("web.2", 2, 12)];
        let (one, two, mut told) = two_nodes(world, tasks);
        told.ipv6 = true;
        one.apply(&told);
        two.apply(&told);
        let client = one.join("client", &[("front", "10.0.1.10 fd00:1::10")]);
        let tasks = [
            one.join("web1", &[("front", "10.0.1.11 fd00:1::11")]),
            two.join("web2", &[("front", "10.0.1.12 fd00:1::12")]),
        ];
        one.apply(&told);
        let servers = tasks.each_ref().map(|joined| {
            let bind = || TcpListener::bind("[::]:80").unwrap();
            within(joined.namespace.as_deref().unwrap(), bind)
        });
        for server in &servers {
            server.set_nonblocking(true).unwrap();
        }
        assert_eq!(ask(&client, "web.2", 28).1.len(), 1);
        let mut reached = BTreeMap::new();
        for to in ["[fd00:1::12]:80", "[fd00:1::2]:80", "[fd00:1::2]:80"] {
            let connect =
                || TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(2)).unwrap();
            let _connection = within(client.namespace.as_deref().unwrap(), connect);
            let (number, (_, peer)) = servers
                .iter()
                .enumerate()
                .find_map(|(number, it)| Some((number, it.accept().ok()?)))
                .unwrap();
            *reached.entry((to, number, peer.ip().to_string())).or_insert(0) += 1;
        }
        let (direct, turns) = ("[fd00:1::12]:80", "[fd00:1::2]:80");
        let wanted = [(direct, 1, "fd00:1::10"), (turns, 0, "fd00:1::201"), (turns, 1, "fd00:1::201")];
        assert_eq!(reached, wanted.map(|(to, number, peer)| ((to, number, peer.to_owned()), 1)).into());
    });
}

#[test]
fn a_running_container_comes_into_a_network_of_the_cluster_and_leaves_it() {
    alone(|world| {
        let (one, two, told) = two_nodes(world, vec![task("db.1", 1, 11), task("web.1", 2, 12)]);
        one.apply(&told);
        two.apply(&told);
        let web = two.join("web", &[("front", "10.0.1.12")]);
        let server = listen(&web, 80);
        let plain = one.on(|networks| networks.join(&one.world.wanted("db", "none", &[])).unwrap());
        let container = format!("{:0<64}", "db");
        let interfaces = || within(plain.namespace.as_deref().unwrap(), super::link_names);
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let refused = one.on(|networks| networks.connect("front", &container, EndpointSettings::default()));
        assert_eq!(
            refused.unwrap_err().message,
            "no manager of the cluster has given an address in the network front"
        );
        one.on(|networks| networks.connect("front", &container, asked("10.0.1.11")).unwrap());
        assert_eq!(interfaces(), names(&["lo", "eth0", "eth1"]), "and the way out");
        assert!(reach(Some(&plain), ([10, 0, 1, 12].into(), 80), &server).is_some());
        let shown = one.on(|networks| networks.settings(&container).unwrap().networks);
        assert_eq!(shown.keys().collect::<Vec<_>>(), ["front", "none"]);
        let kept = one.on(|networks| networks.remove("docker_gwbridge").unwrap_err().message);
        assert!(kept.contains("network docker_gwbridge has active endpoints"), "{kept}");
        one.on(|networks| networks.disconnect("front", &container).unwrap());
        assert_eq!(interfaces(), names(&["lo"]));
    });
}

#[test]
fn a_container_sends_by_its_own_ethernet_address_only() {
    alone(|world| {
        let (one, two, told) = two_nodes(world, vec![task("db.1", 1, 11), task("web.1", 2, 12)]);
        one.apply(&told);
        two.apply(&told);
        let db = one.join("db", &[("front", "10.0.1.11")]);
        let web = two.join("web", &[("front", "10.0.1.12")]);
        let server = listen(&web, 80);
        let connect = || answer_of(&db, ([10, 0, 1, 12], 80));
        assert!(connect(), "as what it is");
        within(db.namespace.as_deref().unwrap(), || {
            let changed = std::process::Command::new("ip")
                .args(["link", "set", "eth0", "address", "02:42:0a:00:01:0c"])
                .status();
            assert!(changed.is_ok_and(|status| status.success()));
        });
        assert!(!connect(), "as another");
        drop(server);
    });
}

/// Whether a connection comes about.
fn answer_of(from: &Joined, to: ([u8; 4], u16)) -> bool {
    within(from.namespace.as_deref().unwrap(), || connect(to).is_ok())
}

#[test]
fn an_encrypted_network_is_not_served_where_the_kernel_has_no_esp() {
    alone(|world| {
        let node = Node::stranger(world, 1);
        let without = Underlay { encrypts: false, ..underlay(1) };
        let told =
            Told { nodes: vec![1], tasks: vec![task("db.1", 1, 11)], keys: vec![1, 2], ..Told::default() };
        node.on(|networks| networks.enter_cluster(&without).unwrap());
        let problems = node.on(|networks| networks.apply(&without, &told.items(1)).unwrap());
        let text = "the network front is encrypted, and this node can't encrypt: it is not served, as nothing of it may travel in plain text";
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        let mut wanted = node.world.wanted("db", "front", &[]);
        let _none = wanted.endpoints.insert("front".to_owned(), asked("10.0.1.11"));
        let error = node.on(|networks| networks.join(&wanted).unwrap_err().message);
        assert!(error.ends_with(text), "{error}");
        assert_eq!(std::fs::read_dir(node.world.folder.join("overlays")).unwrap().count(), 0);
    });
}

/// All frames of the calling thread's namespace, from now on.
struct Capture(std::os::fd::OwnedFd);

/// The IPv4 datagrams among the frames, by protocol, and all bytes.
#[derive(Debug, Default)]
struct Captured {
    esp: usize,
    vxlan: usize,
    bytes: Vec<u8>,
}

impl Capture {
    fn begin() -> Self {
        use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketType};
        // Every protocol, in network order.
        let all = Protocol::from_raw(RawProtocol::new(0x0300).unwrap());
        Self(rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, Some(all)).unwrap())
    }

    fn end(self) -> Captured {
        let mut captured = Captured::default();
        let mut frame = [0; 2048];
        while let Ok((length, _)) =
            rustix::net::recv(&self.0, &mut frame[..], rustix::net::RecvFlags::DONTWAIT)
        {
            let frame = &frame[..length.min(2048)];
            captured.bytes.extend_from_slice(frame);
            match (frame.get(12..14), frame.get(23), frame.get(36..38)) {
                (Some([8, 0]), Some(50), _) => captured.esp += 1,
                (Some([8, 0]), Some(17), Some(port)) if port == 4789_u16.to_be_bytes() => captured.vxlan += 1,
                _ => {}
            }
        }
        captured
    }
}

const SECRET: &[u8] = b"nobody is to read this on the wire";

impl Captured {
    fn holds_the_secret(&self) -> bool {
        self.bytes.windows(SECRET.len()).any(|some| some == SECRET)
    }
}

/// In the VM: this needs a kernel with ESP.
#[test]
fn an_encrypted_network_travels_by_esp_alone() {
    if !can_encrypt() {
        eprintln!("skipped: the kernel has no ESP (make vm-test runs it)");
        return;
    }
    alone(|world| {
        let tasks = vec![task("db.1", 1, 11), task("web.1", 2, 12)];
        let (mut one, two, mut told) = two_nodes(world, tasks);
        let careless = Node::stranger(world, 3);
        told.nodes.push(3);
        let send = |db: &Joined| {
            within(db.namespace.as_deref().unwrap(), || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let _length = socket.send_to(SECRET, "10.0.1.12:9999").unwrap();
            });
        };
        let apply = |node: &Node, told: &Told| node.apply(told);
        // As a plain network first, which shows that a capture would find what it is to find.
        apply(&one, &told);
        apply(&two, &told);
        let db = one.join("db", &[("front", "10.0.1.11")]);
        let web = Forging::at(&two.join("web", &[("front", "10.0.1.12")]));
        let receives = || web.0.recv(&mut [0; 64]).is_ok();
        let capture = Capture::begin();
        send(&db);
        assert!(receives());
        let plain = capture.end();
        assert!(
            plain.holds_the_secret() && plain.vxlan > 0 && plain.esp == 0,
            "{} {}",
            plain.vxlan,
            plain.esp
        );
        assert!(web.comes_to_arrive(&careless.space));

        told.keys = vec![1, 2];
        apply(&one, &told);
        apply(&two, &told);
        let capture = Capture::begin();
        send(&db);
        assert!(receives(), "it passes");
        let sealed = capture.end();
        assert!(sealed.esp > 0 && sealed.vxlan == 0, "{} {}", sealed.esp, sealed.vxlan);
        assert!(!sealed.holds_the_secret());
        assert!(!web.arrives(&careless.space), "what comes in plain text is dropped, whoever it is from");

        // Keys are exchanged under way, on one node before the other.
        let mut got = 0;
        for (step, keys) in [[1, 2].as_slice(), &[1, 2, 3], &[2, 3, 4], &[3, 4, 5]].into_iter().enumerate() {
            told.keys = keys.to_vec();
            for node in if step % 2 == 0 { [&one, &two] } else { [&two, &one] } {
                for _ in 0..10 {
                    send(&db);
                    got += usize::from(receives());
                }
                apply(node, &told);
            }
        }
        assert!(got >= 78, "{got} of 80");
        assert_eq!(within(&one.space, sealing_of), (3 * 2 + 2, 2), "what is old has gone");

        // Without associations, and without policies, nothing leaves.
        for what in ["state", "policy"] {
            within(&one.space, || ip(&["xfrm", what, "flush"]));
            let capture = Capture::begin();
            send(&db);
            assert!(!receives());
            let lost = capture.end();
            assert!(lost.vxlan == 0 && !lost.holds_the_secret(), "{what}: {}", lost.vxlan);
        }
        one.start();
        apply(&one, &told);
        send(&db);
        assert!(receives(), "a daemon that starts mends it");
        // A daemon that starts without managers has no keys, and what the kernel has goes on.
        one.start();
        let keys = told.items(1).into_iter().filter(|item| !matches!(item, Item::DataKeys(_)));
        let items: Vec<Item> = keys.collect();
        let problems = one.on(|networks| networks.apply(&underlay(1), &items).unwrap());
        assert_eq!(problems, []);
        send(&db);
        assert!(receives());
        one.on(|networks| networks.leave(&format!("{:0<64}", "db")).unwrap());
        one.on(|networks| networks.forget_overlays().unwrap());
        assert_eq!(within(&one.space, sealing_of), (0, 0));
    });
}

/// How many associations and policies of ours the thread's namespace has.
fn sealing_of() -> (usize, usize) {
    let mut xfrm = Xfrm::open().unwrap();
    (xfrm.associations().unwrap().len(), xfrm.policies().unwrap().len())
}

/// Prints what goes through by each way, and how long a node takes to be told of a thousand services.
#[test]
fn what_ways_cost() {
    alone(|world| {
        let nodes = [1, 2, 3].map(|number| Node::new(world, number));
        let mut told =
            Told { nodes: vec![1, 2, 3], tasks: both_tasks_of_the_mesh(), ingress: true, ..Told::default() };
        told.tasks[0].traffic = Traffic::None;
        told.tasks.push(task("client", 1, 10));
        nodes.iter().for_each(|node| node.apply(&told));
        let networks =
            |last: u8| [("ingress", format!("10.0.0.{last}")), ("front", format!("10.0.1.{last}"))];
        let both = networks(12);
        let both: Vec<_> = both.iter().map(|(name, address)| (*name, address.as_str())).collect();
        let web = nodes[1].join("web.2", &both);
        let client = nodes[0].join("client", &[("front", "10.0.1.10")]);
        nodes.iter().for_each(|node| node.apply(&told));
        let listener = listen(&web, 80);
        in_background(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _length = std::io::copy(&mut connection, &mut std::io::sink());
            }
        });
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        lan.address(bridge, Prefix::new([192, 168, 77, 100].into(), 24).unwrap()).unwrap();
        let rate = |from: Option<&Path>, to: ([u8; 4], u16)| {
            let send = || {
                let began = Instant::now();
                let mut connection = connect(to).unwrap();
                let piece = vec![0; 1 << 20];
                for _ in 0..256 {
                    connection.write_all(&piece).unwrap();
                }
                connection.shutdown(std::net::Shutdown::Write).unwrap();
                let _end = connection.read(&mut [0; 1]);
                256.0 / began.elapsed().as_secs_f64()
            };
            let mut rates: Vec<f64> =
                (0..3).map(|_| from.map_or_else(send, |from| within(from, send))).collect();
            rates.sort_by(f64::total_cmp);
            rates[1]
        };
        let space = client.namespace.as_deref();
        eprintln!("MiB/s to a task of another node: {:.0}", rate(space, ([10, 0, 1, 12], 80)));
        eprintln!("by its virtual address: {:.0}", rate(space, (VIRTUAL, 80)));
        eprintln!(
            "by the port of a node without a task: {:.0}",
            rate(None, (data_address(3).octets(), 8080))
        );
        eprintln!("by the port of its own: {:.0}", rate(None, (data_address(2).octets(), 8080)));
        let mut items = told.items(1);
        let service = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let address = format!("10.9.{high}.{low}/16").parse().unwrap();
            Item::Service(ServiceEntry {
                service: ServiceId::of(u128::from(number) + 1000),
                name: format!("s{number}"),
                labels: Labels::new(),
                mode: ResolutionMode::Vip,
                virtual_ips: vec![VirtualIp { network: FRONT, addresses: vec![address] }],
                ports: Vec::new(),
                allowed: None,
            })
        };
        items.extend((0..1000).map(service));
        let took = |items: &[Item]| {
            let began = Instant::now();
            let _problems = nodes[0].on(|networks| networks.apply(&underlay(1), items).unwrap());
            began.elapsed()
        };
        eprintln!("a thousand services are known after {:?}", took(&items));
        for item in &mut items {
            if let Item::Neighbour(it) = item {
                it.traffic = Traffic::Draining;
            }
        }
        eprintln!("three tasks change in {:?}", took(&items));
    });
}

#[test]
fn a_container_leaves_by_its_node_and_with_its_address() {
    alone(|world| {
        let (one, two, told) = two_nodes(world, vec![task("db.1", 1, 11)]);
        one.apply(&told);
        two.apply(&told);
        let db = one.join("db", &[("front", "10.0.1.11")]);
        let mut lan = Links::open().unwrap();
        let bridge = lan.index("lan").unwrap().unwrap();
        lan.address(bridge, Prefix::new([192, 168, 77, 100].into(), 24).unwrap()).unwrap();
        let outside = TcpListener::bind("192.168.77.100:9000").unwrap();
        let seen = reach(Some(&db), ([192, 168, 77, 100].into(), 9000), &outside);
        assert_eq!(seen, Some(data_address(1).into()));
    });
}

#[test]
fn what_somebody_has_changed_is_mended() {
    alone(|world| {
        let (mut one, _two, told, client) = served(world);
        let space = one.world.folder.join("overlays").join(FRONT.to_string());
        let spoil = |arguments: &[&str]| {
            let done = std::process::Command::new("ip").args(arguments).status();
            assert!(done.is_ok_and(|status| status.success()), "{arguments:?}");
        };
        within(&space, || {
            spoil(&["link", "del", "vxlan0"]);
            spoil(&["address", "add", "10.0.1.99/32", "dev", "br0"]);
            spoil(&["address", "del", "10.0.1.2/32", "dev", "br0"]);
            let _flushed = nft(&["flush", "ruleset"]);
        });
        one.start();
        one.apply(&told);
        let both = BTreeMap::from([("web.1 10.0.1.201".to_owned(), 1), ("web.2 10.0.1.201".to_owned(), 1)]);
        assert_eq!(answers(&client, (VIRTUAL, 80), 2), both);
        let addresses = within(&space, || {
            let mut links = Links::open().unwrap();
            let bridge = links.index("br0").unwrap().unwrap();
            links.addresses(bridge).unwrap()
        });
        assert!(!addresses.contains(&"10.0.1.99/32".parse().unwrap()), "{addresses:?}");
        within(&space, || spoil(&["link", "set", "vxlan0", "down"]));
        one.start();
        one.apply(&told);
        assert_eq!(answers(&client, (VIRTUAL, 80), 2), both);
    });
}

#[test]
fn a_published_port_that_another_program_has_is_said_and_the_others_work() {
    alone(|world| {
        let node = Node::new(world, 1);
        let told = Told { nodes: vec![1], ingress: true, ..Told::default() };
        let taken = within(&node.space, || TcpListener::bind("0.0.0.0:8080").unwrap());
        let apply = || node.on(|networks| networks.apply(&underlay(1), &told.items(1)).unwrap());
        let problems: Vec<String> = apply().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 1, "UDP's is free");
        let begins = "the published port 8080/tcp leads nowhere on this node: ";
        assert!(
            problems[0].starts_with(begins) && problems[0].contains("address already in use"),
            "{problems:?}"
        );
        drop(taken);
        assert_eq!(apply(), []);
    });
}
