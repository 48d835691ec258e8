//! What a node is told of the cluster and of its own place in it.

use std::collections::BTreeSet;

use ketch_ca::root;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::node::CaKeyId;
use ketch_cluster::objects::{Cluster, Node};
use ketch_cluster::store::Store;

use crate::calls::{ManagerAddress, Membership};

/// Those of whom raft has an address, in the order of their ids.
pub(super) fn managers(store: &Store) -> Vec<ManagerAddress> {
    let address =
        |node: &Node| Some(ManagerAddress { node: node.id, address: node.manager.as_ref()?.address.clone() });
    store.managers().filter_map(|node| address(node)).collect()
}

/// What the node is to be; `renewals` are the nodes that are to have a certificate of the next root by now. None while the node
/// or the cluster is not there, or the roots can't be read.
pub(super) fn membership(store: &Store, node: NodeId, renewals: &BTreeSet<NodeId>) -> Option<Membership> {
    let (node, cluster) = (store.node(node)?, store.cluster()?);
    let issuer = issuer(cluster, node, renewals.contains(&node.id));
    let issuer =
        issuer.inspect_err(|error| tracing::warn!(%error, "the cluster's roots can't be read")).ok()?;
    // A manager's certificate is needed to be let into raft, and for as long as raft has the node.
    let role = node.spec.role.max(node.role);
    let raft_id = node.manager.as_ref().map(|place| place.raft_id);
    Some(Membership { role, raft_id, roots: root::trusted(&cluster.root_ca), issuer })
}

/// Which root is to have signed the node's certificate. While the cluster moves to the next one, a node whose turn has not come
/// is to keep what it has.
fn issuer(
    cluster: &Cluster,
    node: &Node,
    is_its_turn: bool,
) -> Result<CaKeyId, ketch_ca::authority::AuthorityError> {
    let own = node.description.as_ref().and_then(|it| it.tls.as_ref()).map(|tls| tls.issuer);
    match (&cluster.root_ca.rotation, own) {
        (Some(rotation), _) if is_its_turn => Ok(root::describe(&rotation.certificate)?.id),
        (Some(_), Some(own)) => Ok(own),
        (Some(_) | None, _) => Ok(root::describe(&cluster.root_ca.certificate)?.id),
    }
}

#[cfg(test)]
mod tests {
    use ketch_ca::rotation;
    use ketch_cluster::objects::Version;
    use ketch_cluster::objects::node::{ManagerStatus, NodeRole, NodeTls};
    use ketch_cluster::store::StoreAction;

    use super::*;
    use crate::fixture::{Hub, Site, objects};
    use crate::world::World;

    const NODE: NodeId = NodeId::of(5);

    fn store(cluster: &Cluster, node: Node) -> Store {
        let mut store = Store::default();
        let create = [StoreAction::Create(cluster.clone().into()), StoreAction::Create(node.into())];
        store.apply(Version(1), &create).unwrap();
        store
    }

    /// With a certificate of that root.
    fn node(issuer: CaKeyId) -> Node {
        let mut node = objects::node(5);
        let tls = NodeTls { issuer, roots: [issuer].into() };
        node.description.as_mut().unwrap().tls = Some(tls);
        node
    }

    fn told(store: &Store, renewals: &[NodeId]) -> Membership {
        membership(store, NODE, &renewals.iter().copied().collect()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_moves_to_the_next_root_when_it_is_its_turn() {
        let hub = Hub::new();
        let (site, cluster) = Site::founder(&hub, "10.0.0.1");
        let old = root::describe(&cluster.root_ca.certificate).unwrap().id;
        let settled = told(&store(&cluster, node(CaKeyId([9; 20]))), &[]);
        assert_eq!((settled.issuer, settled.roots), (old, cluster.root_ca.certificate.clone()));
        let cluster = rotation::begin(&cluster, site.world.now()).unwrap();
        let next = cluster.root_ca.rotation.as_ref().unwrap().certificate.clone();
        let next_id = root::describe(&next).unwrap().id;
        let waiting = told(&store(&cluster, node(old)), &[]);
        assert_eq!(
            waiting.roots,
            format!("{}{next}", cluster.root_ca.certificate),
            "both are trusted at once"
        );
        assert_eq!(waiting.issuer, old);
        assert_eq!(told(&store(&cluster, node(old)), &[NODE]).issuer, next_id);
        assert_eq!(told(&store(&cluster, node(next_id)), &[]).issuer, next_id, "it has moved");
        assert_eq!(told(&store(&cluster, Node { description: None, ..objects::node(5) }), &[]).issuer, old);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_a_manager_as_soon_as_it_is_to_be_one_and_as_long_as_raft_has_it() {
        let hub = Hub::new();
        let (_, cluster) = Site::founder(&hub, "10.0.0.1");
        for (wanted, present, expected) in [
            (NodeRole::Worker, NodeRole::Worker, NodeRole::Worker),
            (NodeRole::Manager, NodeRole::Worker, NodeRole::Manager),
            (NodeRole::Worker, NodeRole::Manager, NodeRole::Manager),
            (NodeRole::Manager, NodeRole::Manager, NodeRole::Manager),
        ] {
            let mut node = node(CaKeyId([9; 20]));
            (node.spec.role, node.role) = (wanted, present);
            let told = told(&store(&cluster, node), &[]);
            assert_eq!((told.role, told.raft_id), (expected, None));
        }
        let place = ManagerStatus { raft_id: 7, address: "10.0.0.5:2377".to_owned() };
        let manager = Node { manager: Some(place), ..node(CaKeyId([9; 20])) };
        assert_eq!(told(&store(&cluster, manager), &[]).raft_id, Some(7));
        assert_eq!(membership(&Store::default(), NODE, &BTreeSet::new()), None);
    }
}
