//! Tests that wait for a place, and what became of them. Called by the suite's main alone.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use super::{Counts, Test};

pub(super) struct Queued {
    pub(super) module: &'static str,
    pub(super) number: usize,
    pub(super) test: Test,
}

/// What became of a test, and when.
pub(super) struct Outcome {
    module: &'static str,
    began: Instant,
    ended: Instant,
    ending: Ending,
}

pub(super) enum Ending {
    Passed,
    Skipped,
    Failed(Failure),
}

#[derive(Clone)]
pub(super) struct Failure {
    pub(super) name: String,
    pub(super) message: String,
}

/// Of one module.
pub(super) struct Summed {
    pub(super) counts: Counts,
    pub(super) failures: Vec<Failure>,
    /// From its first test's beginning to its last one's end.
    pub(super) seconds: f64,
}

/// Runs so many at once, in their order.
pub(super) fn run_queue(
    queue: VecDeque<Queued>,
    jobs: usize,
    run: impl Fn(&Queued) -> Ending + Sync,
) -> Vec<Outcome> {
    let queue = Mutex::new(queue);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(queued) = { queue.lock().expect("no panic holds it").pop_front() } {
                    let began = Instant::now();
                    let ending = run(&queued);
                    let outcome = Outcome { module: queued.module, began, ended: Instant::now(), ending };
                    outcomes.lock().expect("no panic holds it").push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("no panic holds it")
}

/// None of a module of which nothing ran.
pub(super) fn summed(module: &str, outcomes: &[Outcome]) -> Option<Summed> {
    let own: Vec<_> = outcomes.iter().filter(|outcome| outcome.module == module).collect();
    let began = own.iter().map(|outcome| outcome.began).min()?;
    let ended = own.iter().map(|outcome| outcome.ended).max()?;
    let mut sum =
        Summed { counts: Counts::default(), failures: Vec::new(), seconds: (ended - began).as_secs_f64() };
    for outcome in own {
        match &outcome.ending {
            Ending::Passed => sum.counts.passed += 1,
            Ending::Skipped => sum.counts.skipped += 1,
            Ending::Failed(failure) => {
                sum.counts.failed += 1;
                sum.failures.push(failure.clone());
            }
        }
    }
    Some(sum)
}
