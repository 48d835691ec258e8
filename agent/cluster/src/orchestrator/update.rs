//! Rolling updates and rollbacks: which slots get a task of the present spec now, and how the service's update stands.
//!
//! Nothing but the update's status is stored; the rest is read from the tasks each time:
//! - a slot is *behind* when its newest task is of another spec than the service's;
//! - a slot was *updated* when the first of its newest tasks that are of that spec replaced one that was not;
//! - that slot *landed* when one of these first ran, or ended by itself before; until then, and for the delay after it,
//!   the slot is *in flight*, and holds one of the parallel ones;
//! - it *failed* when what landed first ended by itself before it ran, or within the monitored time after.
//!
//! So as many slots are started as `parallelism` leaves beside those in flight; the update fails when more than the ratio
//! of the slots that it began with have failed, and completes once none is behind or in flight, and each that ran was
//! watched. Running means healthy: the worker says so only then.

use std::collections::BTreeSet;
use std::time::Duration;

use super::dirty::is_dirty;
use super::service_view::{ServiceView, ended_by_itself};
use super::slot::{self, Room, Slot, settle};
use super::texts;
use crate::id::{NewBits, TaskId};
use crate::objects::service::{FailureAction, UpdateOrder, UpdateState, UpdateStatus};
use crate::objects::{Service, Task, TaskState, UpdateConfig};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;

/// Settles every slot, and updates those whose turn it is.
pub(super) fn roll(service: &ServiceView<'_>, slots: &[Slot<'_>], bits: NewBits<'_>) -> Reconciled {
    let mut wanted = Reconciled::default();
    let turn = match decide(service, slots) {
        Decision::RollBack(rolled_back) => {
            // Every slot is compared with the earlier spec from the next look on.
            wanted.update(*rolled_back);
            return wanted;
        }
        Decision::Mark(status) => {
            wanted.update(with_status(service, status));
            BTreeSet::new()
        }
        Decision::Start { begun, turn, wake_at } => {
            begun.into_iter().for_each(|status| wanted.update(with_status(service, status)));
            wake_at.into_iter().for_each(|moment| wanted.wake(moment));
            turn
        }
    };
    for (index, slot) in slots.iter().enumerate() {
        if turn.contains(&index) {
            replace(service, slot, &mut wanted, bits);
        } else {
            settle(service, slot, &mut wanted, bits);
        }
    }
    wanted
}

enum Decision {
    /// Write this status, start nothing.
    Mark(UpdateStatus),
    RollBack(Box<Service>),
    /// Start the slots of these indexes.
    Start {
        begun: Option<UpdateStatus>,
        turn: BTreeSet<usize>,
        wake_at: Option<Timestamp>,
    },
}

const NOTHING: Decision = Decision::Start { begun: None, turn: BTreeSet::new(), wake_at: None };

fn decide(service: &ServiceView<'_>, slots: &[Slot<'_>]) -> Decision {
    let mut behind: Vec<usize> = (0..slots.len()).filter(|index| slots[*index].is_behind(service)).collect();
    // Those that are down anyway come first: what an update that was overtaken took down counts against this one.
    behind.sort_by_key(|index| slots[*index].runs(service));
    match &service.service.update_status {
        // Until the user updates the service again.
        Some(UpdateStatus { state: UpdateState::Paused | UpdateState::RollbackPaused, .. }) => NOTHING,
        Some(status) if matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted) => {
            go_on(service, slots, behind, status)
        }
        // A slot that restarts anyway gets the present spec by that.
        _ if !behind.iter().any(|index| is_startable(service, &slots[*index])) => NOTHING,
        _ => start(service, slots, &behind, Some(begin(behind.len(), service.now))),
    }
}

fn begin(slots: usize, now: Timestamp) -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::Updating,
        started_at: now,
        completed_at: None,
        message: texts::UPDATE_IN_PROGRESS.to_owned(),
        slots: count(slots),
    }
}

fn go_on(
    service: &ServiceView<'_>,
    slots: &[Slot<'_>],
    behind: Vec<usize>,
    status: &UpdateStatus,
) -> Decision {
    // A rollback begins without a count: it is only now that the slots are compared with the earlier spec.
    let counted = (status.slots == 0 && !behind.is_empty())
        .then(|| UpdateStatus { slots: count(behind.len()), ..status.clone() });
    let config = service.update_config();
    let landings = landings_of(service, slots, status.started_at);
    if let Some(culprit) = failure(&landings, &config, status.slots.max(1)) {
        return fail(service, status, culprit, config.failure_action);
    }
    if !behind.is_empty() {
        return start(service, slots, &behind, counted);
    }
    match watched_until(&landings, &config) {
        Watched::Until(moment) if moment <= service.now => Decision::Mark(completed(service, status)),
        Watched::Until(moment) => {
            Decision::Start { begun: None, turn: BTreeSet::new(), wake_at: Some(moment) }
        }
        Watched::Flying => NOTHING,
    }
}

/// Picks the slots whose turn it is.
fn start(
    service: &ServiceView<'_>,
    slots: &[Slot<'_>],
    behind: &[usize],
    begun: Option<UpdateStatus>,
) -> Decision {
    let config = service.update_config();
    let (in_flight, wake_at) = in_flight(service, slots, config.delay);
    let (startable, restarting): (Vec<usize>, Vec<usize>) =
        behind.iter().partition(|index| is_startable(service, &slots[**index]));
    let room = match config.parallelism {
        0 => usize::MAX,
        // What the restart supervisor is about to fill is down as well.
        most => usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(in_flight + restarting.len()),
    };
    Decision::Start { begun, turn: startable.into_iter().take(room).collect(), wake_at }
}

/// Whether the slot waits for the update alone: the restart supervisor has nothing to do there.
fn is_startable(service: &ServiceView<'_>, slot: &Slot<'_>) -> bool {
    slot.head(service).is_some_and(|head| service.stays(head)) || slot.is_given_up(service)
}

/// Gives the slot a task of the present spec: once those before it have stopped, or beside the one that serves. Stops come
/// before the birth, so that in whatever parts they are committed no more than that are wanted running.
fn replace(service: &ServiceView<'_>, slot: &Slot<'_>, wanted: &mut Reconciled, bits: NewBits<'_>) {
    let Some(head) = slot.head(service) else { return };
    let starts_first = service.order() == UpdateOrder::StartFirst && service.stays(head);
    for old in slot.wanted(service).filter(|old| !starts_first || old.id != head.id) {
        wanted.update(service.stopped(old, TaskState::Shutdown));
    }
    let new = slot::successor(service, slot, head, None, bits);
    if starts_first {
        wanted.create(Task { desired_state: service.goal(), ..new });
    } else {
        slot::create(service, slot, new, wanted);
    }
}

/// A slot that was updated, by what landed first.
struct Landing<'v> {
    /// None while it is in flight.
    task: Option<(&'v Task, Ending)>,
}

#[derive(Clone, Copy)]
struct Ending {
    /// When the task ran, or ended without having run.
    landed_at: Timestamp,
    /// How long it had run when it ended by itself; none while it runs, or if it was stopped.
    ran_for: Option<Duration>,
}

/// The slots that were updated since that moment.
fn landings_of<'v>(service: &ServiceView<'_>, slots: &[Slot<'v>], since: Timestamp) -> Vec<Landing<'v>> {
    let mut landings = Vec::new();
    for slot in slots.iter().filter(|slot| slot.room == Room::Open) {
        let Some(tried) = updates(service, slot).filter(|tried| is_since(tried, since)) else { continue };
        let landing = Landing { task: landed(service, &tried) };
        // Stopped before it landed, and never to be tried again: nothing is to be waited for.
        if landing.task.is_some() || !slot.is_given_up(service) {
            landings.push(landing);
        }
    }
    landings
}

fn is_since(tried: &[&Task], since: Timestamp) -> bool {
    tried.first().is_some_and(|first| first.meta.created_at >= since)
}

/// The tasks of the present spec that were the last to be tried in the slot, the first one first, if that one replaced
/// one of another spec.
fn updates<'v>(service: &ServiceView<'_>, slot: &Slot<'v>) -> Option<Vec<&'v Task>> {
    let mut tried: Vec<_> = slot.newest_first().take_while(|task| !is_dirty(service, task)).collect();
    tried.reverse();
    let first = tried.first()?;
    let is_update = first.replaces.is_some() && first.start_after.is_none();
    is_update.then_some(tried)
}

/// What landed first.
fn landed<'v>(service: &ServiceView<'_>, tried: &[&'v Task]) -> Option<(&'v Task, Ending)> {
    tried.iter().find_map(|task| Some((*task, ending(service, task)?)))
}

fn ending(service: &ServiceView<'_>, task: &Task) -> Option<Ending> {
    let status = service.status(task);
    let ended = ended_by_itself(status.state);
    let ran_at = status.running_since.or((status.state == TaskState::Running).then_some(status.since));
    match ran_at {
        Some(ran_at) => {
            Some(Ending { landed_at: ran_at, ran_for: ended.then(|| status.since.since(ran_at)) })
        }
        None if ended => Some(Ending { landed_at: status.since, ran_for: Some(Duration::ZERO) }),
        None => None,
    }
}

/// How many slots are in flight, and when the next one of them is no more.
fn in_flight(service: &ServiceView<'_>, slots: &[Slot<'_>], delay: Duration) -> (usize, Option<Timestamp>) {
    let landings = landings_of(service, slots, Timestamp::default());
    let over: Vec<Option<Timestamp>> = landings
        .iter()
        .map(|landing| landing.task.map(|(_, ending)| ending.landed_at.after(delay)))
        .filter(|over| over.is_none_or(|over| over > service.now))
        .collect();
    (over.len(), over.iter().flatten().min().copied())
}

/// The task that made the update fail, if it has.
fn failure(landings: &[Landing<'_>], config: &UpdateConfig, slots: u64) -> Option<TaskId> {
    if config.failure_action == FailureAction::Continue {
        return None;
    }
    let has_failed = |ending: Ending| ending.ran_for.is_some_and(|ran_for| ran_for <= monitor(config));
    let mut failed: Vec<_> = landings
        .iter()
        .filter_map(|landing| landing.task)
        .filter(|(_, ending)| has_failed(*ending))
        .collect();
    failed.sort_by_key(|(task, ending)| (ending.landed_at, task.id));
    let ratio = failed.len() as f64 / slots as f64;
    failed.last().filter(|_| ratio > f64::from(config.max_failure_ratio)).map(|(task, _)| task.id)
}

/// How long a task is watched after it runs: at least until the next one has been started.
fn monitor(config: &UpdateConfig) -> Duration {
    if config.delay >= config.monitor { config.delay + Duration::from_secs(1) } else { config.monitor }
}

enum Watched {
    /// Some slot is in flight.
    Flying,
    Until(Timestamp),
}

fn watched_until(landings: &[Landing<'_>], config: &UpdateConfig) -> Watched {
    let mut until = Timestamp::default();
    for landing in landings {
        let Some((_, ending)) = landing.task else { return Watched::Flying };
        let watch = if ending.ran_for.is_none() { monitor(config) } else { Duration::ZERO };
        until = until.max(ending.landed_at.after(watch));
    }
    Watched::Until(until)
}

fn completed(service: &ServiceView<'_>, status: &UpdateStatus) -> UpdateStatus {
    let (state, message) = match status.state {
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, texts::ROLLBACK_COMPLETED),
        _ => (UpdateState::Completed, texts::UPDATE_COMPLETED),
    };
    UpdateStatus { state, message: message.to_owned(), completed_at: Some(service.now), ..status.clone() }
}

/// A failed update is paused or rolled back. A rollback is never rolled back itself, nor an update without an earlier spec.
fn fail(
    service: &ServiceView<'_>,
    status: &UpdateStatus,
    culprit: TaskId,
    action: FailureAction,
) -> Decision {
    let is_rollback = status.state == UpdateState::RollbackStarted;
    let paused = if is_rollback { UpdateState::RollbackPaused } else { UpdateState::Paused };
    let pause = |message: String| Decision::Mark(UpdateStatus { state: paused, message, ..status.clone() });
    match (action, &service.service.previous_spec) {
        (FailureAction::Rollback, _) if is_rollback => pause(texts::rollback_paused(culprit)),
        (FailureAction::Rollback, Some(previous)) => {
            let status = UpdateStatus {
                state: UpdateState::RollbackStarted,
                message: texts::update_rolled_back(culprit),
                slots: 0,
                ..status.clone()
            };
            let mut service = with_status(service, status);
            service.spec = previous.clone();
            service.previous_spec = None;
            service.previous_spec_version = None;
            Decision::RollBack(Box::new(service))
        }
        _ => pause(texts::update_paused(culprit)),
    }
}

fn with_status(service: &ServiceView<'_>, status: UpdateStatus) -> Service {
    let mut changed = service.service.clone();
    changed.update_status = Some(status);
    changed.meta.updated_at = service.now;
    changed
}

fn count(slots: usize) -> u64 {
    u64::try_from(slots).unwrap_or(u64::MAX)
}
