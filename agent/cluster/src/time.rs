//! Moments, as the proposer's clock gave them: data like any other here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// By how much the clocks of two leaders in turn may differ. Further ahead, a clock was wrong.
const SLACK: Duration = Duration::from_secs(10);

/// Nanoseconds since 1970 by the clock of the leader that made it. Only leaders make moments that are compared: workers tell
/// ages (see [`view`](crate::view)). The next leader's clock may be another one, or the same one after it was set right:
/// what waits asks [`is_due`](Self::is_due), so that no clock of the past can hold it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `span` later; the end of time when that is past it (the year 2554).
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(span)))
    }

    /// `span` earlier; 1970 when that is before it.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(span)))
    }

    /// Whether a wait until this moment is over, which was made by adding `span` to the present of then. It is also over
    /// when it lies further ahead than that: then a clock was ahead which is right now. So nothing waits for longer than
    /// `span` and a few seconds, whatever the clocks have been.
    #[must_use]
    pub fn is_due(self, span: Duration, now: Self) -> bool {
        self <= now || self.since(now) > span.saturating_add(SLACK)
    }

    /// Whether it can't have been yet, with room for clocks that differ a little.
    #[must_use]
    pub fn is_ahead_of(self, now: Self) -> bool {
        self.since(now) > SLACK
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::at;
    use proptest::prelude::*;

    #[test]
    fn a_wait_is_over_when_it_has_passed_or_was_made_by_a_clock_that_was_ahead() {
        let span = Duration::from_secs(5);
        for (moment, due) in [(95, true), (100, true), (101, false), (105, false), (115, false), (116, true)]
        {
            assert_eq!(at(moment).is_due(span, at(100)), due, "{moment}");
        }
        assert!(at(86_400 * 365).is_due(span, at(100)));
        assert!(!Timestamp(u64::MAX).is_due(Duration::MAX, at(100)), "the longest wait is one");
    }

    #[test]
    fn a_moment_is_ahead_only_beyond_the_slack() {
        for (moment, ahead) in [(90, false), (100, false), (110, false), (111, true)] {
            assert_eq!(at(moment).is_ahead_of(at(100)), ahead, "{moment}");
        }
    }

    proptest! {
        #[test]
        fn nothing_waits_for_longer_than_its_span_and_the_slack(made in 0..100_000_u64, span in 0..1000_u64, now in 0..100_000_u64) {
            let wait = Duration::from_secs(span);
            let moment = at(made).after(wait);
            prop_assert!(moment.is_due(wait, at(now)) || moment <= at(now).after(wait + SLACK));
            prop_assert!(made > now || now >= made + span || !moment.is_due(wait, at(now)), "not before its time");
        }
    }
}
