//! How often an attack is tried that has to win a race: a sample in the ordinary suite, many thousand rounds in `make
//! soak`, and in neither longer than its time.
//!
//! What was done is printed with the budget, so that "it did not fall" has a size. Called by the attacks.

use std::time::{Duration, Instant};

use crate::case::Case;
use crate::runtime::Kind;

/// Rounds in `make soak` (KETCH_SOAK_CYCLES).
const MANY: usize = 10_000;
/// Seconds for them; `KETCH_RACE_SECONDS` says otherwise.
const SOAK_SECONDS: u64 = 120;
/// Seconds for a sample.
const SAMPLE_SECONDS: u64 = 20;

/// The rounds, counted from 0.
#[derive(Debug)]
pub struct Race {
    name: String,
    rounds: usize,
    done: usize,
    budget: Duration,
    started: Instant,
}

impl Race {
    /// The rounds of the case's test: `sample` of them, unless many are asked for, or the attack is to be proven, which
    /// ends with the first round that it wins.
    ///
    /// # Panics
    /// With a time that is no number.
    #[must_use]
    pub fn of(case: &Case, sample: usize) -> Self {
        let (rounds, seconds) = match std::env::var_os("KETCH_SOAK_CYCLES") {
            Some(_) => (MANY, SOAK_SECONDS),
            None if case.runtime.kind == Kind::Naive => (MANY, SAMPLE_SECONDS),
            None => (sample, SAMPLE_SECONDS),
        };
        let seconds = std::env::var("KETCH_RACE_SECONDS")
            .map_or(seconds, |text| text.parse().expect("KETCH_RACE_SECONDS is a number of seconds"));
        Self {
            name: format!("{} {}", case.layout, case.name),
            rounds,
            done: 0,
            budget: Duration::from_secs(seconds),
            started: Instant::now(),
        }
    }
}

impl Iterator for Race {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.done < self.rounds && self.started.elapsed() < self.budget {
            self.done += 1;
            return Some(self.done - 1);
        }
        let Self { name, rounds, done, budget, started } = self;
        let took = started.elapsed().as_secs_f64();
        println!("{name}: raced {done} of {rounds} rounds in {took:.1} of {} s", budget.as_secs());
        None
    }
}
