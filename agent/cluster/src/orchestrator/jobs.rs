//! Jobs: tasks that are to run to their end once, in numbered slots or on each node.
//!
//! A slot is done when a task of the job's present iteration has completed there; it is never tried again, whatever is
//! said of that task later, and what still runs there is stopped. A slot that its policy has given up stays so until the next iteration.

use super::global;
use super::replicated::MAX_BIRTHS;
use super::schedule::{self, Decision};
use super::service_view::ServiceView;
use super::slot::{Room, Slot, settle};
use super::task::{self, Birth};
use crate::id::NewBits;
use crate::objects::{ServiceMode, Task, TaskState};
use crate::reconciled::Reconciled;

/// Of a replicated job.
#[derive(Debug, Clone, Copy)]
struct Size {
    max_concurrent: u64,
    total_completions: u64,
}

/// Of either kind: a due time of its schedule comes first, and is all that is written then.
pub(super) fn reconcile(service: &ServiceView<'_>, bits: NewBits<'_>) -> Reconciled {
    let mut wanted = match schedule::decide(service) {
        Decision::Write(changed) => {
            let mut wanted = Reconciled::default();
            wanted.update(*changed);
            return wanted;
        }
        Decision::Wait(moment) => Reconciled { wake_at: Some(moment), ..Reconciled::default() },
        Decision::None => Reconciled::default(),
    };
    wanted.extend(match service.service.spec.mode {
        _ if !schedule::has_begun(service.service) => Reconciled::default(),
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            reconcile_replicated(service, Size { max_concurrent, total_completions }, bits)
        }
        _ => reconcile_global(service, bits),
    });
    wanted
}

fn reconcile_replicated(service: &ServiceView<'_>, size: Size, bits: NewBits<'_>) -> Reconciled {
    let slots = Slot::numbered(service, |task| is_present(service, task));
    let mut wanted = outdated(service);
    for slot in &slots {
        look_after(service, slot, &mut wanted, bits);
    }
    let active = slots.iter().filter(|slot| is_active(service, slot)).count();
    let room = usize::try_from(size.max_concurrent).unwrap_or(usize::MAX).saturating_sub(active);
    let is_free = |number: &u64| slots.binary_search_by_key(number, |slot| slot.number).is_err();
    let mut free = (0..size.total_completions).filter(is_free).take(room);
    for number in free.by_ref().take(MAX_BIRTHS) {
        wanted.create(task::new(service, Birth::first(number, None, TaskState::Complete), bits));
    }
    if free.next().is_some() {
        wanted.wake(service.now);
    }
    wanted
}

fn reconcile_global(service: &ServiceView<'_>, bits: NewBits<'_>) -> Reconciled {
    let mut wanted = outdated(service);
    for slot in global::slots_of(service, |task| is_present(service, task)) {
        if slot.newest().is_none() && slot.room == Room::Open {
            wanted.create(task::new(service, Birth::first(0, slot.node, TaskState::Complete), bits));
        } else {
            look_after(service, &slot, &mut wanted, bits);
        }
    }
    wanted
}

/// Whether every slot of the present iteration is done.
pub(super) fn is_complete(service: &ServiceView<'_>) -> bool {
    schedule::has_begun(service.service) && every_slot(service, |slot| is_done(service, slot))
}

/// Whether nothing of the present iteration is to run any more: each slot is done or given up, and nothing goes on in one that is not
/// asked for now, on a paused node or above a lowered number.
pub(super) fn is_over(service: &ServiceView<'_>) -> bool {
    every_slot(service, |slot| slot.newest().is_some())
        && !slots_of(service).iter().any(|slot| is_active(service, slot))
}

/// Those of the present iteration that are asked for now.
fn every_slot(service: &ServiceView<'_>, holds: impl Fn(&Slot<'_>) -> bool) -> bool {
    let slots = slots_of(service);
    match service.service.spec.mode {
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            let those = slots.iter().filter(|slot| slot.number < total_completions && holds(slot));
            u64::try_from(those.count()).unwrap_or(u64::MAX) >= total_completions
        }
        _ => slots.iter().filter(|slot| slot.room == Room::Open).all(holds),
    }
}

/// All of the present iteration.
fn slots_of<'s>(service: &'s ServiceView<'s>) -> Vec<Slot<'s>> {
    let is_of_it = |task: &Task| is_present(service, task);
    match service.service.spec.mode {
        ServiceMode::ReplicatedJob { .. } => Slot::numbered(service, is_of_it),
        _ => global::slots_of(service, is_of_it),
    }
}

/// Settles a slot that is not done. In one that is done nothing may go on: a task that took the place of a lost one stops when
/// that one turns out to have completed.
fn look_after(service: &ServiceView<'_>, slot: &Slot<'_>, wanted: &mut Reconciled, bits: NewBits<'_>) {
    if !is_done(service, slot) {
        return settle(service, slot, wanted, bits);
    }
    for task in slot.wanted(service).filter(|task| !service.state(task).is_terminal()) {
        wanted.update(service.stopped(task, TaskState::Shutdown));
    }
}

/// Tasks of earlier iterations that have not ended are to go, unless a schedule lets runs overlap.
fn outdated(service: &ServiceView<'_>) -> Reconciled {
    let mut wanted = Reconciled::default();
    for task in service.view.tasks_of(service.service.id) {
        let is_over = task.status.state.is_terminal() || task.desired_state == TaskState::Remove;
        if !is_present(service, task) && !is_over && !schedule::is_let_go_on(service, task) {
            wanted.update(service.stopped(task, TaskState::Remove));
        }
    }
    wanted
}

fn is_present(service: &ServiceView<'_>, task: &Task) -> bool {
    task.job_iteration == Some(service.service.job.map_or(0, |job| job.iteration))
}

fn is_done(service: &ServiceView<'_>, slot: &Slot<'_>) -> bool {
    slot.tasks().any(|task| {
        // A late word of the worker can't undo what is committed.
        task.status.state == TaskState::Complete || service.state(task) == TaskState::Complete
    })
}

/// Whether the slot counts against the concurrent ones: it is neither done nor given up.
fn is_active(service: &ServiceView<'_>, slot: &Slot<'_>) -> bool {
    !is_done(service, slot) && !slot.is_given_up(service)
}
