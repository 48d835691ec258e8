//! What the loss of a leader, the loss of a node and an update cost.

use std::time::{Duration, Instant};

use ketch_integration::mesh::{Mesh, node_of};
use serde_json::json;

use super::super::samples::Samples;
use super::super::{Extent, OURS};
use super::replicas::remove;
use super::{Stage, image};

pub(super) const WRITTEN: &str = "kill -9 of the leader's agent to the first write at another manager, s";
pub(super) const REPLACED: &str = "kill -9 of a node and its containers to its tasks running elsewhere, s";
pub(super) const FAILED: &str = "a rolling update under 200 requests a second: failed requests";
const SENT: &str = "  the same: requests a second";
const UPDATE: &str = "  the same: the update, s";

/// Longer than anything is to take, and still a number.
const PATIENCE: Duration = Duration::from_secs(60);
const TASKS: usize = 6;
const SERVERS: usize = 4;
const RATE: &str = "200";

pub(super) fn measure(stage: &mut Stage<'_>, extent: Extent, samples: &mut Samples) {
    let mesh = &mut stage.ours;
    for round in 0..extent.heavy {
        samples.keep(WRITTEN, OURS, write_after_loss(mesh, round));
    }
    // In every other round the node leads.
    for round in 0..extent.heavy.max(2) {
        samples.keep(REPLACED, OURS, replace_after_loss(mesh, round));
    }
    update_under_load(mesh, samples);
}

fn other_than(mesh: &Mesh<'_>, node: usize) -> usize {
    node % mesh.nodes().len() + 1
}

fn leader(mesh: &Mesh<'_>) -> usize {
    mesh.leader(1, PATIENCE)
}

/// Seconds until a write is taken. The cluster is whole again at the end.
fn write_after_loss(mesh: &mut Mesh<'_>, round: usize) -> f64 {
    let lost = leader(mesh);
    let at = other_than(mesh, lost);
    let since = Instant::now();
    mesh.node_mut(lost).kill_agent();
    let taken = loop {
        let name = format!("written-{round}-{}", since.elapsed().as_micros());
        let body = json!({ "Name": name, "Data": "eA==" }).to_string();
        let answer = mesh.node(at).engine.call("POST", "/secrets/create", &body);
        if answer.status == 201 {
            break since.elapsed();
        }
        assert!(since.elapsed() < PATIENCE, "no write is taken: {} {}", answer.status, answer.body);
        std::thread::sleep(Duration::from_millis(10));
    };
    make_whole(mesh, lost);
    taken.as_secs_f64()
}

/// Seconds until the lost node's tasks run on the others.
fn replace_after_loss(mesh: &mut Mesh<'_>, round: usize) -> f64 {
    let lost = spread(mesh, round);
    let seen_by = other_than(mesh, lost);
    let since = Instant::now();
    mesh.node_mut(lost).kill_all();
    let _all = mesh.wait_running_within(PATIENCE, seen_by, "spread", TASKS, |number| number != lost);
    let taken = since.elapsed();
    make_whole(mesh, lost);
    remove(mesh, "spread");
    taken.as_secs_f64()
}

/// Makes the service, and chooses the node that is to be lost: one that leads in every other round. Where the machine is so busy
/// that the node was taken for down, it has no task, and all is made anew.
fn spread(mesh: &Mesh<'_>, round: usize) -> usize {
    let line =
        format!("service create --detach --quiet --name spread --replicas {TASKS} {} sleep 1000000", image());
    for _ in 0..10 {
        let _id = mesh.docker(1, &line).ok();
        let running = mesh.wait_running(1, "spread", TASKS, |_| true);
        let leads = leader(mesh);
        let chosen = if round.is_multiple_of(2) { other_than(mesh, leads) } else { leads };
        if running.iter().any(|line| node_of(line) == Some(chosen)) {
            return chosen;
        }
        remove(mesh, "spread");
    }
    panic!("no task comes to the node: {}", mesh.docker(1, "node ls"));
}

/// Starts the agent, and waits until it is a manager that the others reach.
fn make_whole(mesh: &mut Mesh<'_>, lost: usize) {
    mesh.node_mut(lost).come_back();
    let seen_by = other_than(mesh, lost);
    let line = format!("node ls --filter name=node{lost} --format '{{{{.Status}}}} {{{{.ManagerStatus}}}}'");
    let _status = mesh.wait_output(seen_by, &line, |text| matches!(text, "Ready Reachable" | "Ready Leader"));
}

/// A service whose tasks are replaced one by one, while every node's port is asked.
fn update_under_load(mesh: &Mesh<'_>, samples: &mut Samples) {
    let this = std::env::current_exe().expect("find this program").display().to_string();
    let line = format!(
        "service create --detach --quiet --name page --replicas {SERVERS} --publish 8088:8080
            --mount type=bind,source={this},target=/serve,readonly
            --health-cmd '/serve client ask 127.0.0.1:8080' --health-interval 500ms --stop-grace-period 3s
            --update-parallelism 1 --update-monitor 500ms {} /serve client serve",
        image()
    );
    let _id = mesh.docker(1, &line).ok();
    let _all = mesh.wait_running(1, "page", SERVERS, |_| true);
    let site = mesh.wire().site();
    let end = site.path("end-of-requests");
    let addresses = mesh.nodes().iter().map(|node| format!("{}:8088", node.address));
    let client = site.command(&this).args(["client", "requests", RATE]).arg(&end).args(addresses).spawn();
    std::thread::sleep(Duration::from_secs(1));
    let since = Instant::now();
    let _done = mesh.docker(1, "service update --detach --quiet --env-add VERSION=2 page").ok();
    let line = "service inspect --format '{{with .UpdateStatus}}{{.State}}{{end}}' page";
    let state = mesh.wait_output_within(PATIENCE, 1, line, |text| !matches!(text, "" | "updating"));
    assert_eq!(state, "completed", "{}", mesh.docker(1, "service ps page"));
    samples.keep(UPDATE, OURS, since.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(1));
    std::fs::write(&end, "").expect("end the requests");
    let out = client.wait().ok();
    eprint!("{}", out.stderr);
    let told: Vec<f64> = out.text().split(' ').map(|number| number.parse().expect("a number")).collect();
    let [asked, failed, seconds] = told[..] else { panic!("{out}") };
    samples.keep(FAILED, OURS, failed);
    samples.keep(SENT, OURS, asked / seconds);
    remove(mesh, "page");
}
