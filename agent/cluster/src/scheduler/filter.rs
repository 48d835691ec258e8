//! The filters: whether a node may have a task at all, each with the words in which it says that it may not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::generic::GenericWants;
use super::nodes::{HostPort, NodeRow, host_ports};
use super::platform;
use crate::constraint::Constraints;
use crate::id::{NetworkId, ServiceId};
use crate::objects::container::{Mount, MountKind};
use crate::objects::node::{Availability, EngineDescription, NodeState, Platform};
use crate::objects::{Resources, Task};
use crate::view::View;

/// In the order in which they are asked: a node counts under the first that refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    /// The node is ready, and takes new tasks.
    Ready,
    Resources,
    Plugins,
    /// The node's kernel can encrypt: SwarmKit has no such filter, and sends in the clear what its kernel can't encrypt.
    Encryption,
    Constraints,
    Platform,
    HostPorts,
    MaxReplicas,
}

impl Filter {
    pub(super) const ALL: [Self; 8] = [
        Self::Ready,
        Self::Resources,
        Self::Plugins,
        Self::Encryption,
        Self::Constraints,
        Self::Platform,
        Self::HostPorts,
        Self::MaxReplicas,
    ];

    /// Whether it can refuse a task with these wants.
    pub(super) fn applies(self, wants: &Wants) -> bool {
        match self {
            Self::HostPorts => !wants.host_ports.is_empty(),
            Self::MaxReplicas => wants.max_replicas > 0,
            of_node => of_node.applies_to(&wants.of_node),
        }
    }

    /// Whether the node may have a task with these wants, as far as this filter knows.
    pub(super) fn passes(self, wants: &Wants, row: &NodeRow) -> bool {
        match self {
            Self::HostPorts => row.has_free_ports(&wants.host_ports),
            Self::MaxReplicas => u64::from(row.live_of(wants.service)) < wants.max_replicas,
            of_node => of_node.allows(&wants.of_node, row),
        }
    }

    /// Whether its refusal of a row holds until the row is made anew, for all tasks that ask the same of a node: rows only
    /// fill up.
    pub(super) fn lasts(self) -> bool {
        !matches!(self, Self::HostPorts | Self::MaxReplicas)
    }

    /// Whether what is placed on a row may make it refuse. The others say of a row what they have said until it is made anew.
    pub(super) fn fills_up(self) -> bool {
        matches!(self, Self::Resources | Self::HostPorts | Self::MaxReplicas)
    }

    fn applies_to(self, wants: &NodeWants) -> bool {
        match self {
            Self::Ready => true,
            Self::Resources => {
                wants.resources.nano_cpus > 0 || wants.resources.memory_bytes > 0 || !wants.generic.is_empty()
            }
            Self::Plugins => !wants.plugins.is_empty() || wants.log_driver.is_some(),
            Self::Encryption => wants.encryption,
            Self::Constraints => wants.constraints.as_ref().is_none_or(|it| !it.is_empty()),
            Self::Platform => !wants.platforms.is_empty(),
            Self::HostPorts | Self::MaxReplicas => false,
        }
    }

    fn allows(self, wants: &NodeWants, row: &NodeRow) -> bool {
        let description = row.node.description.as_ref();
        match self {
            Self::Ready => {
                row.node.status.state == NodeState::Ready
                    && row.node.spec.availability == Availability::Active
            }
            Self::Resources => {
                row.has_free(&wants.resources)
                    && (wants.generic.is_empty() || row.choose_generic(&wants.generic).is_some())
            }
            Self::Plugins => description.is_none_or(|it| has_plugins(&it.engine, wants)),
            Self::Encryption => description.is_some_and(|it| it.encryption),
            Self::Constraints => wants.constraints.as_ref().is_some_and(|it| it.allow(&row.node)),
            Self::Platform => description.is_some_and(|node| {
                wants.platforms.iter().any(|wanted| platform::runs(&node.platform, wanted))
            }),
            Self::HostPorts | Self::MaxReplicas => true,
        }
    }

    /// Why so many nodes were refused. The words are SwarmKit's, as `docker service ps` shows them.
    pub(super) fn explain(self, nodes: usize) -> String {
        let counted = format!("{nodes} node{}", if nodes == 1 { "" } else { "s" });
        match self {
            Self::Ready => format!("{counted} not available for new tasks"),
            Self::Resources => format!("insufficient resources on {counted}"),
            Self::Plugins => format!("missing plugin on {counted}"),
            Self::Encryption => format!("encrypted networks not supported by the kernel on {counted}"),
            Self::Constraints => format!("scheduling constraints not satisfied on {counted}"),
            Self::Platform => format!("unsupported platform on {counted}"),
            Self::HostPorts => format!("host-mode port already in use on {counted}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// What a task needs, read once for all tasks that need the same.
#[derive(Debug)]
pub(super) struct Wants {
    pub(super) service: Option<ServiceId>,
    pub(super) of_node: Arc<NodeWants>,
    host_ports: BTreeSet<HostPort>,
    max_replicas: u64,
}

/// What many services may ask alike of a node: what is refused by it is remembered, see
/// [`Partition`](super::partition::Partition).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NodeWants {
    resources: Resources,
    pub(super) generic: GenericWants,
    plugins: Vec<Plugin>,
    log_driver: Option<Plugin>,
    encryption: bool,
    /// None when they can't be parsed: `control` lets no such spec in, and if one is here, no node is known to satisfy it.
    constraints: Option<Constraints>,
    platforms: Vec<Platform>,
}

impl Wants {
    pub(super) fn of(view: &View<'_>, task: &Task) -> Self {
        Self {
            service: task.service,
            of_node: Arc::new(NodeWants::of(view, task)),
            host_ports: host_ports(task.endpoint.iter().flat_map(|endpoint| &endpoint.ports)).collect(),
            max_replicas: task.spec.placement.max_replicas_per_node,
        }
    }
}

impl NodeWants {
    fn of(view: &View<'_>, task: &Task) -> Self {
        let networks: Vec<_> = networks_of(task).into_iter().filter_map(|id| view.network(id)).collect();
        let network_plugins =
            networks.iter().map(|network| Plugin::new("Network", network.spec.driver_name()));
        let log_driver = task.log_driver.as_ref().or(task.spec.log_driver.as_ref());
        let reservations = &task.spec.resources.reservations;
        let placement = &task.spec.placement;
        Self {
            resources: reservations.clone(),
            generic: GenericWants::of(&reservations.generic),
            plugins: volume_plugins(task).chain(network_plugins).collect(),
            log_driver: log_driver
                .filter(|driver| !["", "none"].contains(&driver.name.as_str()))
                .map(|driver| Plugin::new("Log", &driver.name)),
            encryption: networks.iter().any(|network| network.spec.is_encrypted()),
            constraints: Constraints::parse(&placement.constraints).ok(),
            platforms: placement.platforms.clone(),
        }
    }

    /// The first filter, of those whose refusals last, that refuses the node.
    pub(super) fn refusal(&self, row: &NodeRow) -> Option<Filter> {
        let lasting = Filter::ALL.into_iter().filter(|filter| filter.lasts());
        lasting.filter(|filter| filter.applies_to(self)).find(|filter| !filter.allows(self, row))
    }
}

/// The networks that a task is in: those it was given an address on, and those its spec names.
pub(super) fn networks_of(task: &Task) -> BTreeSet<NetworkId> {
    let given = task.networks.iter().map(|attachment| attachment.network);
    given.chain(task.spec.networks.iter().map(|attachment| attachment.target)).collect()
}

fn volume_plugins(task: &Task) -> impl Iterator<Item = Plugin> {
    let mounts: &[Mount] = task.spec.container().map_or(&[], |container| &container.mounts);
    mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Volume)
        .filter_map(|mount| mount.volume.driver.as_ref())
        .filter(|driver| !["", "local"].contains(&driver.name.as_str()))
        .map(|driver| Plugin::new("Volume", &driver.name))
}

/// A driver as nodes list it: by its name, or by its name as a plugin's latest version.
#[derive(Debug, PartialEq, Eq)]
struct Plugin {
    bare: (String, String),
    latest: (String, String),
}

impl Plugin {
    fn new(kind: &str, name: &str) -> Self {
        Self { bare: (kind.to_owned(), name.to_owned()), latest: (kind.to_owned(), format!("{name}:latest")) }
    }

    fn is_on(&self, engine: &EngineDescription) -> bool {
        engine.plugins.contains(&self.bare) || engine.plugins.contains(&self.latest)
    }
}

fn has_plugins(engine: &EngineDescription, wants: &NodeWants) -> bool {
    // A node that lists no log driver at all does not say which it has.
    let lists_log_drivers = || engine.plugins.iter().any(|(kind, _)| kind == "Log");
    wants.plugins.iter().all(|plugin| plugin.is_on(engine))
        && wants.log_driver.as_ref().is_none_or(|driver| driver.is_on(engine) || !lists_log_drivers())
}
