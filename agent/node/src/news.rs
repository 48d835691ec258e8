//! What a leader lets users know of what it has decided by itself: ketchd makes an event of it. Nothing hangs on it.

use ketch_cluster::id::ServiceId;

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
}
