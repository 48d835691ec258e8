//! Spans: a number of nanoseconds there, which may be negative, and a `Duration` here.

use std::time::Duration;

/// None when it is negative.
pub(crate) fn of(nanos: i64) -> Option<Duration> {
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// A negative one as zero.
pub(crate) fn of_at_least_zero(nanos: i64) -> Duration {
    of(nanos).unwrap_or_default()
}

pub(crate) fn shown(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
