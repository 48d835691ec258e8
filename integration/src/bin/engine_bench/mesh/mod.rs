//! `make bench-mesh`: three ketchds as managers of one cluster, each in namespaces of its own, and a dockerd as a cluster of one.
//!
//! [`replicas`] is beside dockerd, whose routing mesh can't work without IPVS; the others are bounds of their own:
//! [`failover`], [`autoscale`], [`rest`] with a hundred nodes that have no containers, [`routing`], and [`layers`] on five nodes of its own. Called by `main`; knobs are in
//! `integration/bench/README.md`.

mod autoscale;
mod failover;
mod layers;
mod replicas;
mod rest;
mod routing;

use std::path::PathBuf;

use ketch_integration::ketchd::Maker;
use ketch_integration::mesh::{Mesh, REGISTRY, Wire};
use ketch_integration::runtime::Runtime;
use ketch_integration::{Caller, Case, Layout};

use super::promises::{self, Bound, Promise};
use super::samples::Samples;
use super::{Extent, OURS, PEER, knob, listed};

/// What is compared with, where it is no engine.
const PLAIN: &str = "plain";
/// By a port whose tasks are told who connects.
const RELAYED: &str = "relayed";
/// The managers of ours.
const MANAGERS: usize = 3;

/// The clusters.
struct Stage<'a> {
    ours: Mesh<'a>,
    peer: Option<Mesh<'a>>,
    /// Started when they are first needed.
    fakes: Option<rest::Fakes<'a>>,
}

/// One part of the measurement.
type Step = fn(&mut Stage<'_>, Extent, &mut Samples);

/// All of it.
pub(crate) fn measure() {
    let quick = knob("QUICK", 0) > 0;
    let rounds = knob("ROUNDS", if quick { 10 } else { 40 });
    let extent = Extent { quick, rounds, heavy: knob("HEAVY_ROUNDS", if quick { 1 } else { 3 }) };
    let runtime = Runtime::find("busybox").expect("busybox-static");
    let case = |key: &str, number| Case::new(key, number, Layout::Native, Caller::Root, &runtime);
    let (own, peers) = (case(OURS, 0), case(PEER, 1));
    let mut samples = Samples::default();
    samples.facts(extent);
    let formed = |case, makers: &[Maker]| {
        let mesh = Mesh::on(Wire::of_fast_nodes(case), makers, &[]);
        mesh.form(makers.len());
        mesh
    };
    let path = std::env::var_os("KETCHD").filter(|value| !value.is_empty()).map(PathBuf::from);
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ketchd"));
    let maker = Maker::Ketch(path.unwrap_or(default));
    let mut stage = Stage {
        ours: formed(&own, &vec![maker; MANAGERS]),
        peer: (listed("ONLY", PEER) && listed("CASES", "replicas")).then(|| formed(&peers, &[Maker::Docker])),
        fakes: None,
    };
    let steps: [(&str, Step); 6] = [
        ("layers", layers::measure),
        ("replicas", replicas::measure),
        ("failover", failover::measure),
        ("autoscale", autoscale::measure),
        ("rest", rest::measure),
        ("routing", routing::measure),
    ];
    for (name, step) in steps {
        if listed("CASES", name) {
            eprintln!("{name} ...");
            step(&mut stage, extent, &mut samples);
        }
    }
    samples.load("load_after");
    println!("{}", samples.table());
    let knobs = ["ONLY", "ROUNDS", "HEAVY_ROUNDS", "KETCHD", "CASES"];
    let plain = knobs.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()));
    promises::mesh(&samples).tell(&samples, plain && !quick);
    let Stage { mut ours, peer, fakes } = stage;
    drop(fakes);
    ours.part();
    peer.into_iter().for_each(|mut peer| peer.part());
}

/// Of which services are made.
fn image() -> String {
    format!("{REGISTRY}/busybox:1")
}

/// What is promised, in the order of issue 6.
pub(crate) fn promises(samples: &Samples) -> Vec<Promise> {
    let ours = |case: &str| samples.of(case, OURS);
    let worst = |case: &str| samples.worst(case, OURS);
    let over = |case: &str| Some(samples.of(case, OURS)? / samples.of(case, PEER)?);
    let in_turns = |case: &str| samples.by_turns(case, OURS, PLAIN);
    let (most, least) = (Bound::AtMost, Bound::AtLeast);
    let relayed = |case: &str| samples.by_turns(case, RELAYED, OURS);
    let promise = |what, bound, measured| Promise { what, bound, measured };
    vec![
        promise(
            "100 replicas on three nodes, from `service create` to all running, over dockerd's on one",
            most(0.35),
            over(replicas::CREATED),
        ),
        promise(
            "kill -9 of the leader's agent to the first write that another manager takes, s, the worst",
            most(3.0),
            worst(failover::WRITTEN),
        ),
        promise(
            "kill -9 of a node's agent and containers to its tasks running elsewhere, s, the worst",
            most(10.0),
            worst(failover::REPLACED),
        ),
        promise(
            "a rolling update under 200 requests a second through the mesh: failed requests",
            most(0.0),
            worst(failover::FAILED),
        ),
        promise(
            "a step in load to more replicas of its service (`ketch.scale.cpu`), s",
            most(15.0),
            ours(autoscale::REACTED),
        ),
        promise(
            "the mesh's port with a local task, throughput, over a plain route to it",
            least(0.9),
            in_turns(routing::LOCAL),
        ),
        promise(
            "the mesh's port with a remote task, throughput, over a plain route and VXLAN to it",
            least(0.9),
            in_turns(routing::REMOTE),
        ),
        promise(
            "new connections a second by the mesh's port of 1,000 services, over the same of 1",
            least(0.9),
            routing::flatness(samples),
        ),
        promise(
            "a 1 GiB image onto five nodes at once that share layers, over one node's pull, the registry at 200 Mbit/s",
            most(1.5),
            samples
                .of(layers::PULLED, layers::FIVE)
                .zip(samples.of(layers::PULLED, layers::ONE))
                .map(|(five, one)| five / one),
        ),
        promise(
            "`ketch.publish.proxy`: throughput with a local task, over the plain mesh port's",
            Bound::None,
            relayed(routing::LOCAL),
        ),
        promise(
            "`ketch.publish.proxy`: throughput with a remote task, over the plain mesh port's",
            Bound::None,
            relayed(routing::REMOTE),
        ),
        promise(
            "`ketch.publish.proxy`: new connections a second with a remote task, over the plain mesh port's",
            Bound::None,
            relayed(routing::ONE),
        ),
        promise("a leader at rest with 100 nodes more: CPU, percent", most(1.0), ours(rest::CPU)),
        promise("the same: memory, PSS, MiB", most(60.0), ours(rest::MEMORY)),
        promise("the same: synced writes a second", most(5.0), ours(rest::SYNCED)),
    ]
}
