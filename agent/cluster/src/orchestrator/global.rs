//! Global services: one slot on each node that the constraints allow.

use std::collections::BTreeMap;

use super::service_view::{Ground, ServiceView, ground_of};
use super::slot::{Room, Slot};
use super::task::{self, Birth};
use super::update;
use crate::constraint::Constraints;
use crate::id::{NewBits, NodeId};
use crate::objects::node::Availability;
use crate::objects::{Node, Task, TaskState};
use crate::reconciled::Reconciled;

pub(super) fn reconcile(service: &ServiceView<'_>, bits: NewBits<'_>) -> Reconciled {
    let slots = slots_of(service, |_| true);
    let mut wanted = update::roll(service, &slots, bits);
    for slot in slots.iter().filter(|slot| slot.room == Room::Open && slot.newest().is_none()) {
        wanted.create(task::new(service, Birth::first(0, slot.node, TaskState::Running), bits));
    }
    wanted
}

/// A slot for each node that is there or once had a task of the service.
pub(super) fn slots_of<'v>(service: &'v ServiceView<'_>, keep: impl Fn(&Task) -> bool) -> Vec<Slot<'v>> {
    let mut tasks: BTreeMap<NodeId, Vec<&Task>> = BTreeMap::new();
    for node in service.view.nodes() {
        tasks.entry(node.id).or_default();
    }
    for task in service.view.tasks_of(service.service.id).filter(|task| keep(task)) {
        task.node.into_iter().for_each(|node| tasks.entry(node).or_default().push(task));
    }
    // A spec whose constraints can't be read is refused at the door; here it allows no node.
    let constraints = Constraints::parse(&service.service.spec.task.placement.constraints).ok();
    tasks
        .into_iter()
        .map(|(node, tasks)| {
            let room = room_on(service.view.node(node).map(AsRef::as_ref), constraints.as_ref());
            Slot::new(0, Some(node), room, tasks)
        })
        .collect()
}

fn room_on(node: Option<&Node>, constraints: Option<&Constraints>) -> Room {
    let Some(node) = node.filter(|node| ground_of(Some(node)) == Ground::Sound) else { return Room::Closed };
    if node.spec.availability == Availability::Pause {
        return Room::Frozen;
    }
    if constraints.is_some_and(|constraints| constraints.allow(node)) { Room::Open } else { Room::Closed }
}
