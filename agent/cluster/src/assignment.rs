//! What one node is to have: its tasks with the secrets and configs that they use, and what it must know of the rest of
//! the cluster so that they reach others and are reached.
//!
//! It decides nothing: everything here follows from the view. The dispatcher computes it for a worker's session when
//! something that the node sees has changed, and sends what differs from what the node has ([`Held`]). A node is never
//! given a secret, a config, a network, a key or an address that none of its tasks needs.

mod held;
mod item;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NetworkId, NodeId, ServiceId};
use crate::label::allow::{self, Source};
use crate::objects::endpoint::PublishMode;
use crate::objects::node::NodeState;
use crate::objects::{Network, NetworkAttachment, Node, PortConfig, Service, Task, TaskState};
use crate::store::{ObjectId, ObjectKind};
use crate::view::View;
pub use held::{AssignmentChanges, Base, Held, OutOfStep};
pub use item::{Item, ItemId, Neighbour, NodeNetwork, OwnAddress, Peer, ServiceEntry, Traffic};

/// Everything that a node is to have at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment {
    items: BTreeMap<ItemId, Item>,
}

impl Assignment {
    /// What the node is to have; nothing when there is no such node.
    #[must_use]
    pub fn of(view: &View<'_>, node: NodeId) -> Self {
        let Some(node) = view.node(node) else { return Self::default() };
        let networks = networks_of(view, node);
        let mut it = Self::default();
        it.add_tasks(view, node);
        it.add_networks(view, node, &networks);
        it.add_data_keys(view, node);
        it.add_neighbours(view, &networks);
        it.add_services(view, &networks);
        it.add_peers(view, node, &networks);
        it
    }

    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    fn add(&mut self, item: Item) {
        self.items.insert(item.id(), item);
    }

    /// The node's tasks, the ended ones too: until they are forgotten, so are their containers kept. What a task uses is
    /// needed until it has ended.
    fn add_tasks(&mut self, view: &View<'_>, node: &Node) {
        for task in view.tasks_on(node.id).filter(|task| view.state(task) >= TaskState::Assigned) {
            self.add(Item::Task(task.clone()));
            if may_run(view, task) {
                self.add_files(view, task);
            }
        }
    }

    /// The secrets and configs that a task names.
    fn add_files(&mut self, view: &View<'_>, task: &Task) {
        let Some(container) = task.spec.container() else { return };
        for reference in &container.secrets {
            self.items.extend(view.secret(reference.secret).map(|it| Item::Secret(it.clone()).with_id()));
        }
        for reference in &container.configs {
            self.items.extend(view.config(reference.config).map(|it| Item::Config(it.clone()).with_id()));
        }
    }

    fn add_networks(&mut self, view: &View<'_>, node: &Node, networks: &BTreeSet<NetworkId>) {
        for network in networks.iter().filter_map(|id| view.network(*id)) {
            let own = own_address(node, network);
            self.add(Item::Network(NodeNetwork { network: network.clone(), own }));
        }
    }

    /// The keys of encrypted networks, if a task here is in one: to serve the mesh is not enough, unless that is encrypted.
    fn add_data_keys(&mut self, view: &View<'_>, node: &Node) {
        let of_mesh = node.attachments.iter().map(|it| it.network);
        let of_mesh = of_mesh.filter(|id| view.network(*id).is_some_and(|it| it.is_ingress()));
        let is_encrypted = |id: NetworkId| view.network(id).is_some_and(|it| it.spec.is_encrypted());
        if networks_of_tasks(view, node).chain(of_mesh).any(is_encrypted) {
            self.items.extend(view.cluster().map(|it| Item::DataKeys(it.data_keys.clone()).with_id()));
        }
    }

    /// The tasks, here and elsewhere, that have an address in one of these networks.
    fn add_neighbours(&mut self, view: &View<'_>, networks: &BTreeSet<NetworkId>) {
        let tasks = networks.iter().flat_map(|network| view.tasks_using(*network));
        for task in tasks.filter(|task| may_run(view, task)) {
            let Some(node) = task.node else { continue };
            let attachments = shared(&task.networks, networks);
            if attachments.is_empty() {
                continue;
            }
            self.add(Item::Neighbour(Neighbour {
                task: task.id,
                service: task.service,
                name: task.name.clone(),
                node,
                attachments,
                traffic: traffic_of(view, task, node),
            }));
        }
    }

    /// The services that have an address in one of these networks, or a task there.
    fn add_services(&mut self, view: &View<'_>, networks: &BTreeSet<NetworkId>) {
        let with_tasks: BTreeSet<_> = self.items.values().filter_map(Item::service_of_neighbour).collect();
        // Most nodes of a large cluster are in none, and there may be thousands of services.
        if networks.is_empty() {
            return;
        }
        let in_mesh = networks.iter().any(|id| view.network(*id).is_some_and(|it| it.is_ingress()));
        for service in view.services() {
            let is_seen = has_address_in(service, networks)
                || (in_mesh && service.endpoint.ports.iter().any(is_of_mesh))
                || with_tasks.contains(&service.id);
            if is_seen {
                let allowed = allowed(view, service);
                self.add(Item::Service(ServiceEntry {
                    allowed,
                    ..service_entry(service, networks, in_mesh)
                }));
            }
        }
    }

    /// The other nodes, when this one has a network of the cluster: where to send, and whom to believe.
    fn add_peers(&mut self, view: &View<'_>, node: &Node, networks: &BTreeSet<NetworkId>) {
        let of_cluster = |id: &NetworkId| {
            let network = view.network(*id);
            network.and_then(|it| it.allocation.as_ref()).is_some_and(|it| it.vni.is_some())
        };
        if !networks.iter().any(of_cluster) {
            return;
        }
        for peer in view.peers().filter(|peer| peer.id != node.id) {
            let Some(data_address) = peer.data_address() else { continue };
            let attachments = shared(&peer.attachments, networks);
            self.add(Item::Peer(Peer { node: peer.id, data_address, attachments }));
        }
    }
}

/// Whether the task runs, may come to run, or may not have stopped yet.
fn may_run(view: &View<'_>, task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&view.state(task))
}

/// The networks that a node's tasks are in, and those that it serves itself: the routing mesh's.
fn networks_of(view: &View<'_>, node: &Node) -> BTreeSet<NetworkId> {
    networks_of_tasks(view, node).chain(node.attachments.iter().map(|it| it.network)).collect()
}

fn networks_of_tasks(view: &View<'_>, node: &Node) -> impl Iterator<Item = NetworkId> {
    let tasks = view.tasks_on(node.id).filter(|task| may_run(view, task));
    tasks.flat_map(|task| &task.networks).map(|attachment| attachment.network)
}

/// What a node has of its own in a network that it is in. Every overlay gives it something, or has nothing left.
fn own_address(node: &Node, network: &Network) -> OwnAddress {
    let own = node.attachments.iter().filter(|it| it.network == network.id);
    let addresses: Vec<_> = own.flat_map(|it| it.addresses.iter().copied()).collect();
    if !addresses.is_empty() {
        OwnAddress::Given(addresses)
    } else if network.spec.is_overlay() {
        OwnAddress::Missing
    } else {
        OwnAddress::NotNeeded
    }
}

/// The attachments to these networks that have an address of the cluster.
fn shared(attachments: &[NetworkAttachment], networks: &BTreeSet<NetworkId>) -> Vec<NetworkAttachment> {
    let shared = attachments.iter().filter(|it| !it.addresses.is_empty() && networks.contains(&it.network));
    shared.cloned().collect()
}

/// Whether the balancers may send to a task.
fn traffic_of(view: &View<'_>, task: &Task, node: NodeId) -> Traffic {
    let state = view.state(task);
    let wanted = task.desired_state <= TaskState::Complete;
    match view.node(node).map(|node| node.status.state) {
        None | Some(NodeState::Down | NodeState::Disconnected) => Traffic::None,
        // Assigned is what the log says: this leader has not heard of the task, though it may have run for days. Whether its
        // node has registered says nothing: its words may come later than that.
        _ if wanted && state == TaskState::Assigned => Traffic::Unknown,
        _ if state < TaskState::Running => Traffic::None,
        _ if wanted => Traffic::Serving,
        _ => Traffic::Draining,
    }
}

fn has_address_in(service: &Service, networks: &BTreeSet<NetworkId>) -> bool {
    service.endpoint.virtual_ips.iter().any(|it| networks.contains(&it.network))
}

fn is_of_mesh(port: &PortConfig) -> bool {
    port.publish_mode == PublishMode::Ingress
}

/// `in_mesh`: the node is in the routing mesh's network.
fn service_entry(service: &Service, networks: &BTreeSet<NetworkId>, in_mesh: bool) -> ServiceEntry {
    let endpoint = &service.endpoint;
    let here = endpoint.virtual_ips.iter().filter(|it| networks.contains(&it.network));
    ServiceEntry {
        service: service.id,
        name: service.spec.name.clone(),
        labels: service.spec.labels.clone(),
        mode: endpoint.spec.mode,
        virtual_ips: here.cloned().collect(),
        ports: endpoint.ports.iter().filter(|port| in_mesh && is_of_mesh(port)).cloned().collect(),
        allowed: None,
    }
}

/// By its very name: others are found whatever their letters' case is.
fn service_named(view: &View<'_>, name: &str) -> Option<ServiceId> {
    let Some(ObjectId::Service(id)) = view.by_name(ObjectKind::Service, name) else { return None };
    view.service(id).filter(|service| service.spec.name == name).map(|service| service.id)
}

/// Whom a service's label `ketch.allow` names: of each name, as it is typed, the first service that it can mean.
fn allowed(view: &View<'_>, service: &Service) -> Option<BTreeMap<String, ServiceId>> {
    let allow = allow::in_force(&service.spec.labels)?;
    let named = allow.entries.iter().filter_map(|entry| match &entry.from {
        Source::Anybody => None,
        Source::Service(names) => {
            let first = names.iter().find_map(|name| service_named(view, name))?;
            Some((names.last()?.clone(), first))
        }
    });
    Some(named.collect())
}
