//! How long a step in a service's load takes to more replicas (`ketch.scale.cpu`).

use std::time::{Duration, Instant};

use ketch_integration::mesh::Mesh;

use super::super::samples::Samples;
use super::super::{Extent, OURS};
use super::replicas::remove;
use super::{Stage, image};

pub(super) const REACTED: &str = "a step in load to more replicas in the service, s";
const RUN: &str = "  the same: to all of them running, s";

const PATIENCE: Duration = Duration::from_secs(90);
/// Idle for so long before the step, so that the looks of before it are all of rest.
const RESTS: Duration = Duration::from_secs(12);
const MOST: usize = 4;
/// A whole processor where a fortieth is to be used: the step is one however busy the machine is.
const LABELS: &str = "--reserve-cpu 0.05 --label ketch.scale.min=1 --label ketch.scale.max=4 --label ketch.scale.cpu=50 --label ketch.scale.window=10m";
const WORK: &str = "sh -c 'until test -e /burn; do sleep 0.2; done; while true; do :; done'";

pub(super) fn measure(stage: &mut Stage<'_>, extent: Extent, samples: &mut Samples) {
    let mesh = &stage.ours;
    for _ in 0..extent.heavy {
        let (reacted, run) = step(mesh);
        samples.keep(REACTED, OURS, reacted.as_secs_f64());
        samples.keep(RUN, OURS, run.as_secs_f64());
    }
}

/// From the step on. Each round is a service of its own, whose history begins anew.
fn step(mesh: &Mesh<'_>) -> (Duration, Duration) {
    let line = format!(
        "service create --detach --quiet --name steps --constraint node.hostname==node2 {LABELS} {} {WORK}",
        image()
    );
    let _id = mesh.docker(1, &line).ok();
    let _one = mesh.wait_running(1, "steps", 1, |_| true);
    std::thread::sleep(RESTS);
    let of = "ps --quiet --filter label=com.docker.swarm.service.name=steps";
    let container = mesh.wait_output(2, of, |text| !text.is_empty() && !text.contains('\n'));
    let _begun = mesh.docker(2, &format!("exec {container} touch /burn")).ok();
    let since = Instant::now();
    let replicas = "service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' steps";
    let _more = mesh
        .wait_output_within(PATIENCE, 1, replicas, |text| text.parse().is_ok_and(|count: usize| count > 1));
    let reacted = since.elapsed();
    let _all = mesh.wait_running_within(PATIENCE, 1, "steps", MOST, |_| true);
    let run = since.elapsed();
    remove(mesh, "steps");
    (reacted, run)
}
