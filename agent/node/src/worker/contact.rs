//! When a manager was last heard, which the label `ketch.fence` of a service counts from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ketch_cluster::objects::Task;
use ketch_cluster::orchestrator::fence;
use ketch_cluster::time::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::moment::Moment;

/// The managers wait as long for a fence that can't be read.
const UNREADABLE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct Contact {
    last: watch::Sender<Moment>,
    /// Whether a task here has a fence: then the moment outlives the agent.
    is_kept: AtomicBool,
}

impl Contact {
    pub(super) fn new(last: Moment) -> Self {
        Self { last: watch::Sender::new(last), is_kept: AtomicBool::new(false) }
    }

    /// A manager has answered what was asked at that moment. The moment of the answer would be too late: the leader counts from
    /// when it was asked.
    pub(super) fn heard(&self, asked: Instant) {
        self.last.send_replace(Moment::at(asked));
    }

    /// When that was, by this node's wall clock, which says `now`.
    pub(super) fn at(&self, now: Timestamp) -> Timestamp {
        now.before(self.last.borrow().age())
    }

    pub(super) fn keep(&self, is_kept: bool) {
        self.is_kept.store(is_kept, Ordering::Relaxed);
    }

    pub(super) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// Waits until no manager was heard for that long.
    pub(super) async fn lost_for(&self, span: Duration) {
        let mut last = self.last.subscribe();
        loop {
            let end = last.borrow_and_update().after(span);
            tokio::select! {
                biased;
                // The sender is here as well: it can't end first.
                _ = last.changed() => {}
                () = sleep_until(end) => return,
            }
        }
    }
}

/// After how long without a manager the task stops itself.
pub(super) fn fence_of(task: &Task) -> Option<Duration> {
    fence::parse(&task.service_labels).unwrap_or(Some(UNREADABLE))
}
