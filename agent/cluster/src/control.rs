//! What an API request does to the cluster: the [`StoreAction`](crate::store::StoreAction)s that it comes to, or why it is
//! refused, in Docker's words.
//!
//! Pure functions of the store at one moment and of what the caller drew for them: the time and the bits of new ids. The
//! manager calls them for each request, after the agent's conversion has made objects of the API's JSON, and proposes the
//! actions as one transaction. A proposal can still be refused by the store, when another one came first:
//! [`ControlError`] says that in Docker's words too. Nothing here schedules, allocates or starts anything: reconcilers see
//! what was committed. `design/control.md` says which request becomes which actions.

mod cluster;
mod config;
mod error;
mod filter;
mod lookup;
mod network;
mod node;
mod payload;
mod rollback;
mod rotation;
mod secret;
mod service;
mod size;
mod task;
pub mod texts;
mod validate;

pub use cluster::{ClusterUpdate, NewRoot, NewSecrets, Rotate, new_cluster_spec, update_cluster};
pub use config::{create_config, list_configs, remove_config, update_config};
pub use error::{ControlError, ErrorKind};
pub use filter::Filters;
pub use lookup::{find_cluster, find_config, find_network, find_node, find_secret, find_service, find_task};
pub use network::{PREDEFINED_LABEL, create_network, remove_network};
pub use node::{
    Force, NodeRemoval, NodeUpdate, RaftMembers, Reachability, list_nodes, remove_node, update_node,
};
pub use secret::{create_secret, list_secrets, remove_secret, update_secret};
pub use service::{
    RegistryAuth, Rollback, ServiceUpdate, TaskCounts, count_tasks, create_service, list_services,
    remove_service, update_service,
};
pub use size::MAX_TRANSACTION_BYTES;
pub(crate) use size::size_of;
pub use task::{Attachment, attach_network, detach_network, list_tasks};

use crate::objects::Version;

/// A spec that is to take the place of the one that the client has read at `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecUpdate<S> {
    pub version: Version,
    pub spec: S,
}

#[cfg(test)]
mod tests;
