//! Moments of the past, as spans: by tokio's clock, which neither jumps nor can be set.

use std::time::Duration;

use tokio::time::Instant;

/// A moment that may lie before this start of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    seen: Instant,
    /// How long ago it was when it was seen.
    before: Duration,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self::at(Instant::now())
    }

    pub(super) fn at(seen: Instant) -> Self {
        Self { seen, before: Duration::ZERO }
    }

    pub(super) fn ago(before: Duration) -> Self {
        Self { seen: Instant::now(), before }
    }

    pub(super) fn age(self) -> Duration {
        self.before.saturating_add(self.seen.elapsed())
    }

    /// When it will be that long ago.
    pub(super) fn after(self, span: Duration) -> Instant {
        self.seen + span.saturating_sub(self.before)
    }
}
