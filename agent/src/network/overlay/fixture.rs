//! A small cluster as its nodes are told of it, for tests: two networks, one service.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ketch_cluster::assignment::{Item, Neighbour, NodeNetwork, OwnAddress, Peer, ServiceEntry, Traffic};
use ketch_cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use ketch_cluster::objects::cluster::{DataKey, SecretBytes};
use ketch_cluster::objects::endpoint::{Protocol, PublishMode, ResolutionMode, VirtualIp};
use ketch_cluster::objects::network::{IpamConfig, NetworkAllocation, NetworkSpec, Subnet};
use ketch_cluster::objects::{Labels, Meta, Network, NetworkAttachment, PortConfig};
use ketch_cluster::time::Timestamp;

use super::Underlay;
use crate::network::can_encrypt;

pub(in crate::network) const FRONT: NetworkId = NetworkId::of(1 << 100);
pub(in crate::network) const INGRESS: NetworkId = NetworkId::of(2 << 100);
pub(in crate::network) const WEB: ServiceId = ServiceId::of(7);
pub(in crate::network) const VIRTUAL: [u8; 4] = [10, 0, 1, 2];

pub(in crate::network) fn data_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, number)
}

/// How a node sends.
pub(in crate::network) fn underlay(number: u8) -> Underlay {
    Underlay {
        node: NodeId::of(u128::from(number)),
        address: data_address(number).into(),
        port: 4789,
        encrypts: can_encrypt(),
    }
}

/// A task as all nodes are told of it.
#[derive(Clone)]
pub(in crate::network) struct Running {
    pub(in crate::network) name: &'static str,
    pub(in crate::network) node: u8,
    pub(in crate::network) service: Option<ServiceId>,
    pub(in crate::network) addresses: Vec<(NetworkId, [u8; 4])>,
    pub(in crate::network) traffic: Traffic,
}

pub(in crate::network) fn task(name: &'static str, node: u8, last: u8) -> Running {
    Running {
        name,
        node,
        service: name.starts_with("web").then_some(WEB),
        addresses: vec![(FRONT, [10, 0, 1, last])],
        traffic: Traffic::Serving,
    }
}

#[derive(Clone, Default)]
pub(in crate::network) struct Told {
    pub(in crate::network) nodes: Vec<u8>,
    pub(in crate::network) tasks: Vec<Running>,
    pub(in crate::network) ingress: bool,
    /// The network `front` has IPv6 too.
    pub(in crate::network) ipv6: bool,
    pub(in crate::network) labels: Labels,
    /// Of the network `front`, if it is encrypted: the generations of keys that there are.
    pub(in crate::network) keys: Vec<u64>,
}

pub(in crate::network) fn network(id: NetworkId, name: &str, (vni, third): (u32, u8)) -> Arc<Network> {
    let pool = IpamConfig { subnet: format!("10.0.{third}.0/24").parse().ok(), ..IpamConfig::default() };
    Arc::new(Network {
        id,
        meta: Meta::default(),
        spec: NetworkSpec { name: name.to_owned(), ingress: id == INGRESS, ..NetworkSpec::default() },
        allocation: Some(NetworkAllocation { vni: Some(vni), pools: vec![pool] }),
        pending_delete: false,
    })
}

pub(in crate::network) fn attached(
    network: NetworkId,
    address: [u8; 4],
    aliases: &[&str],
) -> NetworkAttachment {
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

    pub(in crate::network) fn items(&self, node: u8) -> Vec<Item> {
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
            let attachments = task.addresses.iter().map(|(id, address)| {
                attached(*id, *address, if task.service.is_some() { &["app"] } else { &[] })
            });
            items.push(Item::Neighbour(Neighbour {
                task: TaskId::of(number),
                service: task.service,
                name: task.name.into(),
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
            allowed: None,
        }));
        if self.ipv6 {
            items.iter_mut().for_each(add_ipv6);
        }
        if !self.keys.is_empty() {
            items.iter_mut().for_each(encrypt);
            items.push(Item::DataKeys(self.keys.iter().copied().map(data_key).collect()));
        }
        items
    }
}

/// Of this generation.
pub(in crate::network) fn data_key(generation: u64) -> DataKey {
    let secret = SecretBytes(vec![generation.to_be_bytes()[7]; 32]);
    DataKey { generation, made_at: Timestamp(0), secret }
}

pub(in crate::network) fn encrypt(item: &mut Item) {
    if let Item::Network(it) = item
        && it.network.id == FRONT
    {
        let options = &mut Arc::make_mut(&mut it.network).spec.driver.options;
        let _none = options.insert("encrypted".to_owned(), String::new());
    }
}

/// Whoever has 10.0.1.x has fd00:1::x.
fn add_ipv6(item: &mut Item) {
    let add = |addresses: &mut Vec<Subnet>| {
        let more = addresses.iter().filter_map(|one| match one.address {
            IpAddr::V4(address) if address.octets()[2] == 1 => {
                format!("fd00:1::{}/64", address.octets()[3]).parse().ok()
            }
            _ => None,
        });
        let more: Vec<Subnet> = more.collect();
        addresses.extend(more);
    };
    match item {
        Item::Network(it) if it.network.id == FRONT => {
            let pool = IpamConfig { subnet: "fd00:1::/64".parse().ok(), ..IpamConfig::default() };
            if let Some(allocation) = &mut Arc::make_mut(&mut it.network).allocation {
                allocation.pools.push(pool);
            }
            if let OwnAddress::Given(own) = &mut it.own {
                add(own);
            }
        }
        Item::Neighbour(it) => it.attachments.iter_mut().for_each(|one| add(&mut one.addresses)),
        Item::Peer(it) => it.attachments.iter_mut().for_each(|one| add(&mut one.addresses)),
        Item::Service(it) => it.virtual_ips.iter_mut().for_each(|one| add(&mut one.addresses)),
        _ => {}
    }
}
