//! Networks that span the cluster, as the node is to have them.

use std::sync::Arc;

use ketch_cluster::assignment::Item;
use ketch_node::executor::DataPath;
use tracing::warn;

use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::network::overlay::Underlay;

/// Has the node's overlay networks be what the items say. What keeps one of them from it is told to the log: the tasks that
/// need it say it, too.
pub(super) async fn apply(
    daemon: Arc<Daemon>,
    path: Option<DataPath>,
    items: Vec<Item>,
) -> Result<(), String> {
    let Some(DataPath { node, address, port }) = path else { return Ok(()) };
    let underlay = Underlay { node, address, port };
    let problems = blocking(move || daemon.networks.apply(&underlay, &items)).await;
    for problem in problems.map_err(|error| error.message)? {
        warn!("{problem}");
    }
    Ok(())
}
