//! Which reconciler runs next: the queue by which the leader's manager drives all of them.
//!
//! The manager tells it what was committed ([`Reconcilers::committed`]) and what workers have said
//! ([`Reconcilers::noted`]), asks it for the next [`Turn`], proposes that turn's parts and says how it went
//! ([`Reconcilers::settle`]). What a change wakes is the table in [`touched`]; what a [`Key`] runs is in [`key`]. Here are
//! only order and time: nothing is decided about the cluster, nothing is proposed, and no clock is read. Only the leader has
//! one, and a new leader makes a new one ([`Reconcilers::of_leader`]): all is looked at once. `design/reconcilers.md`.
//!
//! Keys run in the order in which they were woken, so that none starves. A key whose turn is under way is not given a second
//! one: the second would not see what the first is about to change, and would create it again.

mod key;
#[cfg(test)]
mod tests;
mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use key::Key;
pub use touched::Word;

use crate::control::{MAX_TRANSACTION_BYTES, size_of};
use crate::id::NewBits;
use crate::objects::TaskState;
use crate::scheduler::Scheduler;
use crate::store::{Change, Object, ObjectId, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

/// How many actions one proposal has at most; in bytes it has as much as a user's request may.
pub const MOST_ACTIONS: usize = 200;

/// The scheduler waits for so long after a change, in case there are more: a batch costs one look at all tasks that wait.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// But not longer than that after the first of them: while others make services, somebody waits for a task of his.
const MOST_DEBOUNCE: Duration = Duration::from_millis(100);

/// A task has many changes one after the other, and a service many tasks: each look at a service costs all of them. So what
/// tasks alone have woken waits for so long after the first of them.
const GATHER_SERVICE: Duration = Duration::from_millis(20);
/// Nodes come and go in numbers, and nothing moves to one before it has settled.
const GATHER_SHARES: Duration = Duration::from_millis(500);
/// What is late here is freed or checked later, and nobody waits for it.
const GATHER_NODE: Duration = Duration::from_millis(50);
const GATHER_REAPER: Duration = Duration::from_millis(100);
/// A look costs all nodes and services: what many users make at once is given its addresses in one.
const GATHER_ALLOCATOR: Duration = Duration::from_millis(10);

/// After a refusal a key is looked at again at once: somebody else was first, which is no fault. After the second one in a
/// row it waits, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A clock that is adjusted by less than this was not set back.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// What one reconciler wants now. The manager applies the parts one after the other, each as one transaction, and drops the
/// rest when one is refused; then it calls [`Reconcilers::settle`].
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub key: Key,
    actions: Vec<StoreAction>,
}

impl Turn {
    /// How many tasks it gives a node, and of how many it says why they wait: of the scheduler's.
    #[must_use]
    pub fn placements(&self) -> (usize, usize) {
        let is_placed = |action: &StoreAction| match action {
            StoreAction::Update(Object::Task(task)) => task.status.state >= TaskState::Assigned,
            _ => false,
        };
        let placed = self.actions.iter().filter(|action| is_placed(action)).count();
        (placed, self.actions.len() - placed)
    }

    /// At least one part, none of them empty.
    pub fn parts(&self) -> impl Iterator<Item = &[StoreAction]> {
        Parts(&self.actions)
    }
}

/// The rest of a turn.
struct Parts<'a>(&'a [StoreAction]);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [StoreAction];

    fn next(&mut self) -> Option<&'a [StoreAction]> {
        let mut bytes = 0_usize;
        let fits = |action: &&StoreAction| {
            bytes = bytes.saturating_add(size_of(action).unwrap_or_default());
            bytes <= MAX_TRANSACTION_BYTES
        };
        let count = self.0.iter().take(MOST_ACTIONS).take_while(fits).count();
        let (part, rest) = self.0.split_at(count.max(1).min(self.0.len()));
        self.0 = rest;
        (!part.is_empty()).then_some(part)
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every part is in the store, and its changes were told to [`Reconcilers::committed`].
    Committed,
    /// A part was refused; those before it are in the store.
    Refused,
}

/// What is to be looked at, and when.
#[derive(Debug, Clone, Default)]
pub struct Reconcilers {
    /// In the order in which they were woken.
    ready: BTreeMap<u64, Key>,
    /// What waits for a moment: each key at most once, as its standing says.
    later: BTreeSet<(Timestamp, Key)>,
    /// Of the keys that are ready, wait, are under way or were refused.
    standings: BTreeMap<Key, Standing>,
    /// Keeps what it would otherwise look up anew in each turn.
    scheduler: Scheduler,
    next_place: u64,
    /// When a turn was last asked for.
    asked_at: Timestamp,
}

#[derive(Debug, Clone, Default)]
struct Standing {
    phase: Phase,
    /// Its moment in `later`.
    later: Option<Timestamp>,
    /// What the turn that is under way asked for: to be looked at then, although nothing changes.
    wake_at: Option<Timestamp>,
    /// When the first change came that it has not looked at yet, while it waits for more of them.
    first_change: Option<Timestamp>,
    /// In a row.
    refusals: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Resting,
    Ready,
    /// Its turn is under way.
    Running,
    /// Its turn is under way, and something has changed since that began: of tasks alone.
    RunningAndTouched,
    /// The same, and not of tasks alone.
    RunningAndWoken,
}

impl Reconcilers {
    /// Those of a manager that has just become the leader: each key is looked at once.
    #[must_use]
    pub fn of_leader(view: &View<'_>) -> Self {
        let mut it = Self::default();
        Key::all(view).into_iter().for_each(|key| it.make_ready(key));
        it
    }

    /// Wakes what committed changes touch. `view` is of after them.
    pub fn committed(&mut self, view: &View<'_>, changes: &[Change], now: Timestamp) {
        self.scheduler.committed(changes);
        let (of_tasks, others): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| matches!(change.id(), Some(ObjectId::Task(_))));
        let keys = |changes: Vec<&Change>| -> BTreeSet<Key> {
            changes.into_iter().flat_map(|change| touched::by_change(view, change)).collect()
        };
        let shares: BTreeSet<Key> =
            others.iter().flat_map(|change| touched::shares_by_change(view, change)).collect();
        keys(others).into_iter().for_each(|key| self.wake(key, now));
        shares.into_iter().for_each(|key| self.gather_for(key, GATHER_SHARES, now));
        keys(of_tasks).into_iter().for_each(|key| self.gather(key, now));
    }

    /// Wakes what a worker's word touches, after it was noted.
    pub fn noted(&mut self, view: &View<'_>, word: &Word<'_>, now: Timestamp) {
        self.scheduler.noted(word);
        touched::by_word(view, word).into_iter().for_each(|key| self.gather(key, now));
    }

    /// The next turn; none when nobody wants anything now. Keys that want nothing are done with on the way.
    pub fn next(&mut self, view: &View<'_>, now: Timestamp, bits: NewBits<'_>) -> Option<Turn> {
        while let Some(key) = self.begin(now) {
            let wanted = match key {
                Key::Scheduler => self.scheduler.schedule(view, now),
                key => key.run(view, now, bits),
            };
            if let Some(standing) = self.standings.get_mut(&key) {
                standing.wake_at = wanted.wake_at;
            }
            if !wanted.actions.is_empty() {
                return Some(Turn { key, actions: wanted.actions });
            }
            self.settle(key, Outcome::Committed, now);
        }
        None
    }

    /// Ends a turn. A key of which nothing is under way is left as it is.
    pub fn settle(&mut self, key: Key, outcome: Outcome, now: Timestamp) {
        let Some(standing) = self.standings.get_mut(&key) else { return };
        let woken = match standing.phase {
            Phase::Resting | Phase::Ready => return,
            woken => woken,
        };
        standing.phase = Phase::Resting;
        let wake_at = standing.wake_at.take();
        match outcome {
            Outcome::Committed => {
                standing.refusals = 0;
                match wake_at {
                    // A pass that has not given all their turn asks for the next at once: it waits as after a change, or passes without a pause were all
                    // that the leader does while hundreds look in vain.
                    Some(moment) if key == Key::Scheduler && moment <= now => self.wake(key, now),
                    Some(moment) => self.wait_until(key, moment),
                    None if woken == Phase::Running => drop(self.standings.remove(&key)),
                    None => {}
                }
                match woken {
                    Phase::RunningAndTouched => self.gather(key, now),
                    Phase::RunningAndWoken => self.wake(key, now),
                    Phase::Resting | Phase::Ready | Phase::Running => {}
                }
            }
            Outcome::Refused => {
                standing.refusals = standing.refusals.saturating_add(1);
                match pause_after(standing.refusals) {
                    Some(pause) => self.wait_until(key, now.after(pause)),
                    None => self.make_ready(key),
                }
            }
        }
    }

    /// How many keys are to be looked at now, and how many at a later moment.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.ready.len(), self.later.len())
    }

    /// When to call [`Self::next`] again although nothing changes; none when only a change can matter.
    #[must_use]
    pub fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.ready.is_empty() { self.later.first().map(|(moment, _)| *moment) } else { Some(now) }
    }

    /// Takes the first ready key; those whose moment has come are the last of these.
    fn begin(&mut self, now: Timestamp) -> Option<Key> {
        // What waits was promised a span, and not a moment of a clock that was ahead.
        let was_set_back = now.after(CLOCK_SLACK) < std::mem::replace(&mut self.asked_at, now);
        if was_set_back {
            let waiting: Vec<_> = self.later.iter().map(|(_, key)| *key).collect();
            waiting.into_iter().for_each(|key| self.make_ready(key));
        }
        while let Some((_, key)) = self.later.first().copied().filter(|(moment, _)| *moment <= now) {
            self.make_ready(key);
        }
        let (_, key) = self.ready.pop_first()?;
        let standing = self.standings.entry(key).or_default();
        standing.phase = Phase::Running;
        standing.first_change = None;
        Some(key)
    }

    fn wake(&mut self, key: Key, now: Timestamp) {
        let standing = self.standings.entry(key).or_default();
        match standing.phase {
            Phase::Ready | Phase::RunningAndWoken => {}
            Phase::Running | Phase::RunningAndTouched => standing.phase = Phase::RunningAndWoken,
            // A change that others make again and again must not make a refused key try as often.
            Phase::Resting if pause_after(standing.refusals).is_some() => {}
            Phase::Resting if key == Key::Scheduler => {
                let first = *standing.first_change.get_or_insert(now);
                self.wait_until(key, now.after(DEBOUNCE).min(first.after(MOST_DEBOUNCE)));
            }
            Phase::Resting if key == Key::Allocator => self.gather(key, now),
            Phase::Resting => self.make_ready(key),
        }
    }

    /// Wakes a key by what concerns tasks alone: it may be one of many.
    fn gather(&mut self, key: Key, now: Timestamp) {
        let window = match key {
            Key::Service(_) => GATHER_SERVICE,
            Key::Node(_) => GATHER_NODE,
            Key::Reaper(_) | Key::Payloads => GATHER_REAPER,
            Key::Allocator => GATHER_ALLOCATOR,
            Key::Scheduler | Key::DataKeys => return self.wake(key, now),
        };
        self.gather_for(key, window, now);
    }

    fn gather_for(&mut self, key: Key, window: Duration, now: Timestamp) {
        let standing = self.standings.entry(key).or_default();
        match standing.phase {
            Phase::Ready | Phase::RunningAndTouched | Phase::RunningAndWoken => {}
            Phase::Running => standing.phase = Phase::RunningAndTouched,
            Phase::Resting if pause_after(standing.refusals).is_some() => {}
            // Counted from the first: it comes, however many follow.
            Phase::Resting => {
                let moment = now.after(window);
                let moment = standing.later.map_or(moment, |known| known.min(moment));
                self.wait_until(key, moment);
            }
        }
    }

    fn make_ready(&mut self, key: Key) {
        self.forget_moment(key);
        self.standings.entry(key).or_default().phase = Phase::Ready;
        self.ready.insert(self.next_place, key);
        self.next_place += 1;
    }

    fn wait_until(&mut self, key: Key, moment: Timestamp) {
        self.forget_moment(key);
        self.standings.entry(key).or_default().later = Some(moment);
        self.later.insert((moment, key));
    }

    fn forget_moment(&mut self, key: Key) {
        let moment = self.standings.get_mut(&key).and_then(|standing| standing.later.take());
        if let Some(moment) = moment {
            self.later.remove(&(moment, key));
        }
    }
}

/// How long a key waits that was refused so often in a row; none when it is looked at again at once.
fn pause_after(refusals: u32) -> Option<Duration> {
    let doublings = refusals.checked_sub(2)?;
    Some(FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_PAUSE))
}
