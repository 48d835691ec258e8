//! Rebalancing: a service that asks for it (`ketch.rebalance`) has running tasks moved to nodes that have fewer of them, until the
//! difference is at most 1. So a node that comes or returns gets its share.
//!
//! A move is made by the slot: with start-first the task that leaves stays wanted, and is stopped once the one that replaces it runs;
//! otherwise it is stopped first. Nothing is remembered but in the tasks that left ([`Displacement`]). Whatever this service's update
//! has to do comes first; nodes that are paused or drained neither give nor get. `design/placement.md` has the bounds.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::service_view::ServiceView;
use super::slot::{self, Slot, Succession};
use crate::constraint::Descriptor;
use crate::id::{NewBits, NodeId};
use crate::label::rebalance;
use crate::objects::decision;
use crate::objects::displacement::{Cause, Displacement, Promise};
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{UpdateOrder, UpdateState};
use crate::objects::task::Stop;
use crate::objects::{Node, Task, TaskState};
use crate::reconciled::Reconciled;
use crate::scheduler::{Fitting, host_of};
use crate::time::Timestamp;

/// A node gets tasks once it has been there for so long, twice as long for each time in a row that it did not stay.
const SETTLES: Duration = Duration::from_secs(30);
const MOST_DOUBLINGS: u32 = 7;

/// In the whole cluster no more tasks than these move within the window.
pub(crate) const MOST: usize = 10;
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// A node that a task of the service was moved to and never ran on is left alone for so long; and for so long a move may take.
pub(super) const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// A move is made where there is room, and the room is promised: whoever has no place by then will have none.
const PLACED_WITHIN: Duration = Duration::from_secs(60);

/// Nodes that are asked in one look whether they have room, of those that could have the task were they empty, and when to look again where none had.
const ASKED: usize = 16;
const LOOKS_AGAIN: Duration = Duration::from_secs(30);

/// Moves one task, if one is to move now. The slots are those that the service is to have.
pub(super) fn step(service: &ServiceView<'_>, slots: &[Slot<'_>], bits: NewBits<'_>) -> Reconciled {
    let mut wanted = Reconciled::default();
    slots.iter().for_each(|slot| give_up(service, slot, &mut wanted));
    let is_asked = rebalance::parse(&service.service.spec.labels) == Ok(true);
    if !wanted.actions.is_empty() || !is_asked || !may_move(service, slots) {
        return wanted;
    }
    let spread = Spread::of(service, slots);
    let Some(moves) = spread.moves(service, &mut wanted) else { return wanted };
    if let Some(moment) = full_until(service) {
        wanted.wake(moment);
        return wanted;
    }
    carry_out(service, slots, &moves, &mut wanted, bits);
    wanted
}

/// Ends a move that has not come about for too long: what was to take the place of a task that serves does not run. That one stays, and
/// the node that it was to move to is left alone from now on as after any move in vain.
fn give_up(service: &ServiceView<'_>, slot: &Slot<'_>, wanted: &mut Reconciled) {
    let serves = |task: &Task| service.state(task) == TaskState::Running && service.stays(task);
    let moves = |task: &Task| task.displaced.as_ref().is_some_and(|it| it.is_move());
    let Some(old) = slot.wanted(service).find(|task| serves(task) && moves(task)) else { return };
    let Some(Displacement { at, cause: cause @ Cause::Rebalanced { to }, .. }) = old.displaced.as_deref()
    else {
        return;
    };
    for new in slot.wanted(service).filter(|new| new.replaces == Some(old.id) && !serves(new)) {
        let patience = if new.node.is_none() { PLACED_WITHIN } else { REMEMBERED };
        let until = at.after(patience);
        if !until.is_due(patience, service.now) {
            wanted.wake(until);
            continue;
        }
        let mut stopped = service.stopped(new, TaskState::Shutdown);
        if stopped.status.state.is_terminal() {
            let host = service.view.node(*to).map_or_else(|| to.to_string(), |node| host_of(node));
            stopped.status.error =
                format!("gave up the move to {host}: it has not come to run there in time").into();
        }
        wanted.update(stopped);
        let displaced = Displacement { at: service.now, cause: *cause, reason: String::new() };
        let mut stays = Task { displaced: Some(Box::new(displaced)), ..old.clone() };
        stays.meta.updated_at = service.now;
        wanted.update(stays);
    }
}

/// Whether no update is on, and fewer slots are away than may be.
fn may_move(service: &ServiceView<'_>, slots: &[Slot<'_>]) -> bool {
    let update = service.service.update_status.as_ref().map(|it| it.state);
    let is_over = matches!(update, None | Some(UpdateState::Completed | UpdateState::RollbackCompleted));
    let is_away = |slot: &&Slot<'_>| !slot.runs(service) || slot.wanted(service).count() > 1;
    let away = u64::try_from(slots.iter().filter(is_away).count()).unwrap_or(u64::MAX);
    let most = service.service.spec.update.unwrap_or_default().parallelism.max(1);
    is_over && away < most && !slots.iter().any(|slot| slot.is_behind(service))
}

/// When the next move may be made in the cluster, if not now.
fn full_until(service: &ServiceView<'_>) -> Option<Timestamp> {
    let of_late = service.view.displaced_since(service.now.before(WINDOW)).filter_map(|task| {
        let displaced = task.displaced.as_ref()?;
        let counts = matches!(displaced.cause, Cause::Rebalanced { .. });
        let until = displaced.at.after(WINDOW);
        (counts && !until.is_due(WINDOW, service.now)).then_some(until)
    });
    let of_late: Vec<_> = of_late.collect();
    of_late.len().checked_sub(MOST).and_then(|over| of_late.get(over).copied())
}

/// What is to move, and why.
struct Move {
    slot: u64,
    to: NodeId,
    reason: String,
}

/// How many tasks of a service are where.
struct Spread<'v> {
    /// The levels over which the service is to be spread, as the user named them.
    levels: Vec<(&'v str, Descriptor)>,
    /// Of each branch of the levels.
    in_branch: BTreeMap<Vec<String>, usize>,
    on_node: BTreeMap<NodeId, usize>,
    /// The tasks that may move, by their nodes, each with its slot.
    movable: BTreeMap<NodeId, Vec<(&'v Task, u64)>>,
}

impl<'v> Spread<'v> {
    fn of(service: &'v ServiceView<'_>, slots: &[Slot<'v>]) -> Self {
        let levels = service.service.spec.task.placement.spread.iter();
        let levels = levels.filter_map(|text| Some((text.as_str(), Descriptor::parse(text)?))).collect();
        let (in_branch, on_node, movable) = Default::default();
        let mut it = Self { levels, in_branch, on_node, movable };
        for slot in slots {
            // Of one that moves or is replaced, what is there in the end.
            let Some(task) = slot.wanted(service).max_by_key(|it| (it.meta.created_at, it.id)) else {
                continue;
            };
            let node = task.node.or_else(|| task.promised.as_ref().map(|promise| promise.node));
            let Some(node) = node.and_then(|node| service.view.node(node)) else { continue };
            it.count(node);
            let is_at_rest = service.state(task) == TaskState::Running && slot.wanted(service).count() == 1;
            if is_at_rest && takes_part(node) {
                it.movable.entry(node.id).or_default().push((task, slot.number));
            }
        }
        it
    }

    fn count(&mut self, node: &Node) {
        let way = self.way(node);
        for depth in 1..=way.len() {
            *self.in_branch.entry(way[..depth].to_vec()).or_default() += 1;
        }
        *self.on_node.entry(node.id).or_default() += 1;
    }

    /// The branches in which the node is, the outermost first.
    fn way(&self, node: &Node) -> Vec<String> {
        self.levels.iter().map(|(_, descriptor)| descriptor.of(node).into_owned()).collect()
    }

    /// How full the node and what it is in are, as the scheduler compares them.
    fn fullness(&self, node: &Node) -> Vec<usize> {
        let way = self.way(node);
        let in_branch = |depth| self.in_branch.get(&way[..depth]).copied().unwrap_or_default();
        (1..=way.len()).map(in_branch).chain([self.on(node.id)]).collect()
    }

    fn on(&self, node: NodeId) -> usize {
        self.on_node.get(&node).copied().unwrap_or_default()
    }

    /// The move to the emptiest node that can have the task, from the fullest one. When nodes are to be looked at again is told.
    fn moves(&self, service: &ServiceView<'_>, wanted: &mut Reconciled) -> Option<Move> {
        if self.is_even(service) {
            return None;
        }
        let missed = missed(service, wanted);
        let mut to: Vec<_> = service.view.nodes().filter(|node| takes_part(node)).collect();
        let start = service.service.id.bits();
        to.sort_by_cached_key(|node| (self.fullness(node), node.id.bits().wrapping_sub(start)));
        let from = self.movable.keys().filter_map(|node| service.view.node(*node));
        let mut from: Vec<_> = from.collect();
        from.sort_by_cached_key(|node| (Reverse(self.fullness(node)), node.id));
        let fitting = self.fitting(service)?;
        let mut asked = 0;
        for to in to {
            let Some(from) = from.iter().find(|from| self.is_fuller(from, to)) else { continue };
            // Nodes that are not for this service are no answers: of many pools all may come before the one that is.
            if !fitting.would_allow_empty(to) {
                continue;
            }
            let settled = settled_at(to);
            if !settled.is_due(settles(to), service.now) {
                wanted.wake(settled);
            } else if !missed.contains(&to.id) {
                asked += 1;
                if fitting.allows(&service.view, to) {
                    return self.newest_of(service, from, to);
                }
                wanted.wake(service.now.after(LOOKS_AGAIN));
            }
            if asked == ASKED {
                break;
            }
        }
        None
    }

    /// Whether nothing is to move, wherever tasks may be: seen without an order of the nodes. Never where there are levels.
    fn is_even(&self, service: &ServiceView<'_>) -> bool {
        let most = self.movable.keys().map(|node| self.on(*node)).max().unwrap_or_default();
        let is_full = |node: &Node| self.on(node.id) + 2 > most;
        let mut open = service.view.nodes().filter(|node| takes_part(node));
        self.levels.is_empty() && (most < 2 || open.all(|node| is_full(node)))
    }

    /// What a task that moves asks of a node: it is made anew of the service's spec, which may name another placement than the one that
    /// those which run have.
    fn fitting(&self, service: &ServiceView<'_>) -> Option<Fitting> {
        let (task, _) = self.movable.values().flatten().next()?;
        let new = Task { spec: Arc::clone(&service.service.spec.task), ..Task::clone(task) };
        Some(Fitting::of(&service.view, &new))
    }

    /// Whether the first thing in which the two differ has at least two tasks more in `from`.
    fn is_fuller(&self, from: &Node, to: &Node) -> bool {
        let (level_from, level_to) = self.difference(from, to);
        level_from >= level_to + 2
    }

    fn difference(&self, from: &Node, to: &Node) -> (usize, usize) {
        let (from_way, to_way) = (self.way(from), self.way(to));
        let depth = from_way.iter().zip(&to_way).position(|(one, other)| one != other);
        let (from_is, to_is) = (self.fullness(from), self.fullness(to));
        let depth = depth.unwrap_or(from_way.len());
        (from_is[depth], to_is[depth])
    }

    /// The newest task of the one moves to the other.
    fn newest_of(&self, service: &ServiceView<'_>, from: &Node, to: &Node) -> Option<Move> {
        let tasks = self.movable.get(&from.id)?;
        let (_, slot) = tasks.iter().max_by_key(|(task, _)| (task.meta.created_at, task.id))?;
        Some(Move { slot: *slot, to: to.id, reason: self.reason(service, from, to) })
    }

    fn reason(&self, service: &ServiceView<'_>, from: &Node, to: &Node) -> String {
        let (from_way, to_way) = (self.way(from), self.way(to));
        let depth = from_way.iter().zip(&to_way).position(|(one, other)| one != other);
        let place = |node: &Node, way: &[String]| match depth {
            Some(depth) => format!("{} {}", self.levels[depth].0, way[depth]),
            None => host_of(node),
        };
        let (many, few) = self.difference(from, to);
        format!(
            "moved from {} to {} to spread service {}: {many} of its tasks were on {}, {few} on {}",
            host_of(from),
            host_of(to),
            service.service.spec.name,
            place(from, &from_way),
            place(to, &to_way)
        )
    }
}

/// Whether the node may give tasks, and get some.
pub(crate) fn takes_part(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

fn settles(node: &Node) -> Duration {
    SETTLES.saturating_mul(1 << node.status.flaps.min(MOST_DOUBLINGS))
}

fn settled_at(node: &Node) -> Timestamp {
    node.status.since.after(settles(node))
}

/// The nodes to which a task was moved of late, and on which nothing of its slot has come to run. What ran there and was asked to stop
/// since, with its node lost too, had come: whether the node stays is what its flaps say.
fn missed(service: &ServiceView<'_>, wanted: &mut Reconciled) -> BTreeSet<NodeId> {
    let mut missed = BTreeSet::new();
    let id = service.service.id;
    for task in service.view.tasks_of(id) {
        let Some(displaced) = &task.displaced else { continue };
        let Cause::Rebalanced { to } = displaced.cause else { continue };
        let until = displaced.at.after(REMEMBERED);
        let mut slot = service.view.tasks_in(id, task.slot);
        let is_later = |it: &Task| (it.meta.created_at, it.id) > (task.meta.created_at, task.id);
        let has_come = slot.any(|it| it.node == Some(to) && is_later(it) && has_come(service, it));
        if !has_come && !until.is_due(REMEMBERED, service.now) {
            wanted.wake(until);
            missed.insert(to);
        }
    }
    missed
}

/// Whether the task has its place, or had it until it was asked to leave.
fn has_come(service: &ServiceView<'_>, task: &Task) -> bool {
    let status = service.status(task);
    let has_run = status.running_since.is_some() || status.state == TaskState::Running;
    service.stays(task) || (has_run && (task.stop == Stop::Asked || !status.state.is_terminal()))
}

fn carry_out(
    service: &ServiceView<'_>,
    slots: &[Slot<'_>],
    moves: &Move,
    wanted: &mut Reconciled,
    bits: NewBits<'_>,
) {
    let Some(slot) = slots.iter().find(|slot| slot.number == moves.slot) else { return };
    let Some(old) = slot.keeper(service) else { return };
    let cause = Cause::Rebalanced { to: moves.to };
    let displaced = Some(Box::new(Displacement { at: service.now, cause, reason: moves.reason.clone() }));
    let new = Task {
        promised: Some(Box::new(Promise { node: moves.to })),
        ..slot::successor(
            service,
            slot,
            old,
            Succession { start_after: None, cause: decision::Cause::Moved },
            bits,
        )
    };
    if service.order() == UpdateOrder::StartFirst {
        let mut leaves = Task { displaced, ..old.clone() };
        leaves.meta.updated_at = service.now;
        wanted.update(leaves);
        wanted.create(Task { desired_state: service.goal(), ..new });
    } else {
        wanted.update(Task { displaced, ..service.stopped(old, TaskState::Shutdown) });
        slot::create(service, slot, new, wanted);
    }
}
