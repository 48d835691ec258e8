//! What a change would do, without doing it: the change is made in a copy of the store, and the very reconcilers run there
//! until they want nothing, with workers that do at once what they are asked.
//!
//! Nothing of it reaches the store that it was copied of. `ketchd`'s route makes a [`Copied`] of the leader's view while that is held,
//! and beside it a [`Simulation`] of that, gives it the actions of requests that `control` has judged, one request after another, and tells what [`Simulation::outcome`] says;
//! [`outcome`] compares before and after. `design/explain.md`.

mod outcome;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

pub use outcome::{Fate, Outcome, Placed, ServiceOutcome, Waiting};

use crate::control::ControlError;
use crate::id::NewBits;
use crate::objects::node::NodeState;
use crate::objects::service::UpdateState;
use crate::objects::{Task, TaskState, Version};
use crate::reconcilers::{Outcome as TurnOutcome, Reconcilers, Word};
use crate::store::{Change, Store, StoreAction, StoreError};
use crate::time::Timestamp;
use crate::view::{Observed, Told, View};

/// Turns that are looked at at most: what has not come to rest by then never will.
const MOST_TURNS: usize = 20_000;
/// Moments in a row at which nobody wants anything: who waits for a node is looked at every 10 s.
const MOST_IDLE: usize = 1_000;
/// How far ahead an update is followed.
const HORIZON: Duration = Duration::from_secs(24 * 3600);

/// Whether the copy came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    AtRest,
    /// It was still changing when it was looked at for long enough.
    Unfinished,
}

/// The cluster as it was at a moment: all that is made while its store is held.
#[derive(Debug)]
pub struct Copied {
    store: Store,
    observed: Observed,
}

impl Copied {
    #[must_use]
    pub fn of(view: &View<'_>) -> Self {
        Self { store: Store::clone(view), observed: view.observed().clone() }
    }
}

/// A copy of the cluster, to be changed.
#[derive(Debug, Clone)]
pub struct Simulation {
    before: Store,
    observed_before: Observed,
    store: Store,
    observed: Observed,
    reconcilers: Reconcilers,
    began: Timestamp,
    now: Timestamp,
    next_bits: u128,
}

impl Simulation {
    /// Of the cluster as it was at `now`. What others have under way goes on in it.
    #[must_use]
    pub fn of(Copied { store, observed }: Copied, now: Timestamp) -> Self {
        let reconcilers = Reconcilers::of_leader(&View::new(&store, &observed));
        Self {
            before: store.clone(),
            observed_before: observed.clone(),
            store,
            observed,
            reconcilers,
            began: now,
            now,
            // Ids are drawn from all numbers: these are nobody's.
            next_bits: u128::from(now.0) << 64,
        }
    }

    /// Makes a request in the copy.
    ///
    /// # Errors
    /// The request's own refusal, or the store's.
    pub fn request<T>(
        &mut self,
        request: impl FnOnce(&View<'_>, Timestamp, NewBits<'_>) -> Result<(T, Vec<StoreAction>), ControlError>,
    ) -> Result<T, ControlError> {
        let bits = &mut self.next_bits;
        let view = View::new(&self.store, &self.observed);
        let (told, actions) = request(&view, self.now, &mut || next_of(bits))?;
        self.commit(&actions)?;
        Ok(told)
    }

    /// The cluster in the copy as it is now.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::new(&self.store, &self.observed)
    }

    /// Runs the reconcilers until they want nothing, and updates until they are over. `has_time` is asked before each turn: whoever
    /// waits for it does not wait for ever.
    pub fn settle(&mut self, has_time: impl Fn() -> bool) -> Ended {
        let mut idle = 0;
        for _ in 0..MOST_TURNS {
            if !has_time() {
                break;
            }
            if self.turn() || self.work() {
                idle = 0;
                continue;
            }
            idle += 1;
            let next = self.reconcilers.next_at(self.now).filter(|_| idle < MOST_IDLE && self.goes_on());
            match next {
                Some(moment) if moment.since(self.began) < HORIZON => {
                    self.now = moment.max(self.now.after(Duration::from_nanos(1)));
                }
                _ => return if self.goes_on() { Ended::Unfinished } else { Ended::AtRest },
            }
        }
        Ended::Unfinished
    }

    /// What is different in it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        outcome::of(&View::new(&self.before, &self.observed_before), &self.view())
    }

    /// Whether something is still to come by itself: an update, a task that is on its way, a wait that ends soon.
    fn goes_on(&self) -> bool {
        let is_updating = self.store.services().any(|service| {
            let state = service.update_status.as_ref().map(|status| status.state);
            matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted))
        });
        let soon = self.now.after(Duration::from_secs(1));
        let is_gathering = self.reconcilers.next_at(self.now).is_some_and(|moment| moment <= soon);
        let is_held = || self.store.tasks().any(|task| task.desired_state == TaskState::Ready);
        is_updating || is_gathering || is_held()
    }

    /// One reconciler's turn; false when none wants anything now.
    fn turn(&mut self) -> bool {
        let bits = &mut self.next_bits;
        let view = View::new(&self.store, &self.observed);
        let turn = self.reconcilers.next(&view, self.now, &mut || next_of(bits));
        let Some(turn) = turn else { return false };
        let parts: Vec<Vec<StoreAction>> = turn.parts().map(<[_]>::to_vec).collect();
        let committed = parts.iter().all(|part| self.commit(part).is_ok());
        let outcome = if committed { TurnOutcome::Committed } else { TurnOutcome::Refused };
        self.reconcilers.settle(turn.key, outcome, self.now);
        true
    }

    fn commit(&mut self, actions: &[StoreAction]) -> Result<Vec<Change>, StoreError> {
        let version = Version(self.store.version().0 + 1);
        let changes = self.store.apply(version, actions)?;
        self.reconcilers.committed(&View::new(&self.store, &self.observed), &changes, self.now);
        Ok(changes)
    }

    /// Workers of nodes that are there do what is wanted of their tasks. Whether any did something.
    fn work(&mut self) -> bool {
        let view = View::new(&self.store, &self.observed);
        let done: Vec<_> =
            self.store.tasks().filter_map(|task| Some((task.clone(), next(&view, task)?))).collect();
        let is_any = !done.is_empty();
        let mut ends = Vec::new();
        for (task, state) in done {
            let before = View::new(&self.store, &self.observed).status(&task).clone();
            let told = Told { state, message: before.message.to_string(), ..Told::default() };
            if !self.observed.note(task.id, told, self.now) {
                continue;
            }
            let view = View::new(&self.store, &self.observed);
            let after = view.status(&task).clone();
            self.reconcilers.noted(&view, &Word { task: &task, before: &before, after: &after }, self.now);
            if state.is_terminal() {
                ends.push(StoreAction::Update(Task { status: after, ..Task::clone(&task) }.into()));
            }
        }
        // A task that a reconciler has just written is written at the next look.
        if !ends.is_empty() && self.commit(&ends).is_err() {
            return false;
        }
        is_any
    }
}

/// The state that the task's worker brings it to; none when it is there, or nobody works on it.
fn next(view: &View<'_>, task: &Task) -> Option<TaskState> {
    let node = view.node(task.node?)?;
    let state = view.state(task);
    if node.status.state != NodeState::Ready || state < TaskState::Assigned || state.is_terminal() {
        return None;
    }
    match task.desired_state {
        TaskState::Shutdown | TaskState::Remove => Some(TaskState::Shutdown),
        TaskState::Ready if state < TaskState::Ready => Some(TaskState::Ready),
        // A job's tasks are left at work: how long they take nobody knows.
        TaskState::Running | TaskState::Complete if state < TaskState::Running => Some(TaskState::Running),
        _ => None,
    }
}

fn next_of(bits: &mut u128) -> u128 {
    *bits += 1;
    *bits
}

/// Names, each once.
type Names = BTreeSet<String>;
