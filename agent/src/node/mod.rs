//! This machine as a node of a cluster: what `ketch-node` reaches outside itself. [`world`] is its clock, its connections and
//! its disk; [`executor`] runs its tasks by the engine; [`address`] says where it is reached; [`api`] sends requests to whoever
//! leads; [`events`] tells of what happens to the cluster, [`news`] of what a leader decides by itself; [`layers`] shares images' layers with
//! other nodes; [`attaching`] has containers that are no tasks come into networks of the cluster. Nothing here decides about the cluster.

pub(crate) mod address;
pub(crate) mod api;
pub(crate) mod attaching;
mod events;
pub mod executor;
mod layers;
mod news;
pub mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use ketch_node::node::{Node, NodeParts, Picked};
use ketch_raft::Blocking;

use crate::daemon::Daemon;
use executor::EngineExecutor;
use world::SystemWorld;

/// Takes up what this machine is in a cluster.
pub(crate) async fn begin(daemon: &Arc<Daemon>, node: &Arc<Node>) {
    if let Some(picked) = node.picked()
        && let Some(now) = moved(daemon, &picked).await
    {
        tracing::info!(before = picked.advertise, now, "this node has another address");
        if let Err(error) = node.move_worker(now) {
            tracing::warn!(%error, "the node's next address is not kept");
        }
    }
    node.begin();
    drop(tokio::spawn(events::tell(Arc::clone(daemon), Arc::clone(node))));
}

/// The address to be reached at instead of the known one; none while that is right, or no way to a manager says of another one.
async fn moved(daemon: &Arc<Daemon>, picked: &Picked) -> Option<String> {
    let known: SocketAddr = picked.advertise.parse().ok()?;
    let (port, default) = (known.port().to_string(), &daemon.config.swarm_advertise);
    let now = if default.is_empty() {
        let mut ways = Vec::new();
        for manager in &picked.managers {
            ways.extend(address::towards(manager).await);
        }
        address::picked_anew(known.ip(), &ways)?
    } else {
        let machine = address::machine(daemon).await.ok()?;
        let (named, _) = address::advertise(("", default), &port, &machine).ok()?;
        (named != known.ip()).then_some(named)?
    };
    Some(address::joined(&now.to_string(), &port))
}

/// The node of a daemon that has begun.
pub(crate) fn of(daemon: &Arc<Daemon>) -> Arc<Node> {
    Node::new(NodeParts {
        world: Arc::new(SystemWorld::of(daemon)),
        executor: Arc::new(EngineExecutor::new(Arc::clone(daemon))),
        api: Arc::new(api::Forwarded::new(Arc::downgrade(daemon))),
        blocking: Blocking::Threads,
    })
}
