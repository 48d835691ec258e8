//! A hundred replicas, on three nodes of ours and on one of dockerd's, in turns.

use std::time::{Duration, Instant};

use ketch_integration::ketchd::Http;
use ketch_integration::mesh::Mesh;
use ketch_integration::wait::wait_within;
use serde_json::Value;

use super::super::contender::call;
use super::super::samples::{Samples, milliseconds};
use super::super::{Extent, OURS, PEER, knob};
use super::{Stage, image};

pub(super) const CREATED: &str = "100 replicas, from the create call to all running, ms";
const REMOVED: &str = "100 replicas, from the remove call to no container left, ms";
const PATIENCE: Duration = Duration::from_secs(120);
/// How often an engine is asked how far it is.
const BEAT: Duration = Duration::from_millis(50);

/// Interleaved.
pub(super) fn measure(stage: &mut Stage<'_>, extent: Extent, samples: &mut Samples) {
    let mut sides: Vec<(&str, &Mesh<'_>)> = vec![(OURS, &stage.ours)];
    sides.extend(stage.peer.as_ref().map(|peer| (PEER, peer)));
    // Their images are there, as they would be on nodes in use.
    for (_, mesh) in &sides {
        create(mesh, "warm", &format!("--replicas {}", mesh.nodes().len()));
        wait_running(mesh, "warm", mesh.nodes().len());
        remove(mesh, "warm");
    }
    let count = knob("REPLICAS", 100);
    for round in 0..extent.heavy {
        for offset in 0..sides.len() {
            let (key, mesh) = sides[(round + offset) % sides.len()];
            let since = Instant::now();
            create(mesh, "many", &format!("--replicas {count}"));
            wait_running(mesh, "many", count);
            samples.keep(CREATED, key, milliseconds(since));
            eprintln!("  {key}: {:.0} ms", milliseconds(since));
            let since = Instant::now();
            remove(mesh, "many");
            samples.keep(REMOVED, key, milliseconds(since));
        }
    }
}

fn create(mesh: &Mesh<'_>, name: &str, flags: &str) {
    let line = format!("service create --detach --quiet --name {name} {flags} {} sleep 1000000", image());
    let _id = mesh.docker(1, &line).ok();
}

/// Waits until so many of a service's tasks run, by the number that the engine itself tells.
pub(super) fn wait_running(mesh: &Mesh<'_>, service: &str, count: usize) {
    let mut http = mesh.node(1).engine.http();
    let path = format!("/services?status=true&filters={{%22name%22:[%22{service}%22]}}");
    wait_within(PATIENCE, &format!("{count} tasks of {service}"), || {
        let seen = call(&mut http, "GET", &path, &Value::Null);
        let running = seen[0]["ServiceStatus"]["RunningTasks"].as_u64().unwrap_or(0);
        if usize::try_from(running).is_ok_and(|running| running == count) {
            return Ok(());
        }
        std::thread::sleep(BEAT);
        Err(format!("{running}"))
    });
}

/// Removes a service, and waits until no node has a container of a task.
pub(super) fn remove(mesh: &Mesh<'_>, service: &str) {
    let _name = mesh.docker(1, &format!("service rm {service}")).ok();
    for node in mesh.nodes() {
        let mut http = node.engine.http();
        wait_within(PATIENCE, "no container of a task", || {
            let left = containers(&mut http);
            if left == 0 {
                return Ok(());
            }
            std::thread::sleep(BEAT);
            Err(format!("node{}: {left}", node.number))
        });
    }
}

fn containers(http: &mut Http) -> usize {
    call(http, "GET", "/containers/json?all=1", &Value::Null).as_array().map_or(0, Vec::len)
}
