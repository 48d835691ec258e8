//! A machine and its containers, as the model has them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ketch_cluster::id::{NetworkId, ServiceId, TaskId};
use ketch_cluster::objects::node::{EngineDescription, NodeDescription, Platform};
use ketch_cluster::objects::resources::Resources;

use crate::layers::Auth;

/// A slot of a service whose tasks have a fence: at most one runs there, of a job at most one of each iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fenced {
    pub(crate) service: ServiceId,
    pub(crate) iteration: Option<u64>,
    pub(crate) slot: u64,
}

/// A task that runs, its service, its addresses.
pub(crate) type Resident = (TaskId, Option<ServiceId>, BTreeSet<(NetworkId, IpAddr)>);

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) phase: Phase,
    pub(crate) fenced: Option<Fenced>,
    pub(crate) addresses: Vec<(NetworkId, IpAddr)>,
    pub(crate) is_of_job: bool,
    pub(crate) service: Option<ServiceId>,
    pub(crate) image: Option<(u64, Auth)>,
    /// After how long it will end by itself, and with which exit code; none if it runs for ever.
    pub(crate) fate: Option<(Duration, i32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    /// Since that moment of the run.
    Running(Duration),
    Ended(i32),
}

/// All are alike.
pub(crate) fn description(name: &str) -> NodeDescription {
    let plugins = ["bridge", "host", "overlay"].map(|name| ("Network".to_owned(), name.to_owned()));
    NodeDescription {
        hostname: name.to_owned(),
        platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
        resources: Resources { nano_cpus: 8_000_000_000, memory_bytes: 16 << 30, ..Resources::default() },
        engine: EngineDescription {
            version: "sim".to_owned(),
            plugins: plugins.into_iter().collect(),
            ..EngineDescription::default()
        },
        ..NodeDescription::default()
    }
}
