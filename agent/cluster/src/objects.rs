//! What the store holds. Each object has a [`Meta`], a spec that users write, and a status that they don't.
//!
//! Who may write what: specs are written by users only, status by workers only (through the leader), desired states and
//! allocations by managers only. Task states only move forward. `design/nomenclature.md` defines every term.

pub mod cluster;
pub mod config;
pub mod container;
pub mod decision;
pub mod displacement;
pub mod endpoint;
pub mod given;
pub mod network;
pub mod node;
pub mod resources;
pub mod secret;
pub mod secret_text;
pub mod service;
pub mod task;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use cluster::{Cluster, ClusterSpec};
pub use config::{Config, ConfigSpec};
pub use container::ContainerSpec;
pub use decision::Decision;
pub use endpoint::{Endpoint, EndpointSpec, PortConfig};
pub use given::Given;
pub use network::{Network, NetworkAttachment, NetworkSpec};
pub use node::{Node, NodeSpec};
pub use resources::{GenericResource, Resources};
pub use secret::{Secret, SecretSpec};
pub use secret_text::SecretText;
pub use service::{Service, ServiceMode, ServiceSpec, UpdateConfig};
pub use task::{Task, TaskSpec, TaskState, TaskStatus};

/// Labels and driver options; ordered, so that no decision hangs on a hash.
pub type Labels = BTreeMap<String, String>;

/// The log index at which an object was last written; an update names the one that it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// What every object has. The store writes the version; the times are the proposer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    pub version: Version,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Meta {
    /// Of an object that is proposed at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { version: Version::default(), created_at: now, updated_at: now }
    }
}

/// A driver by name with its options: of a network, a log, a volume, a secret.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Driver {
    pub name: String,
    pub options: Labels,
}

/// Of the options the names alone: passwords of shares and tokens of log servers are among their values.
impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.options.keys().collect();
        f.debug_struct("Driver").field("name", &self.name).field("options", &options).finish()
    }
}
