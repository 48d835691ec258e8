//! Which of many steps a sweep takes: all of them for `make soak`, a seeded sample in the ordinary suite.
//!
//! The sample is the first step, where the first word of one side crosses the end of the other, and every `stride`-th
//! from an offset that the seed gives: `KETCH_SWEEP_SEED`, or the time, so that runs add up to the whole. It is printed
//! with its size, so that a finding can be had again.

use std::time::SystemTime;

use crate::case::Case;

/// The steps `0..of` that are taken.
#[derive(Debug)]
pub struct Sample {
    name: String,
    seed: usize,
    stride: usize,
    of: usize,
}

impl Sample {
    /// A sample of `of` steps of the case's test; every `stride`-th, unless the whole is asked for.
    ///
    /// # Panics
    /// With a seed that is no number.
    #[must_use]
    pub fn of(case: &Case, of: usize, stride: usize) -> Self {
        Self {
            name: format!("{} {}", case.layout, case.name),
            seed: seed(),
            stride: if takes_all() { 1 } else { stride },
            of,
        }
    }

    /// The steps, counted from 0.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        let sampled = (self.seed % self.stride..self.of).step_by(self.stride).filter(|number| *number != 0);
        (0..self.of.min(1)).chain(sampled)
    }

    /// Prints what was taken, and at how many of them the signal has hit.
    pub fn tell(&self, hit: usize) {
        let Self { name, seed, of, .. } = self;
        println!("{name}: killed at {hit} of {} of {of} steps, seed {seed}", self.numbers().count());
    }
}

/// Whether nothing is left out: `make soak`.
pub(crate) fn takes_all() -> bool {
    std::env::var_os("KETCH_SOAK_CYCLES").is_some()
}

/// As asked for, or by the time.
///
/// # Panics
/// When it is asked for and no number.
pub(crate) fn seed() -> usize {
    match std::env::var("KETCH_SWEEP_SEED") {
        Ok(text) => text.parse().expect("KETCH_SWEEP_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| usize::try_from(since.as_secs() % 1000).unwrap_or(0)),
    }
}
