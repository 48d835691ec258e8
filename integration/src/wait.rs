//! Waiting for a condition with a deadline; a wait that fails says what it saw last.
//!
//! Processes are waited for by pidfd (`runtime`). What the kernel gives no descriptor for (a status, a file under
//! /proc or /sys) is looked at on a short beat here, and nowhere else.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: the machine is shared.
pub const DEADLINE: Duration = Duration::from_secs(30);

const BEAT: Duration = Duration::from_millis(3);

/// Asks `condition` until it gives a value; its error is what it saw instead.
///
/// # Panics
/// After [`DEADLINE`], with `what` and the last thing seen.
pub fn wait_until<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    wait_within(DEADLINE, what, condition)
}

/// The same with a deadline that is part of what is tested.
///
/// # Panics
/// After the deadline, with `what` and the last thing seen.
pub fn wait_within<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= end => {
                panic!("{what}: not within {:.1} s; last seen: {seen}", deadline.as_secs_f64())
            }
            Err(_) => std::thread::sleep(BEAT),
        }
    }
}
