//! `make bench-ketchd`: ketchd beside dockerd 28.5 of the current peers, on the same images and the same disk; with the word
//! `mesh` (`make bench-mesh`) clusters of it ([`mesh`]), with `scale` (`make bench-scale`) large ones ([`scale`]).
//!
//! Each engine runs in namespaces of its own; rounds are interleaved. Prints tables and promises, and writes `ketchd.json` or `mesh.json` and
//! the rows of promises in README.md, the repository's and that of integration/bench, which tells the knobs. `supervisor` sees
//! to it that nothing is left, however a run ends.
#![allow(clippy::disallowed_methods, reason = "the rule on folders is for paths inside a rootfs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench: a failure ends it with its message")]

mod client;
mod contender;
mod crowd;
mod life;
mod link;
mod mesh;
mod network;
mod promises;
mod pull;
mod samples;
mod scale;
mod supervisor;

use std::path::PathBuf;
use std::process::ExitCode;

use ketch_integration::ketchd::Maker;
use ketch_integration::runtime::Runtime;
use ketch_integration::{Caller, Case, Layout};

use contender::Contender;
use samples::Samples;

/// ketchd.
pub const OURS: &str = "ketchd";
/// dockerd 28.5.
pub const PEER: &str = "dockerd";
/// Another ketchd to compare with (`OTHER`).
const OTHER: &str = "other";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub quick: bool,
    /// Of short cases.
    pub rounds: usize,
    /// Of long ones.
    pub heavy: usize,
}

/// One part of the measurement.
type Step = fn(&mut [Contender<'_>], Extent, &mut Samples);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("client") => client::run(&arguments[1..]),
        Some("link") => link::run(&arguments[1..]),
        Some("inside") if arguments.get(1).is_some_and(|word| word == "mesh") => mesh::measure(),
        Some("inside") => measure(),
        // What it makes ends with it, and it needs no namespaces.
        Some("scale") => return scale::measure(),
        Some("watch") => return supervisor::watch(&arguments[1..]),
        _ => return supervisor::run(&arguments),
    }
    ExitCode::SUCCESS
}

/// A number of the environment.
pub fn knob(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn listed(name: &str, one: &str) -> bool {
    std::env::var(name).map_or(true, |all| all.is_empty() || all.split(',').any(|part| part == one))
}

fn makers() -> Vec<(&'static str, Maker)> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ketchd"));
    let mut all = vec![(OURS, Maker::Ketch(path("KETCHD").unwrap_or(default))), (PEER, Maker::Docker)];
    all.extend(path("OTHER").map(|path| (OTHER, Maker::Ketch(path))));
    all.retain(|(key, _)| listed("ONLY", key));
    all
}

fn measure() {
    let quick = knob("QUICK", 0) > 0;
    let rounds = knob("ROUNDS", if quick { 10 } else { 40 });
    let extent = Extent { quick, rounds, heavy: knob("HEAVY_ROUNDS", if quick { 1 } else { 3 }) };
    let runtime = Runtime::find("busybox").expect("busybox-static");
    let case = |key: &str, number| Case::new(key, number, Layout::Native, Caller::Root, &runtime);
    let makers = makers();
    let cases: Vec<Case> = makers.iter().enumerate().map(|(at, (key, _))| case(key, at)).collect();
    let mut samples = Samples::default();
    samples.facts(extent);
    let parts = std::env::var("PARTS").ok().filter(|path| !path.is_empty());
    if let Some(text) = parts.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) {
        samples.take_up(&text);
    }
    let mut contenders: Vec<Contender<'_>> =
        makers.iter().zip(&cases).map(|((key, maker), case)| Contender::start(key, maker, case)).collect();
    let steps: [(&str, Step); 6] = [
        ("idle", crowd::idle),
        ("life", life::measure),
        ("network", network::measure),
        ("rate", life::rate),
        ("pull", pull::measure),
        ("crowd", crowd::measure),
    ];
    for (name, step) in steps {
        if listed("CASES", name) {
            eprintln!("{name} ...");
            step(&mut contenders, extent, &mut samples);
            if let Some(path) = &parts {
                std::fs::write(path, samples.whole()).expect("write this part's samples");
            }
        }
    }
    contenders.into_iter().for_each(Contender::end);
    samples.load("load_after");
    println!("{}", samples.table());
    let plain = ["ONLY", "ROUNDS", "HEAVY_ROUNDS", "KETCHD", "DISK"]
        .iter()
        .all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()));
    promises::engine(&samples).tell(&samples, plain && !quick);
}
