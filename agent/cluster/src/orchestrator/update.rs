//! Rolling updates and rollbacks: which slots get a task of the present spec now, and how the service's update stands.
//!
//! Nothing but the update's status is stored; the rest is read from the tasks each time:
//! - a slot is *behind* when its newest task is of another spec than the service's;
//! - a slot was *updated* when the first of its newest tasks that are of that spec replaced one that was not;
//! - that slot *landed* when one of these first ran, or ended by itself before; until then, and for the delay after it,
//!   the slot is *in flight*, and holds one of the parallel ones;
//! - it *failed* when what landed first ended by itself before it ran, or within the monitored time after.
//!
//! To the update that is on belong the slots whose first such task is of the service's spec version: no clock is asked.
//!
//! So as many slots are started as `parallelism` leaves beside those in flight; the update fails when more than the ratio
//! of the slots that it began with have failed, and completes once none is behind or in flight, and each that ran was
//! watched. Running means healthy: the worker says so only then.

use std::collections::BTreeSet;
use std::time::Duration;

use super::dirty::is_dirty;
use super::restart::{self, Verdict};
use super::service_view::{ServiceView, ended_by_itself};
use super::slot::{self, Room, Slot, Succession, settle};
use super::texts;
use crate::id::{NewBits, TaskId};
use crate::label::scale;
use crate::objects::decision::Cause;
use crate::objects::service::{FailureAction, UpdateOrder, UpdateState, UpdateStatus};
use crate::objects::task::Gate;
use crate::objects::{Service, Task, TaskState, UpdateConfig, Version};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;

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

/// Whether an update or a rollback has begun and not come to its end, paused ones too.
pub(crate) fn has_begun(service: &Service) -> bool {
    let has_ended = |status: &UpdateStatus| {
        matches!(status.state, UpdateState::Completed | UpdateState::RollbackCompleted)
    };
    service.update_status.as_ref().is_some_and(|status| !has_ended(status))
}

/// Whether one is about to begin.
pub(crate) fn has_outdated(view: &View<'_>, service: &Service) -> bool {
    view.tasks_of(service.id).any(|task| is_outdated(view, service, task))
}

/// Whether the task is to be replaced by an update.
pub(crate) fn is_outdated(view: &View<'_>, service: &Service, task: &Task) -> bool {
    // Nothing that is asked of it here hangs on the moment.
    let looked_at = ServiceView { view: *view, service, now: Timestamp::default() };
    is_dirty(&looked_at, task) && looked_at.stays(task)
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
        // The user's update is over: what nodes that come back or change have made outdated is brought to the present
        // spec one after the other, but it is no update, and nothing of it is rolled back.
        Some(_) => start(service, slots, &behind, None),
        // A slot that moves anyway gets the present spec by that.
        None if !behind.iter().any(|index| is_startable(service, &slots[*index])) => NOTHING,
        None => start(service, slots, &behind, Some(begin(service, slots, behind.len()))),
    }
}

fn begin(service: &ServiceView<'_>, slots: &[Slot<'_>], behind: usize) -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::Updating,
        started_at: service.now,
        completed_at: None,
        message: texts::UPDATE_IN_PROGRESS.to_owned(),
        slots: count(behind),
        failed_before: count(failed(&present(service, slots), &service.update_config()).len()),
    }
}

fn go_on(
    service: &ServiceView<'_>,
    slots: &[Slot<'_>],
    behind: Vec<usize>,
    status: &UpdateStatus,
) -> Decision {
    let config = service.update_config();
    let landings = present(service, slots);
    // A rollback begins without a count: it is only now that the slots are compared with the earlier spec.
    let counted = (status.slots == 0 && !behind.is_empty()).then(|| UpdateStatus {
        slots: count(behind.len()),
        failed_before: count(failed(&landings, &config).len()),
        ..status.clone()
    });
    if let Some(culprit) = failure(&landings, &config, status) {
        return fail(service, status, culprit, config.failure_action);
    }
    if !behind.is_empty() {
        return start(service, slots, &behind, counted);
    }
    if status.state == UpdateState::RollbackStarted {
        match rest(service, &landings, &config) {
            Rest::Serves => {}
            // It ran, but runs no more: the restart supervisor has it.
            Rest::Restarts => return NOTHING,
            Rest::GivenUp(culprit) => return fail(service, status, culprit, config.failure_action),
        }
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
    let (startable, moving): (Vec<usize>, Vec<usize>) =
        behind.iter().partition(|index| is_startable(service, &slots[**index]));
    // They are down: to start them takes nothing down, and the restart supervisor would wait for nothing better.
    let (ended, waiting): (Vec<usize>, Vec<usize>) = startable
        .iter()
        .partition(|index| is_restartable(service, &slots[**index]) || is_at_gate(service, &slots[**index]));
    let room = match config.parallelism {
        0 => usize::MAX,
        // What is started or moved anyway is down as well.
        most => {
            usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(in_flight + moving.len() + ended.len())
        }
    };
    let turn = ended.into_iter().chain(waiting.into_iter().take(room)).collect();
    Decision::Start { begun, turn, wake_at }
}

/// Whether the slot is the update's to fill: its head stays, has ended by itself, or is given up. One that was stopped or lost
/// is replaced at once anyway.
fn is_startable(service: &ServiceView<'_>, slot: &Slot<'_>) -> bool {
    slot.head(service).is_some_and(|head| {
        let verdict = || restart::verdict(service, slot, head);
        service.stays(head) || verdict() != Verdict::Replace { start_after: None }
    })
}

/// Whether its head has ended by itself, and its policy has a successor for it.
fn is_restartable(service: &ServiceView<'_>, slot: &Slot<'_>) -> bool {
    slot.head(service).is_some_and(|head| !service.stays(head)) && !slot.is_given_up(service)
}

/// Whether its head waits for other services: it is not down for the update.
fn is_at_gate(service: &ServiceView<'_>, slot: &Slot<'_>) -> bool {
    slot.head(service).is_some_and(|head| head.gate == Gate::Closed)
}

/// Gives the slot a task of the present spec: once those before it have stopped, or beside the one that serves. Stops come
/// before the birth, so that in whatever parts they are committed no more than that are wanted running.
fn replace(service: &ServiceView<'_>, slot: &Slot<'_>, wanted: &mut Reconciled, bits: NewBits<'_>) {
    let Some(head) = slot.head(service) else { return };
    let serves = service.stays(head) && head.gate == Gate::Open;
    let starts_first = service.order() == UpdateOrder::StartFirst && serves;
    for old in slot.wanted(service).filter(|old| !starts_first || old.id != head.id) {
        wanted.update(service.stopped(old, TaskState::Shutdown));
    }
    let cause = if service.rolls_back() { Cause::RolledBack } else { Cause::Updated };
    let new = slot::successor(service, slot, head, Succession { start_after: None, cause }, bits);
    if starts_first {
        wanted.create(Task { desired_state: service.goal(), ..new });
    } else {
        slot::create(service, slot, new, wanted);
    }
}

/// A slot that was updated, by what landed first.
struct Landing<'s, 'v> {
    slot: &'s Slot<'v>,
    /// Which spec it was updated to.
    version: Version,
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

/// The slots that were updated to the present spec version.
fn present<'s, 'v>(service: &ServiceView<'_>, slots: &'s [Slot<'v>]) -> Vec<Landing<'s, 'v>> {
    let mut landings = landings_of(service, slots);
    landings.retain(|landing| landing.version == service.service.spec_version);
    landings
}

/// The slots that were updated, by whichever update.
fn landings_of<'s, 'v>(service: &ServiceView<'_>, slots: &'s [Slot<'v>]) -> Vec<Landing<'s, 'v>> {
    let mut landings = Vec::new();
    for slot in slots.iter().filter(|slot| slot.room == Room::Open) {
        let Some(tried) = updates(service, slot) else { continue };
        let Some(first) = tried.first() else { continue };
        let landing = Landing { slot, version: first.spec_version, task: landed(service, &tried) };
        // Stopped before it landed, and never to be tried again: nothing is to be waited for.
        if landing.task.is_some() || !slot.is_given_up(service) {
            landings.push(landing);
        }
    }
    landings
}

/// The tasks of the present spec that were the last to be tried in the slot, the first one first, if that one replaced
/// one of another spec. None when the slot is kept by an older task, which is of the wanted spec again.
fn updates<'v>(service: &ServiceView<'_>, slot: &Slot<'v>) -> Option<Vec<&'v Task>> {
    let mut tried: Vec<_> = slot.newest_first().take_while(|task| !is_dirty(service, task)).collect();
    tried.reverse();
    let first = tried.first()?;
    let is_update = first.replaces.is_some() && first.start_after.is_none();
    let is_kept = |keeper: &Task| tried.iter().any(|task| task.id == keeper.id);
    (is_update && slot.keeper(service).is_none_or(is_kept)).then_some(tried)
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
    let landings = landings_of(service, slots);
    let over: Vec<Option<Timestamp>> = landings
        .iter()
        .map(|landing| landing.task.map(|(_, ending)| ending.landed_at.after(delay)))
        .filter(|over| over.is_none_or(|over| over > service.now))
        .collect();
    (over.len(), over.iter().flatten().min().copied())
}

/// The task that made the update fail, if it has.
fn failure(landings: &[Landing<'_, '_>], config: &UpdateConfig, status: &UpdateStatus) -> Option<TaskId> {
    // One that begins has not made anything fail yet.
    if config.failure_action == FailureAction::Continue || status.slots == 0 {
        return None;
    }
    let failed = failed(landings, config);
    let own = count(failed.len()).saturating_sub(status.failed_before);
    // In the precision of the ratio as the user gave it: 7 of 10 are not more than 0.7.
    let ratio = own as f32 / status.slots as f32;
    failed.last().filter(|_| ratio > config.max_failure_ratio).map(|task| task.id)
}

/// The tasks by which slots failed, the last one last.
fn failed<'v>(landings: &[Landing<'_, 'v>], config: &UpdateConfig) -> Vec<&'v Task> {
    let mut failed: Vec<_> = landings
        .iter()
        .filter(|landing| landing.has_failed(config))
        .filter_map(|landing| landing.task)
        .collect();
    failed.sort_by_key(|(task, ending)| (ending.landed_at, task.id));
    failed.into_iter().map(|(task, _)| task).collect()
}

impl Landing<'_, '_> {
    fn has_failed(&self, config: &UpdateConfig) -> bool {
        let ran_for = self.task.and_then(|(_, ending)| ending.ran_for);
        ran_for.is_some_and(|ran_for| ran_for <= monitor(config))
    }
}

/// How long a task is watched after it runs: at least until the next one has been started.
fn monitor(config: &UpdateConfig) -> Duration {
    let monitored = config.monitored();
    if config.delay >= monitored { config.delay.saturating_add(Duration::from_secs(1)) } else { monitored }
}

/// How the slots of a rollback stand: it is not complete while one of them does not run, unless its failure was counted.
enum Rest {
    Serves,
    Restarts,
    GivenUp(TaskId),
}

fn rest(service: &ServiceView<'_>, landings: &[Landing<'_, '_>], config: &UpdateConfig) -> Rest {
    let mut rest = Rest::Serves;
    for landing in landings.iter().filter(|landing| !landing.has_failed(config)) {
        let Some((task, _)) = landing.task.filter(|_| !landing.slot.runs(service)) else { continue };
        if landing.slot.is_given_up(service) {
            return Rest::GivenUp(task.id);
        }
        rest = Rest::Restarts;
    }
    rest
}

enum Watched {
    /// Some slot is in flight.
    Flying,
    Until(Timestamp),
}

fn watched_until(landings: &[Landing<'_, '_>], config: &UpdateConfig) -> Watched {
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
                failed_before: 0,
                ..status.clone()
            };
            let mut service = with_status(service, status);
            service.spec = scale::rolled_back(&service.spec, previous.clone());
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
