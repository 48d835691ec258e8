//! How long a worker waits before it looks for the leader again.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
pub(super) const LONGEST: Duration = Duration::from_secs(8);
/// While managers answer that another one leads, or none yet: the next leader takes the node for lost a few seconds after its election.
pub(super) const LONGEST_ANSWERED: Duration = Duration::from_secs(2);

/// Each wait is twice as long as the one before, and somewhere in its upper half: workers that lost one leader don't come to
/// the next one all at once.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(SHORTEST)
    }

    /// The next wait, by random bits.
    pub(super) fn next(&mut self, bits: u128) -> Duration {
        self.next_within(LONGEST, bits)
    }

    /// The next wait, which is no longer than that.
    pub(super) fn next_within(&mut self, longest: Duration, bits: u128) -> Duration {
        let half = self.0.min(longest) / 2;
        self.0 = (self.0 * 2).min(longest);
        let share = u32::try_from(bits & 0xffff).unwrap_or(0);
        half + half * share / 0x1_0000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_eight_seconds_less_a_part() {
        let mut backoff = Backoff::new();
        for longest in [100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000] {
            let wait = backoff.next(u128::MAX);
            let longest = Duration::from_millis(longest);
            assert!(wait <= longest && wait > longest * 9 / 10, "{wait:?}");
        }
        assert_eq!(backoff.next(0), LONGEST / 2);
        for _ in 0..3 {
            let wait = backoff.next_within(LONGEST_ANSWERED, u128::MAX);
            assert!(wait <= LONGEST_ANSWERED && wait > LONGEST_ANSWERED * 9 / 10, "{wait:?}");
        }
    }
}
