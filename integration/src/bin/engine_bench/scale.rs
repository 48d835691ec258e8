//! `make bench-scale`: what a large cluster costs. `ketch-scale` of agent/scale measures, by the product's own code: the scheduler by
//! itself, and a control plane of three managers with nodes that only pretend. Here it is run, judged and kept.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::promises::{self, Bound, Promise};
use super::samples::Samples;
use super::{Extent, OURS, knob, listed};

/// The scheduler's largest and smallest cluster.
const LARGEST: usize = 10_000;
const SMALLEST: usize = 100;

/// All of it.
pub(crate) fn measure() {
    let quick = knob("QUICK", 0) > 0;
    let mut samples = Samples::default();
    samples.facts(Extent { quick, rounds: 1, heavy: 1 });
    for part in ["scheduler", "cluster"] {
        if listed("CASES", part) {
            take(part, &mut samples);
        }
    }
    samples.load("load_after");
    println!("{}", samples.table());
    let plain =
        ["CASES", "SCALE"].iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()));
    promises::scale(&samples).tell(&samples, plain && !quick);
}

/// Runs one part, which tells its samples as it goes.
fn take(part: &str, samples: &mut Samples) {
    let path = std::env::var_os("SCALE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let path =
        path.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ketch-scale").into());
    let mut child = Command::new(&path).arg(part).stdout(Stdio::piped()).spawn().expect("run ketch-scale");
    let said = BufReader::new(child.stdout.take().expect("its output"));
    for line in said.lines() {
        let line = line.expect("read its output");
        let words: Vec<&str> = line.split('\t').collect();
        if let ["sample", case, value] = words.as_slice() {
            samples.keep(case, OURS, value.parse().expect("a number"));
        }
    }
    let ended = child.wait().expect("wait for ketch-scale");
    assert!(ended.success(), "ketch-scale {part}: {ended}");
}

/// What is promised, in the order of issue 7.
pub(crate) fn promises(samples: &Samples) -> Vec<Promise> {
    let ours = |case: &str| samples.of(case, OURS);
    let scheduler = |nodes: usize, what: &str| ours(&format!("scheduler, {nodes} nodes, {what}"));
    let growth = || {
        let ratio = scheduler(LARGEST, "ns for each placement, filling")?
            / scheduler(SMALLEST, "ns for each placement, filling")?;
        #[allow(clippy::cast_precision_loss, reason = "thousands")]
        let logarithms = (LARGEST as f64).ln() / (SMALLEST as f64).ln();
        Some(ratio / logarithms)
    };
    let (most, least) = (Bound::AtMost, Bound::AtLeast);
    let promise = |what, bound, measured| Promise { what, bound, measured };
    vec![
        promise(
            "the scheduler by itself, 1,000,000 tasks over 10,000 nodes, filling them: placements a second of one processor",
            least(100_000.0),
            scheduler(LARGEST, "placements a second of a processor, filling"),
        ),
        promise(
            "the same while nodes go and come",
            least(100_000.0),
            scheduler(LARGEST, "placements a second of a processor, nodes going"),
        ),
        promise(
            "cost of a placement with 10,000 nodes over that with 100, over the same of their logarithms",
            most(1.0),
            growth(),
        ),
        promise(
            "three managers, 10,000 nodes: tasks from create to running a second",
            least(5000.0),
            ours("control plane, tasks from create to running a second"),
        ),
        promise(
            "the same beside 100,000 tasks: from create to assigned, p99, ms",
            most(400.0),
            ours("control plane, create to assigned beside all tasks, p99, ms"),
        ),
        promise("the same: leader's memory, MiB", most(2048.0), ours("control plane, leader's memory, MiB")),
        promise(
            "a leader at rest: cost of a node beside 10,000 over that beside 1,000",
            most(1.1),
            ours("control plane, at rest, cost of a node with most nodes over that with fewest"),
        ),
        promise(
            "kill of the leader of 10,000 nodes to the first task of a new service that runs, s",
            most(5.0),
            ours("control plane, the leader is killed: until tasks of a new service run, s"),
        ),
    ]
}
