//! What the scheduler knows of one node: what its tasks hold of it, and how it ranks for a service.
//!
//! Everything in a row is a sum over the tasks on the node, entered one by one. Which rows there are is the table's matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::generic::{GenericWants, Given};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::node::NodeDescription;
use crate::objects::{GenericResource, Node, PortConfig, Resources, Task, TaskState, TaskStatus};
use crate::view::View;

/// A port of a node's own address.
pub(super) type HostPort = (Protocol, u16);

/// A node and what its tasks hold of it.
#[derive(Debug, Clone)]
pub(super) struct NodeRow {
    pub(super) node: Arc<Node>,
    /// The node's, at hand: of ten thousand nodes a look at each is a way to memory.
    pub(super) id: NodeId,
    nano_cpus_of_all: u64,
    memory_bytes_of_all: u64,
    /// Sums of reservations: more than a `u64` holds when tasks lie about what they need.
    nano_cpus: u128,
    memory_bytes: u128,
    generic: Given,
    ports: BTreeSet<HostPort>,
    live: u32,
    leaving: u32,
    of_service: BTreeMap<ServiceId, u32>,
}

impl NodeRow {
    /// Of a node without any task.
    pub(super) fn empty(node: &Arc<Node>) -> Self {
        let (nano_cpus_of_all, memory_bytes_of_all) = node
            .description
            .as_ref()
            .map_or((0, 0), |it| (it.resources.nano_cpus, it.resources.memory_bytes));
        Self {
            node: node.clone(),
            id: node.id,
            nano_cpus_of_all,
            memory_bytes_of_all,
            nano_cpus: 0,
            memory_bytes: 0,
            generic: Given::default(),
            ports: BTreeSet::new(),
            live: 0,
            leaving: 0,
            of_service: BTreeMap::new(),
        }
    }

    /// What the view says of the node and of the tasks there. Those of them that have failed are added to `failed`.
    pub(super) fn of(view: &View<'_>, node: &Arc<Node>, failed: &mut BTreeSet<(ServiceId, TaskId)>) -> Self {
        let mut row = Self::empty(node);
        for task in view.tasks_on(node.id) {
            let status = view.status(task);
            if has_failed(status) {
                failed.extend(task.service.map(|service| (service, task.id)));
            }
            row.add(task, status);
        }
        row
    }

    /// Counts a task that is on this node. A task that waits for the scheduler has nothing yet, one that has ended no
    /// longer; one that is being shut down still holds what it has, but is not counted among the live ones.
    pub(super) fn add(&mut self, task: &Task, status: &TaskStatus) {
        if status.state < TaskState::Assigned || status.state.is_terminal() {
            return;
        }
        let reservations = &task.spec.resources.reservations;
        self.nano_cpus += u128::from(reservations.nano_cpus);
        self.memory_bytes += u128::from(reservations.memory_bytes);
        self.generic.add(&task.generic_resources);
        let endpoint_ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        self.ports.extend(host_ports(endpoint_ports.chain(&status.ports)));
        if task.desired_state <= TaskState::Complete {
            self.live += 1;
            if let Some(service) = task.service {
                *self.of_service.entry(service).or_default() += 1;
            }
        } else {
            self.leaving += 1;
        }
    }

    fn description(&self) -> Option<&NodeDescription> {
        self.node.description.as_ref()
    }

    /// Whether what is reserved, with this added, is at most what the node has.
    pub(super) fn has_free(&self, wanted: &Resources) -> bool {
        // What a task does not ask for can't keep it away, however far over its bounds the node is.
        let fits = |reserved: u128, wanted: u64, all: u64| {
            wanted == 0 || reserved + u128::from(wanted) <= u128::from(all)
        };
        fits(self.nano_cpus, wanted.nano_cpus, self.nano_cpus_of_all)
            && fits(self.memory_bytes, wanted.memory_bytes, self.memory_bytes_of_all)
    }

    /// What is not reserved of its processors, in billionths, and of its memory, in bytes.
    pub(super) fn free(&self) -> (u128, u128) {
        let (cpus, bytes) = (self.nano_cpus_of_all, self.memory_bytes_of_all);
        (u128::from(cpus).saturating_sub(self.nano_cpus), u128::from(bytes).saturating_sub(self.memory_bytes))
    }

    /// Which of its generic resources a task that wants these would get; none when there are not enough.
    pub(super) fn choose_generic(&self, wanted: &GenericWants) -> Option<Vec<GenericResource>> {
        let all = self.description().map_or(&[][..], |it| &it.resources.generic);
        self.generic.choose(all, wanted)
    }

    pub(super) fn has_free_ports(&self, wanted: &BTreeSet<HostPort>) -> bool {
        self.ports.is_disjoint(wanted)
    }

    pub(super) fn live(&self) -> u32 {
        self.live
    }

    /// Whether some task here is being stopped, and holds its room until then.
    pub(super) fn has_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// How many live tasks of the service are here.
    pub(super) fn live_of(&self, service: Option<ServiceId>) -> u32 {
        service.and_then(|service| self.of_service.get(&service)).copied().unwrap_or_default()
    }

    /// The services that have live tasks here, and how many.
    pub(super) fn services(&self) -> impl Iterator<Item = (ServiceId, u32)> {
        self.of_service.iter().map(|(service, live)| (*service, *live))
    }

    /// Its rank for a task of a service that begins at `start` on the ring, has so many live tasks here, and has failed here so often
    /// of late if that was too often.
    pub(super) fn rank(&self, start: u128, (failures, of_service): (u32, u32)) -> Rank {
        Rank { failures, of_service, live: self.live, distance: self.id.bits().wrapping_sub(start) }
    }
}

/// Whether it ended by itself, and not well.
pub(super) fn has_failed(status: &TaskStatus) -> bool {
    matches!(status.state, TaskState::Failed | TaskState::Rejected)
}

/// Where on the ring of ids a service begins.
pub(super) fn start_of(service: Option<ServiceId>) -> u128 {
    service.map_or(0, ServiceId::bits)
}

/// How little a node suits a service: the least is chosen. No two nodes have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Recent ones of the service, if there are too many; else 0.
    failures: u32,
    of_service: u32,
    live: u32,
    /// The way from the service's id up to the node's on the ring of all ids: each service begins elsewhere, and yet
    /// always at the same place.
    distance: u128,
}

/// The ports on the node itself that these publish; port 0 is chosen by the node and clashes with none.
pub(super) fn host_ports<'p>(ports: impl Iterator<Item = &'p PortConfig>) -> impl Iterator<Item = HostPort> {
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}
