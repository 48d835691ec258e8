//! Networks that span the cluster: where their datagrams leave this node, and what of them the node is to have.

use std::net::IpAddr;
use std::sync::Arc;

use ketch_cluster::assignment::Item;
use ketch_cluster::id::NodeId;

use crate::daemon::Daemon;

/// Where a node's datagrams of overlay networks leave and arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPath {
    /// The node itself.
    pub node: NodeId,
    /// Its data address.
    pub address: IpAddr,
    /// UDP; the cluster's.
    pub port: u16,
}

/// Has the node's overlay networks be what the items say; the error names those that are not.
pub(super) async fn apply(
    daemon: Arc<Daemon>,
    path: Option<DataPath>,
    items: Vec<Item>,
) -> Result<(), String> {
    let names = items.iter().filter_map(|item| match item {
        Item::Network(it) if it.network.spec.is_overlay() => Some(it.network.spec.name.as_str()),
        _ => None,
    });
    let names: Vec<_> = names.filter(|name| daemon.networks.find(name).is_err()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let at = path.map_or_else(|| "no data address".to_owned(), |path| path.address.to_string());
    Err(format!("this node ({at}) does not serve the overlay networks {}", names.join(", ")))
}
