//! What the scheduler knows of each node: what its tasks hold of it, and how it ranks for a service.
//!
//! A table is built from the view for one pass and then follows what the pass places. Everything in a row is a sum over
//! the tasks on the node, entered one by one, so that a table could as well be kept and follow the store's changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::generic::Given;
use crate::id::{NodeId, ServiceId};
use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::node::NodeDescription;
use crate::objects::{GenericResource, Node, PortConfig, Resources, Task, TaskState, TaskStatus};
use crate::view::View;

/// A port of a node's own address.
pub(super) type HostPort = (Protocol, u16);

/// Every node with its row, in the order of their ids.
#[derive(Debug)]
pub(super) struct NodeTable {
    rows: Vec<NodeRow>,
}

impl NodeTable {
    pub(super) fn of(view: &View<'_>) -> Self {
        Self { rows: view.nodes().map(|node| NodeRow::of(view, node)).collect() }
    }

    pub(super) fn rows(&self) -> &[NodeRow] {
        &self.rows
    }

    pub(super) fn find(&self, id: NodeId) -> Option<usize> {
        self.rows.binary_search_by_key(&id, |row| row.node.id).ok()
    }

    /// The row at an index of [`Self::rows`] or from [`Self::find`].
    pub(super) fn row_mut(&mut self, index: usize) -> &mut NodeRow {
        &mut self.rows[index]
    }
}

/// A node and what its tasks hold of it.
#[derive(Debug)]
pub(super) struct NodeRow {
    pub(super) node: Arc<Node>,
    /// Sums of reservations: more than a `u64` holds when tasks lie about what they need.
    nano_cpus: u128,
    memory_bytes: u128,
    generic: Given,
    ports: BTreeSet<HostPort>,
    live: u32,
    of_service: BTreeMap<ServiceId, u32>,
}

impl NodeRow {
    fn of(view: &View<'_>, node: &Arc<Node>) -> Self {
        let mut row = Self {
            node: node.clone(),
            nano_cpus: 0,
            memory_bytes: 0,
            generic: Given::default(),
            ports: BTreeSet::new(),
            live: 0,
            of_service: BTreeMap::new(),
        };
        for task in view.tasks_on(node.id) {
            row.add(task, view.status(task));
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
        }
    }

    fn description(&self) -> Option<&NodeDescription> {
        self.node.description.as_ref()
    }

    /// Whether what is reserved, with this added, is at most what the node has.
    pub(super) fn has_free(&self, wanted: &Resources) -> bool {
        let (cpus, bytes) =
            self.description().map_or((0, 0), |it| (it.resources.nano_cpus, it.resources.memory_bytes));
        // What a task does not ask for can't keep it away, however far over its bounds the node is.
        let fits = |reserved: u128, wanted: u64, all: u64| {
            wanted == 0 || reserved + u128::from(wanted) <= u128::from(all)
        };
        fits(self.nano_cpus, wanted.nano_cpus, cpus) && fits(self.memory_bytes, wanted.memory_bytes, bytes)
    }

    /// Which of its generic resources a task that wants these would get; none when there are not enough.
    pub(super) fn choose_generic(
        &self,
        wanted: &super::generic::GenericWants,
    ) -> Option<Vec<GenericResource>> {
        let all = self.description().map_or(&[][..], |it| &it.resources.generic);
        self.generic.choose(all, wanted)
    }

    pub(super) fn has_free_ports(&self, wanted: &BTreeSet<HostPort>) -> bool {
        self.ports.is_disjoint(wanted)
    }

    /// How many live tasks of the service are here.
    pub(super) fn live_of(&self, service: Option<ServiceId>) -> u32 {
        service.and_then(|service| self.of_service.get(&service)).copied().unwrap_or_default()
    }

    /// Its rank for a task of the service, when so many of them failed here of late.
    pub(super) fn rank(&self, service: Option<ServiceId>, failures: u32) -> Rank {
        let start = service.map_or(0, ServiceId::bits);
        Rank {
            failures: if failures >= TOO_MANY_FAILURES { failures } else { 0 },
            of_service: self.live_of(service),
            live: self.live,
            distance: self.node.id.bits().wrapping_sub(start),
        }
    }
}

/// From so many recent failures of a service on, a node is its last choice.
const TOO_MANY_FAILURES: u32 = 5;

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
