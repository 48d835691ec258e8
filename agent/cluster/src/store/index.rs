//! Where objects are found by something else than their id. Ordered, so that every walk is the same on every manager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::addresses::Addresses;
use super::object::{Object, ObjectId, ObjectKind};
use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::label::{depends_on, priority, rebalance};
use crate::objects::task::Gate;
use crate::objects::{Node, Task, TaskState, Version};
use crate::time::Timestamp;

const FIRST: TaskId = TaskId::of(0);
const LAST: TaskId = TaskId::of(u128::MAX);

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Indexes {
    /// In lower case: DNS tells no `Web` from `web`, and neither does Docker.
    names: BTreeMap<(ObjectKind, String), ObjectId>,
    /// Where many tasks are walked again and again they are found without a search for each.
    by_slot: BTreeMap<(ServiceId, u64, TaskId), Arc<Task>>,
    by_node: BTreeMap<(NodeId, TaskId), Arc<Task>>,
    new: BTreeSet<TaskId>,
    /// New ones of a service whose gate is closed; those are not in `new`.
    at_gate: BTreeSet<(ServiceId, TaskId)>,
    /// The services that wait for one of that name, in lower case.
    dependants: BTreeSet<(String, ServiceId)>,
    using: BTreeSet<(NetworkId, TaskId)>,
    /// Services with the label `ketch.priority`.
    prioritised: BTreeSet<(priority::Priority, ServiceId)>,
    /// Services with the label `ketch.rebalance`.
    rebalanced: BTreeSet<ServiceId>,
    /// By when they were.
    displaced: BTreeSet<(Timestamp, TaskId)>,
    superseded: BTreeSet<ObjectId>,
    /// Of ten thousand nodes a few are.
    managers: BTreeSet<NodeId>,
    /// The nodes that others can send to. Each node of a network is told all of them.
    peers: BTreeMap<NodeId, Arc<Node>>,
    pub(super) addresses: Addresses,
    /// With a node and without one. The scheduler walks all of them, again and again: those of one spec are together, slot by slot.
    pending: BTreeMap<(Option<ServiceId>, Version, u64, TaskId), Arc<Task>>,
}

impl Indexes {
    pub(super) fn insert(&mut self, object: &Object) {
        self.addresses.insert(object);
        if let Some(name) = object.unique_name() {
            self.names.insert((object.kind(), name.to_ascii_lowercase()), object.id());
        }
        if object.is_superseded() {
            self.superseded.insert(object.id());
        }
        if let Object::Node(node) = object {
            self.managers.extend(node.manager.as_ref().map(|_| node.id));
            self.peers.extend(node.data_address().map(|_| (node.id, Arc::clone(node))));
        }
        if let Object::Service(service) = object {
            let labels = &service.spec.labels;
            self.dependants.extend(depends_on::names_in(labels).map(|name| (name, service.id)));
            self.prioritised.extend(priority::asked(labels).map(|priority| (priority, service.id)));
            self.rebalanced.extend((rebalance::parse(labels) == Ok(true)).then_some(service.id));
        }
        let Object::Task(task) = object else { return };
        if let Some(service) = task.service {
            self.by_slot.insert((service, task.slot, task.id), Arc::clone(task));
        }
        if task.status.state == TaskState::Pending {
            self.pending.insert(place_of(task), Arc::clone(task));
        }
        self.displaced.extend(task.displaced.as_ref().map(|it| (it.at, task.id)));
        if let Some(node) = task.node {
            self.by_node.insert((node, task.id), Arc::clone(task));
        }
        match (task.status.state, task.gate, task.service) {
            (TaskState::New, Gate::Closed, Some(service)) => {
                self.at_gate.insert((service, task.id));
            }
            (TaskState::New, ..) => {
                self.new.insert(task.id);
            }
            _ => {}
        }
        if !task.status.state.is_terminal() {
            self.using.extend(networks_named_by(task).map(|network| (network, task.id)));
        }
    }

    pub(super) fn remove(&mut self, object: &Object) {
        self.addresses.remove(object);
        if let Some(name) = object.unique_name() {
            self.names.remove(&(object.kind(), name.to_ascii_lowercase()));
        }
        self.superseded.remove(&object.id());
        if let Object::Node(node) = object {
            self.managers.remove(&node.id);
            self.peers.remove(&node.id);
        }
        if let Object::Service(service) = object {
            for name in depends_on::names_in(&service.spec.labels) {
                self.dependants.remove(&(name, service.id));
            }
            if let Some(priority) = priority::asked(&service.spec.labels) {
                self.prioritised.remove(&(priority, service.id));
            }
            self.rebalanced.remove(&service.id);
        }
        let Object::Task(task) = object else { return };
        if let Some(service) = task.service {
            self.by_slot.remove(&(service, task.slot, task.id));
            self.at_gate.remove(&(service, task.id));
        }
        if let Some(node) = task.node {
            self.by_node.remove(&(node, task.id));
        }
        self.new.remove(&task.id);
        if let Some(displaced) = &task.displaced {
            self.displaced.remove(&(displaced.at, task.id));
        }
        for network in networks_named_by(task) {
            self.using.remove(&(network, task.id));
        }
        self.pending.remove(&place_of(task));
    }

    pub(super) fn by_name(&self, kind: ObjectKind, name: &str) -> Option<ObjectId> {
        self.names.get(&(kind, name.to_ascii_lowercase())).copied()
    }

    pub(super) fn managers(&self) -> impl Iterator<Item = NodeId> {
        self.managers.iter().copied()
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.peers.values()
    }

    pub(super) fn of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.by_slot.range((service, 0, FIRST)..=(service, u64::MAX, LAST)).map(|(_, task)| task)
    }

    pub(super) fn in_slot(&self, service: ServiceId, slot: u64) -> impl Iterator<Item = &Arc<Task>> {
        self.by_slot.range((service, slot, FIRST)..=(service, slot, LAST)).map(|(_, task)| task)
    }

    pub(super) fn on_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.by_node.range((node, FIRST)..=(node, LAST)).map(|(_, task)| task)
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.pending.values()
    }

    pub(super) fn new_ones(&self) -> impl Iterator<Item = TaskId> {
        self.new.iter().copied()
    }

    pub(super) fn superseded(&self) -> impl Iterator<Item = ObjectId> {
        self.superseded.iter().copied()
    }

    pub(super) fn at_gate(&self, service: ServiceId) -> impl Iterator<Item = TaskId> {
        self.at_gate.range((service, FIRST)..=(service, LAST)).map(|(_, task)| *task)
    }

    pub(super) fn dependants(&self, name: &str) -> impl Iterator<Item = ServiceId> {
        let name = name.to_ascii_lowercase();
        let first = (name.clone(), ServiceId::of(0));
        self.dependants.range(first..).take_while(move |(of, _)| *of == name).map(|(_, service)| *service)
    }

    pub(super) fn lowest_priority(&self) -> Option<priority::Priority> {
        self.prioritised.first().map(|(priority, _)| *priority)
    }

    pub(super) fn rebalanced(&self) -> impl Iterator<Item = ServiceId> {
        self.rebalanced.iter().copied()
    }

    pub(super) fn displaced_since(&self, moment: Timestamp) -> impl Iterator<Item = TaskId> {
        self.displaced.range((moment, FIRST)..).map(|(_, task)| *task)
    }

    pub(super) fn using(&self, network: NetworkId) -> impl Iterator<Item = TaskId> {
        self.using.range((network, FIRST)..=(network, LAST)).map(|(_, task)| *task)
    }
}

fn place_of(task: &Task) -> (Option<ServiceId>, Version, u64, TaskId) {
    (task.service, task.spec_version, task.slot, task.id)
}

/// What it asks for, and what it has got: the ingress network is in no spec.
fn networks_named_by(task: &Task) -> impl Iterator<Item = NetworkId> {
    let wanted = task.spec.networks.iter().map(|wanted| wanted.target);
    wanted.chain(task.networks.iter().map(|attachment| attachment.network))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn names_that_differ_in_case_alone_are_one() {
        let mut service = fixture::replicated(1, 1);
        service.spec.name = "Web".to_owned();
        let mut indexes = Indexes::default();
        let object = Object::from(service);
        indexes.insert(&object);
        assert_eq!(indexes.by_name(ObjectKind::Service, "wEB"), Some(object.id()));
        indexes.remove(&object);
        assert_eq!(indexes.by_name(ObjectKind::Service, "Web"), None);
    }

    #[test]
    fn a_task_at_its_gate_is_no_new_one_and_its_service_is_known_by_whom_it_waits_for() {
        let mut service = fixture::replicated(1, 1);
        service.spec.labels.insert(depends_on::LABEL.to_owned(), "Db:healthy".to_owned());
        let waiting = Task { gate: Gate::Closed, ..fixture::task(7, &service, 1) };
        let open = Task { gate: Gate::Open, ..waiting.clone() };
        let (id, service) = (service.id, Object::from(service));
        let mut indexes = Indexes::default();
        indexes.insert(&service);
        indexes.insert(&waiting.clone().into());
        let found = |indexes: &Indexes| {
            (
                indexes.new_ones().count(),
                indexes.at_gate(id).count(),
                indexes.dependants("dB").collect::<Vec<_>>(),
            )
        };
        assert_eq!(found(&indexes), (0, 1, vec![id]));
        assert_eq!(indexes.dependants("d").count() + indexes.dependants("dbx").count(), 0);
        indexes.remove(&waiting.into());
        indexes.insert(&open.clone().into());
        assert_eq!(found(&indexes), (1, 0, vec![id]));
        indexes.remove(&service);
        indexes.remove(&open.into());
        assert_eq!(indexes, Indexes::default());
    }
}
