//! `make bench-scale`: what a large cluster costs. `ketch-scale` of agent/scale measures, by the product's own code: the scheduler by
//! itself, and a control plane of three managers with nodes that only pretend. Here it is run, judged and kept.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use super::promises::{self, Bound, Promise};
use super::samples::Samples;
use super::{Extent, OURS, knob, listed};

/// The scheduler's largest and smallest cluster.
const LARGEST: usize = 10_000;
const SMALLEST: usize = 1_000;

/// All of it. A part that can't run leaves the others their samples, and is told at the end.
pub(crate) fn measure() -> ExitCode {
    let quick = knob("QUICK", 0) > 0;
    let mut samples = Samples::default();
    samples.facts(Extent { quick, rounds: 1, heavy: 1 });
    let parts = ["scheduler", "cluster"].into_iter().filter(|part| listed("CASES", part));
    let failed: Vec<String> = parts.filter_map(|part| take(part, &mut samples).err()).collect();
    samples.load("load_after");
    println!("{}", samples.table());
    let plain =
        ["CASES", "SCALE"].iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()));
    promises::scale(&samples).tell(&samples, plain && !quick && failed.is_empty());
    failed.iter().for_each(|why| eprintln!("\nnot measured: {why}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one part, which tells its samples as it goes; why it did not come to its end, if it did not.
fn take(part: &str, samples: &mut Samples) -> Result<(), String> {
    let path = std::env::var_os("SCALE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let path =
        path.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ketch-scale").into());
    let failed = |why: &dyn std::fmt::Display| format!("{part}: {}: {why}", path.display());
    let mut child =
        Command::new(&path).arg(part).stdout(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
    let said = BufReader::new(child.stdout.take().expect("its output"));
    for line in said.lines() {
        let line = line.expect("read its output");
        let words: Vec<&str> = line.split('\t').collect();
        if let ["sample", case, value] = words.as_slice() {
            samples.keep(case, OURS, value.parse().expect("a number"));
        }
    }
    let ended = child.wait().expect("wait for ketch-scale");
    if ended.success() { Ok(()) } else { Err(failed(&ended)) }
}

/// What is promised, in the order of issue 7.
pub(crate) fn promises(samples: &Samples) -> Vec<Promise> {
    let ours = |case: &str| samples.of(case, OURS);
    let scheduler = |nodes: usize, what: &str| ours(&format!("scheduler, {nodes} nodes, {what}"));
    let growth = |phase: &str| {
        let case = format!("ns for each placement, {phase}");
        let ratio = scheduler(LARGEST, &case)? / scheduler(SMALLEST, &case)?;
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
            "filling: cost of a placement on 10,000 nodes over that on 1,000, over the same of their logarithms",
            most(1.0),
            growth("filling"),
        ),
        promise("the same while nodes go and come", most(1.0), growth("nodes going")),
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
        promise(
            "the same: leader's memory, the most, MiB",
            most(2048.0),
            ours("control plane, leader's memory, the most, MiB"),
        ),
        promise(
            "a leader at rest: cost of a node beside 10,000 over that beside 1,000",
            most(1.1),
            ours("control plane, at rest, cost of a node with most nodes over that with fewest"),
        ),
        promise(
            "a leader at rest: percent of a processor for each 1,000 nodes, by the line through three sizes",
            Bound::None,
            ours("control plane, at rest, percent of a processor for each 1,000 nodes"),
        ),
        promise(
            "the same of 50,000 nodes, extrapolated from those three, not measured",
            Bound::None,
            ours("control plane, at rest, 50,000 nodes, extrapolated, percent of a processor"),
        ),
        promise(
            "kill of the leader of 10,000 nodes to the first write that the next one takes, s",
            most(5.0),
            ours("control plane, the leader is killed: until the next one writes, s"),
        ),
        promise(
            "the same to all ten tasks of a new service running, s",
            most(5.0),
            ours("control plane, the leader is killed: until tasks of a new service run, s"),
        ),
    ]
}
