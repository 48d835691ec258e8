//! What happened, in its order: printed when asked for, and hashed, so that two runs of a seed can be compared.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The events of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    events: u64,
    loud: bool,
    /// The last ones, for a failure's report.
    last: std::collections::VecDeque<String>,
}

/// So many are shown with a failure.
const KEPT: usize = 60;

impl Trace {
    pub(crate) fn new(loud: bool) -> Self {
        Self { hasher: DefaultHasher::new(), events: 0, loud, last: std::collections::VecDeque::new() }
    }

    /// Notes an event of the run, at a moment since its beginning.
    pub(crate) fn note(&mut self, at: Duration, event: &str) {
        (at, event).hash(&mut self.hasher);
        self.events += 1;
        let line = format!("{:>9.3} s  {event}", at.as_secs_f64());
        if self.loud {
            println!("{line}");
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn last(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}
