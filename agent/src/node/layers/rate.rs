//! So many bytes in a second, and what was not used of the last one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::locks::locked;

/// Less is not worth an answer, in bytes, unless no more was asked for or a second has less.
const LEAST: u64 = 64 << 10;

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
        let least = wanted.min(LEAST).min(self.in_a_second);
        loop {
            let left = self.refill();
            let missing = {
                let mut present = locked(&self.left);
                if present.0 >= least {
                    let taken = wanted.min(present.0);
                    present.0 -= taken;
                    return Some(taken);
                }
                least - left.min(least)
            };
            let pause = Duration::from_secs_f64(missing as f64 / self.in_a_second as f64);
            let pause = pause.max(Duration::from_millis(5));
            if Instant::now() + pause > until {
                return None;
            }
            sleep(pause).await;
        }
    }

    /// They were not used.
    pub(super) fn give_back(&self, bytes: u64) {
        let mut left = locked(&self.left);
        left.0 = left.0.saturating_add(bytes).min(self.in_a_second);
    }

    fn refill(&self) -> u64 {
        let mut left = locked(&self.left);
        let now = Instant::now();
        let more = now.saturating_duration_since(left.1).as_secs_f64() * self.in_a_second as f64;
        // What is less than a byte is not lost.
        if more >= 1.0 {
            *left = (left.0.saturating_add(more as u64).min(self.in_a_second), now);
        }
        left.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_has_so_many() {
        let rate = Rate::new(1 << 20);
        let begun = Instant::now();
        let mut taken = 0;
        while taken < 5 << 20 {
            taken += rate.take(2 << 20, Duration::from_secs(4)).await.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        // The first second's are there from the beginning.
        assert!((3.8..4.3).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_slow_is_refused_and_what_is_not_used_is_left() {
        let rate = Rate::new(1000);
        assert_eq!(rate.take(1 << 20, Duration::ZERO).await, Some(1000));
        assert_eq!(rate.take(1 << 20, Duration::from_millis(100)).await, None);
        rate.give_back(1000);
        assert_eq!(rate.take(10, Duration::ZERO).await, Some(10));
    }
}
