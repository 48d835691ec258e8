//! Where objects are found by something else than their id. Ordered, so that every walk is the same on every manager.

use std::collections::{BTreeMap, BTreeSet};

use super::object::{Object, ObjectId, ObjectKind};
use crate::id::{NodeId, ServiceId, TaskId};

const FIRST: TaskId = TaskId::of(0);
const LAST: TaskId = TaskId::of(u128::MAX);

#[derive(Debug, Clone, Default)]
pub(super) struct Indexes {
    names: BTreeMap<(ObjectKind, String), ObjectId>,
    by_slot: BTreeSet<(ServiceId, u64, TaskId)>,
    by_node: BTreeSet<(NodeId, TaskId)>,
    without_node: BTreeSet<TaskId>,
}

impl Indexes {
    pub(super) fn insert(&mut self, object: &Object) {
        if let Some(name) = object.unique_name() {
            self.names.insert((object.kind(), name.to_owned()), object.id());
        }
        let Object::Task(task) = object else { return };
        if let Some(service) = task.service {
            self.by_slot.insert((service, task.slot, task.id));
        }
        match task.node {
            Some(node) => drop(self.by_node.insert((node, task.id))),
            None if task.status.state.is_terminal() => {}
            None => drop(self.without_node.insert(task.id)),
        }
    }

    pub(super) fn remove(&mut self, object: &Object) {
        if let Some(name) = object.unique_name() {
            self.names.remove(&(object.kind(), name.to_owned()));
        }
        let Object::Task(task) = object else { return };
        if let Some(service) = task.service {
            self.by_slot.remove(&(service, task.slot, task.id));
        }
        if let Some(node) = task.node {
            self.by_node.remove(&(node, task.id));
        }
        self.without_node.remove(&task.id);
    }

    pub(super) fn by_name(&self, kind: ObjectKind, name: &str) -> Option<ObjectId> {
        self.names.get(&(kind, name.to_owned())).copied()
    }

    pub(super) fn of_service(&self, service: ServiceId) -> impl Iterator<Item = TaskId> {
        self.by_slot.range((service, 0, FIRST)..=(service, u64::MAX, LAST)).map(|(_, _, task)| *task)
    }

    pub(super) fn in_slot(&self, service: ServiceId, slot: u64) -> impl Iterator<Item = TaskId> {
        self.by_slot.range((service, slot, FIRST)..=(service, slot, LAST)).map(|(_, _, task)| *task)
    }

    pub(super) fn on_node(&self, node: NodeId) -> impl Iterator<Item = TaskId> {
        self.by_node.range((node, FIRST)..=(node, LAST)).map(|(_, task)| *task)
    }

    pub(super) fn without_node(&self) -> impl Iterator<Item = TaskId> {
        self.without_node.iter().copied()
    }
}
