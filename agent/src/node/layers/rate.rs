//! So many bytes in a second, and what was not used of the last one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::locks::locked;

/// Less is not worth an answer, in bytes, unless no more was asked for or a second has less.
const LEAST: u64 = 64 << 10;
/// It is not looked sooner again.
const BEAT: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Rate {
    in_a_second: u64,
    left: Mutex<(u64, Instant)>,
}

impl Rate {
    pub(super) fn new(in_a_second: u64) -> Self {
        Self { in_a_second, left: Mutex::new((in_a_second, Instant::now())) }
    }

    /// As many as may be given now, of those that are wanted; none when there are none in time.
    pub(super) async fn take(&self, wanted: u64, within: Duration) -> Option<u64> {
        let until = Instant::now() + within;
        loop {
            let now = Instant::now();
            match self.take_at(now, wanted) {
                Ok(taken) => return Some(taken),
                Err(pause) if now + pause > until => return None,
                Err(pause) => sleep(pause).await,
            }
        }
    }

    /// The error is how long it will take until there are any.
    fn take_at(&self, now: Instant, wanted: u64) -> Result<u64, Duration> {
        let mut left = locked(&self.left);
        let more = now.saturating_duration_since(left.1).as_secs_f64() * self.in_a_second as f64;
        // What is less than a byte is not lost.
        if more >= 1.0 {
            *left = (left.0.saturating_add(more as u64).min(self.in_a_second), now);
        }
        let least = wanted.min(LEAST).min(self.in_a_second);
        if left.0 < least {
            let missing = (least - left.0) as f64;
            return Err(Duration::from_secs_f64(missing / self.in_a_second as f64).max(BEAT));
        }
        let taken = wanted.min(left.0);
        left.0 -= taken;
        Ok(taken)
    }

    /// They were not used.
    pub(super) fn give_back(&self, bytes: u64) {
        let mut left = locked(&self.left);
        left.0 = left.0.saturating_add(bytes).min(self.in_a_second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many() {
        let rate = Rate::new(1 << 20);
        let begun = Instant::now();
        let (mut now, mut taken) = (begun, 0);
        while taken < 5 << 20 {
            match rate.take_at(now, 2 << 20) {
                Ok(bytes) => taken += bytes,
                Err(pause) => now += pause,
            }
        }
        let seconds = now.duration_since(begun).as_secs_f64();
        // The first second's are there from the beginning.
        assert!((3.8..4.3).contains(&seconds), "{seconds}");
    }

    #[test]
    fn what_is_not_there_is_not_given_and_what_is_not_used_is_left() {
        let rate = Rate::new(1000);
        let now = Instant::now();
        assert_eq!(rate.take_at(now, 1 << 20), Ok(1000));
        assert!(rate.take_at(now, 1 << 20).is_err());
        rate.give_back(1000);
        assert_eq!(rate.take_at(now, 10), Ok(10));
    }
}
