//! Overlay networks with real packets: nodes are network namespaces joined by a bridge, each with a daemon's networks of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::assignment::{Item, Neighbour, NodeNetwork, OwnAddress, Peer, ServiceEntry, Traffic};
use ketch_cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use ketch_cluster::objects::endpoint::{Protocol, PublishMode, ResolutionMode, VirtualIp};
use ketch_cluster::objects::network::{IpamConfig, NetworkAllocation, NetworkSpec};
use ketch_cluster::objects::{Labels, Meta, Network, NetworkAttachment, PortConfig};
use ketch_engine_api::network::{EndpointIpamConfig, EndpointSettings};
use rustix::thread::UnshareFlags;

use super::{Joined, Networks, World, address, alone, ask, listen, nft, reach};
use crate::network::device::Pair;
use crate::network::ipam::Prefix;
use crate::network::link::{Links, mac_of};
use crate::network::namespace;
use crate::network::overlay::Underlay;
use crate::store::Store;

const FRONT: NetworkId = NetworkId::of(1 << 100);
const INGRESS: NetworkId = NetworkId::of(2 << 100);
const WEB: ServiceId = ServiceId::of(7);
const VIRTUAL: [u8; 4] = [10, 0, 1, 2];

/// A machine.
struct Node {
    number: u8,
    space: PathBuf,
    world: World,
    networks: Option<Networks>,
}

/// Runs something on a machine.
fn within<T: Send>(space: &Path, run: impl FnOnce() -> T + Send) -> T {
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

fn data_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, number)
}

impl Node {
    /// A machine with a daemon, in the bridge `lan` of the calling thread's namespace.
    fn new(world: &World, number: u8) -> Self {
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
        node.start();
        node
    }

    /// A daemon that is started, again.
    fn start(&mut self) {
        self.networks = None;
        self.networks = Some(within(&self.space, || self.world.open()));
    }

    fn id(&self) -> NodeId {
        NodeId::of(u128::from(self.number))
    }

    fn on<T: Send>(&self, run: impl FnOnce(&Networks) -> T + Send) -> T {
        within(&self.space, || run(self.networks.as_ref().unwrap()))
    }

    fn apply(&self, cluster: &Told) {
        let underlay = Underlay { node: self.id(), address: data_address(self.number).into(), port: 4789 };
        let problems = self.on(|networks| networks.apply(&underlay, &cluster.items(self.number)).unwrap());
        assert_eq!(problems, []);
    }

    /// A container with addresses in networks.
    fn join(&self, name: &str, networks: &[(&str, &str)]) -> Joined {
        let mut wanted = self.world.wanted(name, networks[0].0, &[]);
        for (network, address) in networks {
            let ipam =
                EndpointIpamConfig { ipv4_address: (*address).to_owned(), ..EndpointIpamConfig::default() };
            let asked = EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() };
            let _none = wanted.endpoints.insert((*network).to_owned(), asked);
        }
        self.on(|networks| networks.join(&wanted).unwrap())
    }
}

/// A task as all nodes are told of it.
#[derive(Clone)]
struct Running {
    name: &'static str,
    node: u8,
    service: Option<ServiceId>,
    addresses: Vec<(NetworkId, [u8; 4])>,
    traffic: Traffic,
}

fn task(name: &'static str, node: u8, last: u8) -> Running {
    Running {
        name,
        node,
        service: name.starts_with("web").then_some(WEB),
        addresses: vec![(FRONT, [10, 0, 1, last])],
        traffic: Traffic::Serving,
    }
}

#[derive(Clone, Default)]
struct Told {
    nodes: Vec<u8>,
    tasks: Vec<Running>,
    ingress: bool,
    labels: Labels,
}

fn network(id: NetworkId, name: &str, (vni, third): (u32, u8)) -> Arc<Network> {
    let pool = IpamConfig { subnet: format!("10.0.{third}.0/24").parse().ok(), ..IpamConfig::default() };
    Arc::new(Network {
        id,
        meta: Meta::default(),
        spec: NetworkSpec { name: name.to_owned(), ingress: id == INGRESS, ..NetworkSpec::default() },
        allocation: Some(NetworkAllocation { vni: Some(vni), pools: vec![pool] }),
        pending_delete: false,
    })
}

fn attached(network: NetworkId, address: [u8; 4], aliases: &[&str]) -> NetworkAttachment {
    let [a, b, c, d] = address;
    NetworkAttachment {
        network,
        addresses: vec![format!("{a}.{b}.{c}.{d}/24").parse().unwrap()],
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        driver_options: Labels::new(),
    }
}

impl Told {
    fn own(&self, node: u8) -> Vec<NetworkAttachment> {
        let mut own = vec![attached(FRONT, [10, 0, 1, 200 + node], &[])];
        if self.ingress {
            own.push(attached(INGRESS, [10, 0, 0, 200 + node], &[]));
        }
        own
    }

    fn items(&self, node: u8) -> Vec<Item> {
        let mut networks = vec![network(FRONT, "front", (4097, 1))];
        if self.ingress {
            networks.push(network(INGRESS, "ingress", (4096, 0)));
        }
        let mut items: Vec<Item> = networks
            .into_iter()
            .map(|network| {
                let own = self.own(node).into_iter().find(|own| own.network == network.id).unwrap();
                Item::Network(NodeNetwork { network, own: OwnAddress::Given(own.addresses) })
            })
            .collect();
        for other in self.nodes.iter().filter(|other| **other != node) {
            let (node, data_address) = (NodeId::of(u128::from(*other)), data_address(*other).into());
            items.push(Item::Peer(Peer { node, data_address, attachments: self.own(*other) }));
        }
        for (number, task) in (1..).zip(&self.tasks) {
            let attachments = task.addresses.iter().map(|(id, address)| attached(*id, *address, &["app"]));
            items.push(Item::Neighbour(Neighbour {
                task: TaskId::of(number),
                service: task.service,
                name: task.name.to_owned(),
                node: NodeId::of(u128::from(task.node)),
                attachments: attachments.collect(),
                traffic: task.traffic,
            }));
        }
        let port = |protocol| PortConfig {
            name: String::new(),
            protocol,
            target_port: 80,
            published_port: 8080,
            publish_mode: PublishMode::Ingress,
        };
        let [a, b, c, d] = VIRTUAL;
        items.push(Item::Service(ServiceEntry {
            service: WEB,
            name: "web".to_owned(),
            labels: self.labels.clone(),
            mode: ResolutionMode::Vip,
            virtual_ips: vec![VirtualIp {
                network: FRONT,
                addresses: vec![format!("{a}.{b}.{c}.{d}/24").parse().unwrap()],
            }],
            ports: if self.ingress { vec![port(Protocol::Tcp), port(Protocol::Udp)] } else { Vec::new() },
        }));
        items
    }
}

/// Answers each connection with its name, for as long as the test.
fn serve(joined: &Joined, name: &'static str) {
    let listener = listen(joined, 80);
    drop(std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            drop(std::thread::spawn(move || {
                let peer = connection.peer_addr().unwrap().ip();
                let mut line = [0; 64];
                while let Ok(1..) = connection.read(&mut line) {
                    if connection.write_all(format!("{name} {peer}\n").as_bytes()).is_err() {
                        return;
                    }
                }
            }));
        }
    }));
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
