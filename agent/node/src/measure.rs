//! What is counted and how long things take, for whoever reads `/metrics`. Nothing is decided by it.
//!
//! A loop counts where it works, in the object that it works on ([`Leader`](crate::manager::Leader),
//! [`Dispatcher`](crate::dispatcher::Dispatcher)): a new term counts from nothing, which Prometheus knows as a restart. ketchd
//! writes the text.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ketch_cluster::store::{Change, Object};

use crate::news::What;

/// So many so far.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: usize) {
        let _before = self.0.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper ends of the buckets that spans are counted in, in milliseconds.
pub const BUCKETS: [u64; 10] = [1, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Spans {
    /// Of each bucket alone; the last is of what took longer than any.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpansNow {
    /// How many took at most so long as the bucket of [`BUCKETS`] says.
    pub up_to: [u64; BUCKETS.len()],
    pub count: u64,
    pub sum: Duration,
}

impl Spans {
    pub fn took(&self, span: Duration) {
        let bucket = BUCKETS.iter().position(|end| span <= Duration::from_millis(*end));
        let _before = self.buckets[bucket.unwrap_or(BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let _before = self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    #[must_use]
    pub fn now(&self) -> SpansNow {
        let mut now = SpansNow::default();
        for (bucket, up_to) in self.buckets.iter().zip(&mut now.up_to) {
            now.count += bucket.load(Ordering::Relaxed);
            *up_to = now.count;
        }
        now.count += self.buckets[BUCKETS.len()].load(Ordering::Relaxed);
        now.sum = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        now
    }
}

/// One reconciler's turns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TurnsNow {
    pub committed: u64,
    pub refused: u64,
    /// From the look at the store to what is wanted.
    pub deciding: Duration,
    /// From there until it is in the log, or refused.
    pub committing: Duration,
}

/// What a leader counts.
#[derive(Debug, Default)]
pub struct OfLeader {
    turns: Mutex<BTreeMap<&'static str, TurnsNow>>,
    /// Tasks that the scheduler has placed, and times that it said why one waits.
    pub placed: Counter,
    pub unplaced: Counter,
    pub decisions: Decisions,
    /// From a proposal until it is settled.
    pub proposals: Spans,
    /// Those of them that did not enter the log, or nobody knows.
    pub failed_proposals: Counter,
}

impl OfLeader {
    /// A turn of that reconciler, with what it took.
    pub(crate) fn turn(&self, reconciler: &'static str, took: &TurnsNow) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = turns.entry(reconciler).or_default();
        turns.committed += took.committed;
        turns.refused += took.refused;
        turns.deciding += took.deciding;
        turns.committing += took.committing;
    }

    #[must_use]
    pub fn turns(&self) -> BTreeMap<&'static str, TurnsNow> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a leader has decided by itself of services that ask for it by labels (`ketch.scale.*`, `.priority`, `.rebalance`, `.schedule`).
#[derive(Debug, Default)]
pub struct Decisions {
    scaled: Counter,
    scale_held: Counter,
    scale_at_most: Counter,
    preempted: Counter,
    rebalanced: Counter,
    /// Due times that made a run, and such that made none.
    schedule_run: Counter,
    schedule_passed: Counter,
}

impl Decisions {
    pub(crate) fn note(&self, what: What) {
        let counter = match what {
            What::Scaled { .. } => &self.scaled,
            What::ScaleHeld => &self.scale_held,
            What::ScaleAtMost => &self.scale_at_most,
            What::Preempted { .. } => &self.preempted,
            What::Moves { .. } => &self.rebalanced,
        };
        counter.add(1);
    }

    /// What was committed of services' schedules.
    pub(crate) fn note_schedule(&self, changes: &[Change]) {
        for change in changes {
            let (Some(Object::Service(old)), Some(Object::Service(new))) = (&change.old, &change.new) else {
                continue;
            };
            let (Some(old), Some(new)) = (old.job, new.job) else { continue };
            let (Some(before), Some(after)) = (old.schedule, new.schedule) else { continue };
            // Of the runs that users force a schedule knows nothing.
            let is_run = new.iteration != old.iteration && after.decided_until != before.decided_until;
            self.schedule_run.add(usize::from(is_run));
            self.schedule_passed.add(usize::from(after.passed != before.passed));
        }
    }

    /// So many of each.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 7] {
        [
            ("scaled", self.scaled.count()),
            ("scale_held", self.scale_held.count()),
            ("scale_at_most", self.scale_at_most.count()),
            ("preempted", self.preempted.count()),
            ("rebalanced", self.rebalanced.count()),
            ("schedule_run", self.schedule_run.count()),
            ("schedule_passed", self.schedule_passed.count()),
        ]
    }
}

/// What a dispatcher counts.
#[derive(Debug, Default)]
pub struct OfDispatcher {
    pub heartbeats: Counter,
    /// Nodes whose heartbeats ended.
    pub silent: Counter,
    /// Words on tasks that were taken in.
    pub words: Counter,
    /// Sessions that have begun.
    pub sessions: Counter,
}

#[cfg(test)]
mod tests {
    use ketch_cluster::control::create_service;
    use ketch_cluster::objects::service::{JobStatus, Passed, PassedBecause, ScheduleStatus};
    use ketch_cluster::objects::{Service, Version};
    use ketch_cluster::store::Store;
    use ketch_cluster::time::Timestamp;
    use ketch_cluster::view::{Observed, View};

    use super::*;
    use crate::fixture::objects;

    #[test]
    fn buckets_hold_what_took_at_most_so_long() {
        let spans = Spans::default();
        for milliseconds in [0, 1, 2, 100, 40_000] {
            spans.took(Duration::from_millis(milliseconds));
        }
        let now = spans.now();
        assert_eq!(now.up_to, [2, 3, 3, 3, 3, 4, 4, 4, 4, 4]);
        assert_eq!((now.count, now.sum), (5, Duration::from_millis(40_103)));
    }

    #[test]
    fn each_decision_is_counted_by_its_word() {
        let decisions = Decisions::default();
        decisions.note(What::Scaled { from: 1, to: 2 });
        decisions.note(What::ScaleHeld);
        let (mut store, observed) = (Store::default(), Observed::default());
        let spec = objects::replicated("web", 1);
        let made = create_service(&View::new(&store, &observed), spec, Timestamp(1), &mut || 1);
        let (id, actions) = made.unwrap();
        store.apply(Version(1), &actions).unwrap();
        let at = |iteration, until, passed| {
            let mut service = Service::clone(store.service(id).unwrap());
            let schedule = ScheduleStatus { decided_until: Timestamp(until), ran: true, passed };
            service.job =
                Some(JobStatus { iteration, last_execution: Timestamp(1), schedule: Some(schedule) });
            Some(Object::from(service))
        };
        let passed = Some(Passed { due: Timestamp(9), why: PassedBecause::Missed });
        // Forced by a user, due, and passed.
        let steps = [at(1, 5, None), at(2, 5, None), at(3, 7, None), at(3, 9, passed)];
        let changes: Vec<_> =
            steps.windows(2).map(|it| Change { old: it[0].clone(), new: it[1].clone() }).collect();
        decisions.note_schedule(&changes);
        let counted = decisions.all().into_iter().filter(|(_, count)| *count > 0);
        let wanted = [("scaled", 1), ("scale_held", 1), ("schedule_run", 1), ("schedule_passed", 1)];
        assert_eq!(counted.collect::<Vec<_>>(), wanted);
    }
}
