//! This machine as a node of a cluster: what `ketch-node` reaches outside itself. [`world`] is its clock, its connections and
//! its disk; [`address`] where it is reached; [`api`] sends requests to whoever leads. It decides nothing about the cluster.

pub(crate) mod address;
pub(crate) mod api;
pub mod world;

use std::sync::{Arc, Weak};

use ketch_node::node::{Node, NodeParts};
use ketch_raft::Blocking;

use crate::config::Config;
use crate::daemon::Daemon;
use world::SystemWorld;

/// The node of a daemon, which must be there before anything is asked of it.
pub(crate) fn of(daemon: &Weak<Daemon>, config: &Config) -> Arc<Node> {
    Node::new(NodeParts {
        world: Arc::new(SystemWorld::new(&config.data_root)),
        executor: Arc::new(executor::Tasks::new(daemon.clone())),
        api: Arc::new(api::Forwarded::new(daemon.clone())),
        blocking: Blocking::Threads,
    })
}
