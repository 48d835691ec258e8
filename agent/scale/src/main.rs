//! What a large cluster costs: `ketch-scale scheduler`, the scheduler by itself; `ketch-scale cluster`, a whole control plane;
//! `ketch-scale leader`, of that the leader's end alone. The samples go to standard output, one a line, as `sample`, case and number between tabs, and to standard error to be read.
//! `QUICK=1` is a smaller one.
//!
//! Called by `integration`'s `engine_bench scale`, which judges and keeps the samples. Nothing here is timed by an assertion.

#![expect(clippy::disallowed_methods, reason = "folders of a bench, which it has made itself")]

mod agents;
mod control_plane;
mod executor;
mod manager;
mod meter;
mod random;
mod scheduler;
mod workload;
mod world;

use std::error::Error;

use control_plane::Part;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Quick,
}

/// Whatever ends a bench.
pub(crate) type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    allow_all_files();
    let quick = std::env::var("QUICK").is_ok_and(|value| !matches!(value.as_str(), "" | "0"));
    let extent = if quick { Extent::Quick } else { Extent::Whole };
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["scheduler", sizes @ ..] => scheduler::measure(extent, &numbers(sizes)?),
        ["cluster", sizes @ ..] => control_plane::measure(extent, Part::Whole, &numbers(sizes)?),
        ["leader", sizes @ ..] => control_plane::measure(extent, Part::LeaderChange, &numbers(sizes)?),
        // Parts of a cluster.
        ["manager", words @ ..] => manager::run(words),
        ["agents", words @ ..] => agents::run(words),
        _ => Err("ketch-scale scheduler | cluster | leader [<nodes>...]".into()),
    }
}

/// Each node that pretends has a connection: this process and those that it starts may have as many files as the machine lets it.
fn allow_all_files() {
    let limit = getrlimit(Resource::Nofile);
    // Who may not has fewer, and is told by what fails then.
    let _allowed = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn numbers(words: &[&str]) -> Result<Vec<usize>, Failure> {
    words.iter().map(|word| Ok(word.parse()?)).collect()
}
