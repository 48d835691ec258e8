//! An image of 1 GiB onto five nodes at once that share layers, and onto one of them, in turns. The registry is behind a link, as
//! registries are: with none, five nodes on two processors have five times the work of one, whoever gives them the bytes.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use ketch_integration::mesh::{Mesh, REGISTRY, Wire};
use ketch_integration::runtime::Runtime;
use ketch_integration::wait::wait_within;
use ketch_integration::{Caller, Case, Layout};
use serde_json::{Value, json};

use super::super::contender::call;
use super::super::samples::{Samples, milliseconds};
use super::super::{Extent, knob, pull};
use super::{Stage, replicas};

pub(super) const PULLED: &str = "1 GiB in ten gzip layers, registry at 200 Mbit/s, s";
pub(super) const ONE: &str = "one node";
pub(super) const FIVE: &str = "five at once";
const NODES: usize = 5;
/// The registry behind the link.
const LINKED: &str = "10.99.0.254:5001";
const PATIENCE: Duration = Duration::from_secs(600);
const BEAT: Duration = Duration::from_millis(50);

/// Interleaved.
pub(super) fn measure(stage: &mut Stage<'_>, extent: Extent, samples: &mut Samples) {
    let runtime = Runtime::find("busybox").expect("busybox-static");
    let case = Case::new("layers", 2, Layout::Native, Caller::Root, &runtime);
    let flags = ["--cluster-layer-sharing", "--insecure-registry", LINKED];
    let mut mesh = Mesh::on(Wire::of_fast_nodes(&case), &vec![stage.ours.maker.clone(); NODES], &flags);
    mesh.form(3);
    let copied =
        Command::new("cp").arg("-al").arg(pull::store().join("docker")).arg(&mesh.registry().folder).status();
    assert!(copied.is_ok_and(|status| status.success()), "the image for the registry");
    let this = std::env::current_exe().expect("find this program").display().to_string();
    let megabits = knob("LINK", 200).to_string();
    let link = mesh.wire().site().daemon(&this, ["link", LINKED, REGISTRY, &megabits]);
    for round in 0..extent.heavy {
        let mut turns = [(ONE, 1, "--constraint node.hostname==node1"), (FIVE, NODES, "")];
        turns.rotate_left(round % 2);
        for (key, count, constraint) in turns {
            let before = fetched(&mesh);
            let taken = one(&mesh, count, constraint) / 1000.0;
            samples.keep(PULLED, key, taken);
            let most = fetched(&mesh)
                .into_iter()
                .map(|(path, times)| times - before.get(&path).copied().unwrap_or(0))
                .max();
            samples.keep(
                "  the same: times that the registry was asked for a layer, at most",
                key,
                most.unwrap_or(0) as f64,
            );
            eprintln!("  {key}: {taken:.1} s");
        }
    }
    link.stop();
    mesh.part();
}

/// From the create call until so many nodes have the image, in milliseconds.
fn one(mesh: &Mesh<'_>, count: usize, constraint: &str) -> f64 {
    rustix::fs::sync();
    let since = Instant::now();
    // There is no program in it: nothing starts.
    let line = format!(
        "service create -q -d --name big --mode global --restart-condition none {constraint} {LINKED}/big:gzip"
    );
    let _id = mesh.docker(1, &line).ok();
    let mut all: Vec<_> = mesh.nodes().iter().take(count).map(|node| node.engine.http()).collect();
    wait_within(PATIENCE, "the image everywhere", || {
        let have = all
            .iter_mut()
            .filter_map(|http| call(http, "GET", "/images/json", &Value::Null).as_array().map(Vec::len));
        let have = have.filter(|images| *images > 0).count();
        if have == count {
            return Ok(());
        }
        std::thread::sleep(BEAT);
        Err(format!("{have} of {count}"))
    });
    let taken = milliseconds(since);
    replicas::remove(mesh, "big");
    for node in mesh.nodes() {
        let _gone = node.engine.sh("docker images -aq | sort -u | xargs -r docker rmi -f").ok();
    }
    taken
}

/// How often the registry was asked for each blob of the image, but for its config, which the client's look-up asks for, too.
fn fetched(mesh: &Mesh<'_>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    let asked = mesh.registry().asked().into_iter().filter(|line| line.starts_with("GET /v2/big/blobs/"));
    asked.for_each(|line| *all.entry(line).or_default() += 1);
    let config = mesh.node(1).engine.sh(&format!(
        "curl -s -H 'Accept: application/vnd.oci.image.manifest.v1+json' http://{REGISTRY}/v2/big/manifests/gzip"
    ));
    let manifest: Value = serde_json::from_str(config.text()).unwrap_or_else(|_| json!({}));
    let config = manifest["config"]["digest"].as_str().unwrap_or_default().to_owned();
    all.retain(|line, _| !line.ends_with(&config));
    all
}
