//! What a leader lets users know of what it has decided by itself: ketchd makes an event of it. Nothing hangs on it.

use ketch_cluster::id::{ServiceId, TaskId};

/// Of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub service: ServiceId,
    pub name: String,
    pub what: What,
    /// A sentence's end.
    pub reason: String,
}

/// What has happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was given other replicas by its load (`ketch.scale.*`).
    Scaled { from: u64, to: u64 },
    /// Its replicas stay as they are, since its load is not known, or it may not be changed now.
    ScaleHeld,
    /// Its load asks for more replicas than it may have.
    ScaleAtMost,
    /// A task of it was asked to make room for one of a higher priority (`ketch.priority`).
    Preempted { task: TaskId },
    /// A task of it moves to another node (`ketch.rebalance`).
    Moves { task: TaskId },
}

impl News {
    /// A line in the log of who decides.
    pub(crate) fn log(&self) {
        let Self { name, what, reason, .. } = self;
        match what {
            What::Scaled { from, to } => tracing::info!(service = name, from, to, "scaled: {reason}"),
            What::ScaleHeld => tracing::warn!(service = name, "not scaled: {reason}"),
            What::ScaleAtMost => tracing::warn!(service = name, "not scaled any further: {reason}"),
            What::Preempted { task } | What::Moves { task } => {
                tracing::info!(service = name, %task, "{reason}");
            }
        }
    }
}
