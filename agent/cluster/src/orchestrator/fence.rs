//! The label `ketch.fence` of a service: how long a replacement waits for a task whose node is down.
//!
//! A fenced task stops itself after that long without a manager (the worker's part), so that after the wait at most one of
//! the two runs. `control` refuses what can't be read; the restart supervisor asks for the wait.

use std::time::Duration;

use crate::fault::Fault;
use crate::objects::Labels;

pub const LABEL: &str = "ketch.fence";

/// How long a lost task is waited for before it is given up as orphaned.
pub(super) const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The label's value is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as 90s or 1m30s")]
pub struct FenceError(pub String);

/// The fence that the service's labels ask for.
///
/// # Errors
/// When the label is there but is no duration in whole `h`, `m`, `s` or `ms`.
pub fn parse(labels: &Labels) -> Result<Option<Duration>, FenceError> {
    let Some(text) = labels.get(LABEL) else { return Ok(None) };
    duration(text).map(Some).ok_or_else(|| FenceError(text.clone()))
}

/// The same where nothing can be refused any more: one that can't be read is as long as a task is waited for at all.
pub(super) fn wait(labels: &Labels) -> Option<Duration> {
    if Fault::FenceSkipped.is_made() {
        return None;
    }
    parse(labels).unwrap_or(Some(ORPHAN_AFTER))
}

/// Whole `h`, `m`, `s` and `ms` after each other, as Go writes them.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let one = match unit {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        total = total.checked_add(one.checked_mul(digits.parse().ok()?)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::from([(LABEL.to_owned(), text.to_owned())])
    }

    #[test]
    fn durations_in_gos_form() {
        assert_eq!(parse(&Labels::new()), Ok(None));
        for (text, seconds) in [("90s", 90), ("1m30s", 90), ("1h", 3600), ("2000ms", 2), ("0s", 0)] {
            assert_eq!(parse(&labels(text)), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_and_otherwise_waits_longest() {
        for text in ["", "90", "s", "1.5s", "-1s", "1d", "99999999999h", "1m 30s"] {
            assert_eq!(parse(&labels(text)), Err(FenceError(text.to_owned())));
            assert_eq!(wait(&labels(text)), Some(ORPHAN_AFTER));
        }
    }
}
