//! What is counted and how long things take, for whoever reads `/metrics`. Nothing is decided by it.
//!
//! A loop counts where it works, in the object that it works on ([`Leader`](crate::manager::Leader),
//! [`Dispatcher`](crate::dispatcher::Dispatcher)): a new term counts from nothing, which Prometheus knows as a restart. ketchd
//! writes the text.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
    use super::*;

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
}
