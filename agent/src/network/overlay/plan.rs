//! What a node's networks are to be, decided from all that it is told as of one moment: plain data, without a look at the kernel.
//!
//! Addresses of Ethernet follow from those of IP ([`mac_for`]), so that nobody has to be told them; [`super::services`] says what
//! virtual addresses, names and published ports lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ketch_cluster::assignment::{Item, Neighbour, NodeNetwork, OwnAddress, Peer, ServiceEntry, Traffic};
use ketch_cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use ketch_cluster::objects::cluster::DataKey;
use ketch_cluster::objects::network::Subnet;
use ketch_cluster::objects::{Network, NetworkAttachment};

use super::sealing::Sealing;
use super::services;
use crate::network::dns;
use crate::network::firewall::{Pass, Transport};
use crate::network::ipam::Prefix;
use crate::network::link::{Mac, mac_of};
use crate::network::options::MTU;
use crate::network::relay::Leads;

/// What an outer header takes of a frame's length: Ethernet, IP, UDP, VXLAN.
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;
/// What ESP adds at most to what the others leave: its header, a vector, padding, and what authenticates.
const OVERHEAD_ESP: u32 = 34;
const FRAME: u32 = 1500;
/// The least that IPv6 works with.
const LEAST_MTU: u32 = 1280;
const MOST_MTU: u32 = 65_535;

/// Where a node's datagrams leave and arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The node itself.
    pub node: NodeId,
    /// Its data address; the others' are [`Peer`]s'.
    pub address: IpAddr,
    /// UDP; the cluster's `data_path_port`.
    pub port: u16,
    /// Whether the kernel has ESP.
    pub encrypts: bool,
}

/// Why a network does not do all that it should on this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not served. The scheduler places no tasks of it here.
    #[error(
        "the network {0} is encrypted, and this node can't encrypt: it is not served, as nothing of it may travel in plain text"
    )]
    Encrypted(String),
    /// It is not served.
    #[error("the network {0} has no VXLAN identifier yet")]
    Unallocated(String),
    /// Its tasks reach others and are reached; virtual addresses and published ports lead nowhere.
    #[error(
        "the network {0} has no address for this node: it forwards nothing for virtual addresses and published ports"
    )]
    NoOwnAddress(String),
    /// What is there is not reached from here.
    #[error("the data address {1} of the node {0} is of another family than this node's")]
    OtherFamily(NodeId, IpAddr),
    /// Another has it on this node.
    #[error("the published port {0} leads nowhere on this node: {1}")]
    Port(String, String),
    /// The others of the mesh are served.
    #[error("published ports with the label ketch.publish.proxy lead nowhere on this node: {0}")]
    Relay(String),
    /// Ports that are to be narrowed are not published.
    #[error("published ports that are not for everybody lead nowhere on this node: {0}")]
    Narrowing(String),
    /// The kernel's word of a task's container.
    #[error("the ports of the container {0} can't be closed or opened: {1}")]
    Ports(String, String),
    /// The kernel's word.
    #[error("the network {0}: {1}")]
    Failed(String, String),
}

/// All that a node's overlay networks are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct Plan {
    /// By id, as the API has it.
    pub(in crate::network) networks: BTreeMap<String, Overlay>,
    /// Known by name and id, but not served.
    pub(in crate::network) refused: BTreeMap<String, Problem>,
    pub(in crate::network) names: BTreeMap<String, dns::Told>,
    /// The only sources of datagrams that are believed.
    pub(in crate::network) peers: BTreeSet<IpAddr>,
    /// What travels encrypted.
    pub(in crate::network) sealing: Sealing,
    /// The routing mesh, by published port.
    pub(in crate::network) mesh: BTreeMap<(Transport, u16), MeshPort>,
    /// Everything that keeps a network from doing all that it should.
    pub(in crate::network) problems: Vec<Problem>,
}

/// A network as it is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) struct Overlay {
    pub(in crate::network) name: String,
    pub(in crate::network) vni: u32,
    pub(in crate::network) mtu: u32,
    pub(in crate::network) encrypted: bool,
    /// The routing mesh's.
    pub(in crate::network) ingress: bool,
    /// The node's own addresses; none: it forwards nothing.
    pub(in crate::network) own: Vec<Prefix>,
    /// Whom it answers for: those who are on other nodes.
    pub(in crate::network) neighbours: BTreeMap<IpAddr, Mac>,
    /// To which node a frame goes.
    pub(in crate::network) forwarding: BTreeMap<Mac, IpAddr>,
    /// Virtual addresses, with where new connections go.
    pub(in crate::network) balanced: BTreeMap<IpAddr, Vec<IpAddr>>,
    /// For whom virtual addresses are that are not for everybody.
    pub(in crate::network) passes: BTreeMap<IpAddr, Vec<Pass>>,
    /// Of the routing mesh's network: published ports, with where new connections go.
    pub(in crate::network) ports: BTreeMap<(Transport, u16), Vec<SocketAddr>>,
    /// Whose connections go on: of the first all, of the others those that are there, but for datagrams.
    pub(in crate::network) serving: BTreeSet<IpAddr>,
    pub(in crate::network) draining: BTreeSet<IpAddr>,
}

/// What a published port of the routing mesh leads to from this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct MeshPort {
    /// Tasks of this node, by their addresses in the bridge to the host: the client's source is kept.
    pub(in crate::network) here: Vec<SocketAddr>,
    /// How many further ones the mesh's network has.
    pub(in crate::network) elsewhere: usize,
    /// Tasks of this node whose streams go on.
    pub(in crate::network) draining: BTreeSet<IpAddr>,
    /// Its tasks are told the client's address: no rule leads there, the relay does.
    pub(in crate::network) relayed: Option<Leads>,
}

/// What is known of a task's traffic; of none that is [`Traffic::Unknown`].
pub(in crate::network) type Known = BTreeMap<TaskId, Traffic>;

/// Addresses in overlay networks that sandboxes of this node have, by network, each with the sandbox's address in the bridge to the
/// host.
pub(in crate::network) type Locals = BTreeMap<(NetworkId, IpAddr), Option<Ipv4Addr>>;

/// What a node is told, by kind.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) networks: Vec<&'a NodeNetwork>,
    pub(super) neighbours: Vec<(&'a Neighbour, Traffic)>,
    pub(super) services: Vec<&'a ServiceEntry>,
    pub(super) peers: BTreeMap<NodeId, &'a Peer>,
    keys: &'a [DataKey],
    /// The places of each service's tasks among the neighbours.
    of_services: BTreeMap<ServiceId, Vec<usize>>,
    by_name: BTreeMap<&'a str, ServiceId>,
}

impl<'a> Told<'a> {
    pub(super) fn of(items: &'a [Item], known: &Known) -> Self {
        let mut told = Self::default();
        for item in items {
            match item {
                Item::Network(network) if network.network.spec.is_overlay() => told.networks.push(network),
                Item::Neighbour(neighbour) => {
                    told.neighbours.push((neighbour, resolved(neighbour, known)));
                }
                Item::Service(service) => {
                    told.services.push(service);
                    let _none = told.by_name.insert(&service.name, service.service);
                }
                Item::Peer(peer) => {
                    let _none = told.peers.insert(peer.node, peer);
                }
                Item::DataKeys(keys) => told.keys = keys,
                Item::Network(_) | Item::Task(_) | Item::Secret(_) | Item::Config(_) => {}
            }
        }
        told.neighbours.sort_by_key(|(neighbour, _)| neighbour.task);
        told.services.sort_by_key(|service| service.service);
        for (place, (neighbour, _)) in told.neighbours.iter().enumerate() {
            if let Some(service) = neighbour.service {
                told.of_services.entry(service).or_default().push(place);
            }
        }
        told
    }

    /// A task's service, as it is now.
    pub(super) fn service_of(&self, task: TaskId) -> Option<&'a ServiceEntry> {
        let place = self.neighbours.binary_search_by_key(&task, |(neighbour, _)| neighbour.task).ok()?;
        let service = self.neighbours.get(place)?.0.service?;
        let place = self.services.binary_search_by_key(&service, |entry| entry.service).ok()?;
        self.services.get(place).copied()
    }

    /// The tasks of a service.
    pub(super) fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = TaskId> {
        let places = self.of_services.get(&service).into_iter().flatten();
        places.filter_map(|place| self.neighbours.get(*place)).map(|(neighbour, _)| neighbour.task)
    }

    /// The service of a name.
    pub(super) fn named(&self, name: &str) -> Option<ServiceId> {
        self.by_name.get(name).copied()
    }

    /// Whether it is the routing mesh's network.
    pub(super) fn is_ingress(&self, network: NetworkId) -> bool {
        self.networks.iter().any(|it| it.network.id == network && it.network.is_ingress())
    }

    /// The tasks that have an address in a network, with what they have there.
    pub(super) fn in_network(&self, network: NetworkId) -> impl Iterator<Item = InNetwork<'a>> {
        self.neighbours.iter().filter_map(move |neighbour| in_network(neighbour, network))
    }

    /// Those of one service.
    pub(super) fn of_service(
        &self,
        service: ServiceId,
        network: NetworkId,
    ) -> impl Iterator<Item = InNetwork<'a>> {
        let places = self.of_services.get(&service).into_iter().flatten();
        places.filter_map(move |place| in_network(self.neighbours.get(*place)?, network))
    }
}

/// A task that has an address in a network, with what it has there.
pub(super) type InNetwork<'a> = (&'a Neighbour, Traffic, &'a NetworkAttachment);

fn in_network<'a>(
    (neighbour, traffic): &(&'a Neighbour, Traffic),
    network: NetworkId,
) -> Option<InNetwork<'a>> {
    Some((neighbour, *traffic, attachment(&neighbour.attachments, network)?))
}

/// What a leader that has not heard of a task says of it leaves what this node knew.
fn resolved(neighbour: &Neighbour, known: &Known) -> Traffic {
    match neighbour.traffic {
        Traffic::Unknown => known.get(&neighbour.task).copied().unwrap_or(Traffic::None),
        told => told,
    }
}

fn attachment(list: &[NetworkAttachment], network: NetworkId) -> Option<&NetworkAttachment> {
    list.iter().find(|it| it.network == network)
}

/// What is known after these items.
pub(in crate::network) fn known(items: &[Item], before: &Known) -> Known {
    let neighbours = items.iter().filter_map(|item| match item {
        Item::Neighbour(neighbour) => Some((neighbour.task, resolved(neighbour, before))),
        _ => None,
    });
    neighbours.filter(|(_, traffic)| *traffic != Traffic::None).collect()
}

/// What the networks are to be.
pub(in crate::network) fn plan(underlay: &Underlay, items: &[Item], known: &Known, locals: &Locals) -> Plan {
    let told = Told::of(items, known);
    let mut plan = Plan::default();
    for peer in told.peers.values() {
        if peer.data_address.is_ipv4() == underlay.address.is_ipv4() {
            let _new = plan.peers.insert(peer.data_address);
        } else {
            plan.problems.push(Problem::OtherFamily(peer.node, peer.data_address));
        }
    }
    for node_network in &told.networks {
        let id = node_network.network.id.to_string();
        match overlay(underlay, node_network) {
            Ok(mut overlay) => {
                if overlay.own.is_empty() {
                    plan.problems.push(Problem::NoOwnAddress(overlay.name.clone()));
                }
                overlay.meet(underlay, &told, node_network.network.id);
                if overlay.encrypted {
                    let _new = plan.sealing.networks.insert(overlay.vni);
                    plan.sealing.peers.extend(overlay.forwarding.values());
                    plan.sealing.keys = told.keys.to_vec();
                }
                services::balance(&mut overlay, &told, (underlay, node_network.network.id, locals));
                if overlay.ingress {
                    plan.mesh = services::mesh(&told, (underlay, node_network.network.id, locals));
                } else {
                    let names = services::names(&told, node_network.network.id);
                    let _none = plan.names.insert(id.clone(), names);
                }
                let _none = plan.networks.insert(id, overlay);
            }
            Err(problem) => {
                plan.problems.push(problem.clone());
                let _none = plan.refused.insert(id, problem);
            }
        }
    }
    plan
}

fn overlay(underlay: &Underlay, node_network: &NodeNetwork) -> Result<Overlay, Problem> {
    let Network { spec, allocation, .. } = &*node_network.network;
    let name = || spec.name.clone();
    if spec.is_encrypted() && !underlay.encrypts {
        return Err(Problem::Encrypted(name()));
    }
    let vni = allocation.as_ref().and_then(|allocation| allocation.vni);
    let vni = vni.ok_or_else(|| Problem::Unallocated(name()))?;
    let own = match &node_network.own {
        OwnAddress::Given(own) => own.iter().filter_map(|own| prefix(*own)).collect(),
        OwnAddress::NotNeeded | OwnAddress::Missing => Vec::new(),
    };
    Ok(Overlay {
        name: name(),
        vni,
        mtu: mtu(underlay, &node_network.network),
        encrypted: spec.is_encrypted(),
        ingress: node_network.network.is_ingress(),
        own,
        neighbours: BTreeMap::new(),
        forwarding: BTreeMap::new(),
        balanced: BTreeMap::new(),
        passes: BTreeMap::new(),
        ports: BTreeMap::new(),
        serving: BTreeSet::new(),
        draining: BTreeSet::new(),
    })
}

/// What the user set, or what an Ethernet frame leaves.
pub(in crate::network) fn mtu(underlay: &Underlay, network: &Network) -> u32 {
    let set = network.spec.driver.options.get(MTU).and_then(|text| text.parse().ok());
    let overhead = if underlay.address.is_ipv4() { OVERHEAD_IPV4 } else { OVERHEAD_IPV6 };
    let overhead = if network.spec.is_encrypted() { overhead + OVERHEAD_ESP } else { overhead };
    set.filter(|set| (LEAST_MTU..=MOST_MTU).contains(set)).unwrap_or(FRAME - overhead)
}

impl Overlay {
    /// Those on other nodes: tasks, and the nodes themselves.
    fn meet(&mut self, underlay: &Underlay, told: &Told<'_>, network: NetworkId) {
        let reachable = |node: NodeId| {
            let peer = told.peers.get(&node).filter(|_| node != underlay.node)?;
            Some(peer.data_address).filter(|address| address.is_ipv4() == underlay.address.is_ipv4())
        };
        for (neighbour, _, attachment) in told.in_network(network) {
            if let Some(remote) = reachable(neighbour.node) {
                self.add(&attachment.addresses, remote);
            }
        }
        for peer in told.peers.values() {
            if let (Some(own), Some(remote)) = (attachment(&peer.attachments, network), reachable(peer.node))
            {
                self.add(&own.addresses, remote);
            }
        }
    }

    fn add(&mut self, addresses: &[Subnet], remote: IpAddr) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|one| one.address).collect();
        let Some(mac) = mac_for(&addresses) else { return };
        let _before = self.forwarding.insert(mac, remote);
        self.neighbours.extend(addresses.into_iter().map(|address| (address, mac)));
    }
}

/// An address of the cluster's as one of the node's networks.
pub(in crate::network) fn prefix(subnet: Subnet) -> Option<Prefix> {
    Prefix::new(subnet.address, subnet.prefix)
}

/// The Ethernet address of whoever has these: the first IPv4 address tells it, else the end of an IPv6 address.
pub(in crate::network) fn mac_for(addresses: &[IpAddr]) -> Option<Mac> {
    let ipv4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let ipv6 = || match addresses.first()? {
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        IpAddr::V4(_) => None,
    };
    ipv4.or_else(ipv6).map(mac_of)
}
