//! A cluster's first transaction: itself, its first manager, and the networks that every one has.

use ketch_cluster::control::PREDEFINED_LABEL;
use ketch_cluster::id::NetworkId;
use ketch_cluster::objects::node::{ManagerStatus, NodeRole, NodeState};
use ketch_cluster::objects::{Cluster, Driver, Labels, Meta, Network, NetworkSpec, Node};
use ketch_cluster::store::{Object, StoreAction};
use ketch_cluster::time::Timestamp;

use super::ManagerParts;

/// As `docker swarm init` leaves them.
pub(super) fn first_objects(cluster: Cluster, node: Node, parts: &ManagerParts) -> Vec<StoreAction> {
    let now = parts.world.now();
    let network = |spec: NetworkSpec| -> Object {
        let id = NetworkId::of(parts.world.bits());
        Network { id, meta: Meta::new(now), spec, allocation: None, pending_delete: false }.into()
    };
    let networks = [network(ingress()), network(predefined("host")), network(predefined("bridge"))];
    let objects = [cluster.into(), manager(node, parts, now).into()].into_iter().chain(networks);
    objects.map(StoreAction::Create).collect()
}

fn manager(mut node: Node, parts: &ManagerParts, now: Timestamp) -> Node {
    node.spec.role = NodeRole::Manager;
    node.role = NodeRole::Manager;
    node.manager = Some(ManagerStatus { raft_id: parts.me.raft_id, address: parts.me.address.clone() });
    node.status.state = NodeState::Ready;
    node.status.since = now;
    node
}

/// The network of the routing mesh. Its subnet is the allocator's first.
fn ingress() -> NetworkSpec {
    NetworkSpec { name: "ingress".to_owned(), ingress: true, ..NetworkSpec::default() }
}

/// A network of each node's own that services may name.
fn predefined(name: &str) -> NetworkSpec {
    NetworkSpec {
        name: name.to_owned(),
        labels: Labels::from([(PREDEFINED_LABEL.to_owned(), "true".to_owned())]),
        driver: Driver { name: name.to_owned(), options: Labels::new() },
        ..NetworkSpec::default()
    }
}
