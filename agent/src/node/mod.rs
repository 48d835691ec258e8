//! This machine as a node of a cluster: what `ketch-node` reaches outside itself. [`world`] is its clock, its connections and
//! its disk; [`executor`] runs its tasks by the engine; [`address`] says where it is reached; [`api`] sends requests to whoever
//! leads. Nothing here decides about the cluster.

pub(crate) mod address;
pub(crate) mod api;
pub mod executor;
pub mod world;

use std::sync::Arc;

use ketch_node::node::{Node, NodeParts};
use ketch_raft::Blocking;

use crate::daemon::Daemon;
use executor::EngineExecutor;
use world::SystemWorld;

/// The node of a daemon that has begun.
pub(crate) fn of(daemon: &Arc<Daemon>) -> Arc<Node> {
    Node::new(NodeParts {
        world: Arc::new(SystemWorld::new(&daemon.config.data_root)),
        executor: Arc::new(EngineExecutor::new(Arc::clone(daemon))),
        api: Arc::new(api::Forwarded::new(Arc::downgrade(daemon))),
        blocking: Blocking::Threads,
    })
}
