//! How long a worker waits before it looks for the leader again. Called by the worker, and by the bench whose nodes only pretend.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(8);
/// While managers answer that another one leads, or none yet: the next leader takes the node for lost a few seconds after its election.
const LONGEST_ANSWERED: Duration = Duration::from_secs(2);
/// A session that was as long was a good one: the next try comes soon.
const GOOD: Duration = Duration::from_secs(10);

/// What the last try has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// A manager that says that it does not lead.
    Follower,
    /// Nobody, or a leader that takes no session or has ended it.
    Another,
}

/// Each wait is twice as long as the one before, and somewhere in its upper half: workers that lost one leader don't come to
/// the next one all at once.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Backoff {
    /// A try is over, with the session that it led to, if any: after a good one the waits are short again.
    pub fn tried_for(&mut self, span: Duration) {
        if span >= GOOD {
            *self = Self::default();
        }
    }

    /// The next wait, by random bits.
    pub fn next(&mut self, met: Met, bits: u128) -> Duration {
        let longest = match met {
            Met::Follower => LONGEST_ANSWERED,
            Met::Another => LONGEST,
        };
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
    fn it_doubles_up_to_eight_seconds_less_a_part_and_to_two_while_managers_answer() {
        let mut backoff = Backoff::default();
        for longest in [100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000] {
            let wait = backoff.next(Met::Another, u128::MAX);
            let longest = Duration::from_millis(longest);
            assert!(wait <= longest && wait > longest * 9 / 10, "{wait:?}");
        }
        assert_eq!(backoff.next(Met::Another, 0), LONGEST / 2);
        for _ in 0..3 {
            let wait = backoff.next(Met::Follower, u128::MAX);
            assert!(wait <= LONGEST_ANSWERED && wait > LONGEST_ANSWERED * 9 / 10, "{wait:?}");
        }
    }

    #[test]
    fn after_a_good_session_it_is_short_again() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            let _wait = backoff.next(Met::Another, 0);
        }
        backoff.tried_for(GOOD - Duration::from_millis(1));
        assert!(backoff.next(Met::Another, 0) > SHORTEST);
        backoff.tried_for(GOOD);
        assert_eq!(backoff.next(Met::Another, 0), SHORTEST / 2);
    }
}
