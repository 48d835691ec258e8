//! One slot of a service (of a global one: a node), with the tasks that are and were in it.
//!
//! [`settle`] keeps a slot filled: it replaces what ended or lost its node, starts what has waited long enough, and stops
//! what is superseded. What an update wants beyond that is `update.rs`'s.

use std::collections::BTreeMap;

use super::dirty::is_dirty;
use super::restart::{self, Start, Verdict};
use super::service_view::{Ground, ServiceView};
use super::task::{self, Birth};
use crate::id::{NewBits, NodeId, TaskId};
use crate::objects::decision::Cause;
use crate::objects::service::UpdateOrder;
use crate::objects::{Task, TaskState};
use crate::reconciled::Reconciled;

pub(super) struct Slot<'v> {
    pub(super) number: u64,
    /// Of a global service.
    pub(super) node: Option<NodeId>,
    pub(super) room: Room,
    /// The oldest first. Those that are to be removed are left out: they have no say any more.
    tasks: Vec<&'v Task>,
}

/// What may be done in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Open,
    /// What is there stays, nothing new comes: a paused node.
    Frozen,
    /// Nothing may be there.
    Closed,
}

impl<'v> Slot<'v> {
    pub(super) fn new(number: u64, node: Option<NodeId>, room: Room, mut tasks: Vec<&'v Task>) -> Self {
        tasks.retain(|task| task.desired_state < TaskState::Remove);
        tasks.sort_by_key(|task| age(task));
        Self { number, node, room, tasks }
    }

    /// The slots of a service that is not bound to nodes, by their numbers: those with a task that is not to be removed.
    pub(super) fn numbered(service: &'v ServiceView<'_>, keep: impl Fn(&Task) -> bool) -> Vec<Self> {
        let mut tasks: BTreeMap<u64, Vec<&Task>> = BTreeMap::new();
        for task in service.view.tasks_of(service.service.id) {
            if task.desired_state < TaskState::Remove && keep(task) {
                tasks.entry(task.slot).or_default().push(task);
            }
        }
        tasks.into_iter().map(|(number, tasks)| Self::new(number, None, Room::Open, tasks)).collect()
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = &'v Task> + '_ {
        self.tasks.iter().copied()
    }

    /// The tasks that are wanted.
    pub(super) fn wanted<'s>(&'s self, service: &'s ServiceView<'_>) -> impl Iterator<Item = &'v Task> + 's {
        self.tasks().filter(|task| service.is_wanted(task))
    }

    /// Whether some wanted task serves.
    pub(super) fn runs(&self, service: &ServiceView<'_>) -> bool {
        self.wanted(service).any(|task| service.state(task) == TaskState::Running && service.stays(task))
    }

    pub(super) fn newest(&self) -> Option<&'v Task> {
        self.tasks.last().copied()
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &'v Task> + '_ {
        self.tasks.iter().rev().copied()
    }

    /// The task of the present spec that the slot is for: it stays, and of several the one that runs.
    pub(super) fn keeper(&self, service: &ServiceView<'_>) -> Option<&'v Task> {
        self.best(service, |task| !is_dirty(service, task))
    }

    /// The task whose end or replacement decides how the slot goes on. An older one that still stays is it only while no
    /// task of the present spec was ever tried: otherwise how that one ended counts.
    pub(super) fn head(&self, service: &ServiceView<'_>) -> Option<&'v Task> {
        self.keeper(service).or_else(|| {
            let newest = self.newest()?;
            if !is_dirty(service, newest) {
                return Some(newest);
            }
            self.best(service, |_| true).or(Some(newest))
        })
    }

    /// Whether nothing of the present spec is or was the last to be tried here: the update's to change.
    pub(super) fn is_behind(&self, service: &ServiceView<'_>) -> bool {
        self.room == Room::Open
            && self.keeper(service).is_none()
            && self.newest().is_some_and(|newest| is_dirty(service, newest))
    }

    /// Whether its head is over, and its restart policy allows no other.
    pub(super) fn is_given_up(&self, service: &ServiceView<'_>) -> bool {
        self.head(service).is_some_and(|head| {
            !service.stays(head) && restart::verdict(service, self, head) == Verdict::GiveUp
        })
    }

    fn best(&self, service: &ServiceView<'_>, fits: impl Fn(&Task) -> bool) -> Option<&'v Task> {
        self.tasks().filter(|task| service.stays(task) && fits(task)).max_by_key(|task| {
            (service.state(task) == TaskState::Running, task.desired_state == service.goal(), age(task))
        })
    }
}

/// The order of a slot's tasks: by the time at which they were made; `task::new` makes each newer than the last.
fn age(task: &Task) -> (crate::time::Timestamp, TaskId) {
    (task.meta.created_at, task.id)
}

/// Those with the most to lose first: kept before others when there are too many.
pub(super) fn by_worth(service: &ServiceView<'_>, slots: &mut Vec<Slot<'_>>) {
    slots.sort_by_key(|slot| (service_of(service, slot), slot.number));
    let mut copies: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut ranks: BTreeMap<u64, u64> = BTreeMap::new();
    for slot in &*slots {
        let rank = sole_node(service, slot).map(|node| {
            let copy = copies.entry(node).or_default();
            *copy += 1;
            *copy
        });
        ranks.insert(slot.number, rank.unwrap_or(u64::MAX));
    }
    slots.sort_by_key(|slot| ranks.get(&slot.number).copied());
}

/// How well a slot serves, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Serves {
    Now,
    /// This leader has not been told. The oldest first: it has had the most time to come to run.
    Perhaps(crate::time::Timestamp),
    No,
}

fn service_of(service: &ServiceView<'_>, slot: &Slot<'_>) -> Serves {
    if slot.runs(service) {
        return Serves::Now;
    }
    let untold = slot.wanted(service).filter(|task| service.state(task) == TaskState::Assigned);
    let oldest = untold.map(|task| task.meta.created_at).min();
    oldest.map_or(Serves::No, Serves::Perhaps)
}

/// The node of the only wanted task; none of a slot in the middle of an update or without a node.
fn sole_node(service: &ServiceView<'_>, slot: &Slot<'_>) -> Option<NodeId> {
    let mut wanted = slot.wanted(service);
    let sole = wanted.next()?;
    if wanted.next().is_some() { None } else { sole.node }
}

/// Keeps one slot as it should be, without updating it.
pub(super) fn settle(service: &ServiceView<'_>, slot: &Slot<'_>, wanted: &mut Reconciled, bits: NewBits<'_>) {
    let stop = |task: &Task| service.stopped(task, TaskState::Shutdown);
    if slot.room == Room::Closed {
        slot.wanted(service).for_each(|task| wanted.update(stop(task)));
        return;
    }
    let postponed = succeed(service, slot, wanted, bits);
    let best = slot.head(service).filter(|head| service.stays(head));
    for task in slot.wanted(service).filter(|task| Some(task.id) != postponed) {
        if !service.stays(task) {
            wanted.update(stop(task));
        } else if is_superseded(service, task, best) {
            let displaced = task.displaced.clone().filter(|_| has_moved(task, best));
            wanted.update(match displaced {
                Some(displaced) => Task { displaced: Some(displaced), ..stop(task) },
                None => stop(task),
            });
        } else {
            release(service, slot, task, wanted);
        }
    }
}

/// Makes the successor of a head that has ended or can't stay, if its policy has one. The successor is made before the
/// head is stopped: in whatever parts the actions are committed, the slot is never forgotten. A head that must wait for
/// its successor until the delay of its own is over is returned.
fn succeed(
    service: &ServiceView<'_>,
    slot: &Slot<'_>,
    wanted: &mut Reconciled,
    bits: NewBits<'_>,
) -> Option<TaskId> {
    let head = slot.head(service).filter(|head| !service.stays(head))?;
    if slot.room == Room::Frozen {
        return None;
    }
    match restart::verdict(service, slot, head) {
        Verdict::GiveUp => None,
        Verdict::Later(moment) => {
            wanted.wake(moment);
            Some(head.id)
        }
        Verdict::Replace { start_after } => {
            let cause = cause_of(service, head, start_after);
            let successor = successor(service, slot, head, Succession { start_after, cause }, bits);
            create(service, slot, successor, wanted);
            None
        }
    }
}

/// Why a head that has ended or can't stay has a successor.
fn cause_of(service: &ServiceView<'_>, head: &Task, start_after: Option<crate::time::Timestamp>) -> Cause {
    if start_after.is_some() {
        let container = service.status(head).container.as_ref();
        return Cause::Restarted { exit_code: container.map(|container| container.exit_code) };
    }
    let is_there = head.node.is_none_or(|node| service.view.node(node).is_some());
    match service.ground(head) {
        Ground::Lost if is_there => Cause::NodeDown,
        Ground::Lost => Cause::NodeRemoved,
        Ground::Drained => Cause::Drained,
        Ground::Sound => Cause::Moved,
    }
}

/// What is particular about a task that takes another one's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Succession {
    pub(super) start_after: Option<crate::time::Timestamp>,
    pub(super) cause: Cause,
}

/// A new task that takes the head's place; it is held until the head has stopped.
pub(super) fn successor(
    service: &ServiceView<'_>,
    slot: &Slot<'_>,
    head: &Task,
    succession: Succession,
    bits: NewBits<'_>,
) -> Task {
    let birth = Birth {
        slot: slot.number,
        node: slot.node,
        desired: TaskState::Ready,
        start_after: succession.start_after,
        replaces: Some(head.id),
        newer_than: slot.newest().map(|newest| newest.meta.created_at),
        cause: Some(succession.cause),
    };
    task::new(service, birth, bits)
}

/// Creates a held task, or lets it start from birth when it has nothing to wait for.
pub(super) fn create(service: &ServiceView<'_>, slot: &Slot<'_>, task: Task, wanted: &mut Reconciled) {
    match restart::start(service, slot, &task) {
        Start::Now => wanted.create(Task { desired_state: service.goal(), ..task }),
        Start::At(moment) => {
            wanted.wake(moment);
            wanted.create(task);
        }
        Start::OnChange => wanted.create(task),
    }
}

/// Whether another task is the one to keep. Where new tasks start first, an outdated one stays until the new one runs.
fn is_superseded(service: &ServiceView<'_>, task: &Task, best: Option<&Task>) -> bool {
    let Some(best) = best.filter(|best| best.id != task.id) else { return false };
    // The better one moves, and this one is to take its place.
    if best.displaced.as_ref().is_some_and(|it| it.is_move()) && task.replaces == Some(best.id) {
        return false;
    }
    let is_needed = service.order() == UpdateOrder::StartFirst
        && is_dirty(service, task)
        && service.state(best) != TaskState::Running;
    !is_needed
}

/// Whether the better one is there since this one moves.
fn has_moved(task: &Task, best: Option<&Task>) -> bool {
    best.is_some_and(|best| best.replaces == Some(task.id) && best.decision.cause == Cause::Moved)
}

fn release(service: &ServiceView<'_>, slot: &Slot<'_>, task: &Task, wanted: &mut Reconciled) {
    if task.desired_state >= service.goal() {
        return;
    }
    match restart::start(service, slot, task) {
        Start::Now => wanted.update(task::wanted(task, service.goal(), service.now)),
        Start::At(moment) => wanted.wake(moment),
        Start::OnChange => {}
    }
}
