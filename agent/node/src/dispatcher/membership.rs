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
    store.nodes().filter_map(|node| address(node)).collect()
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
    Some(Membership { role, roots: root::trusted(&cluster.root_ca), issuer })
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
