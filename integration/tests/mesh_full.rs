//! A manager whose disk is full: what is written is refused in words or served by the others, nothing that was acknowledged is lost,
//! tasks run on, and with room it is a manager as before.

use std::time::Duration;

use ketch_integration::ketchd::{Maker, full_disk};
use ketch_integration::mesh::{Mesh, Wire};
use ketch_integration::{Case, tests, wait_within};

tests![a_manager_of_three_has_no_room, the_only_manager_has_no_room];

/// How long a manager has to come back once there is room.
const BACK: Duration = Duration::from_secs(60);
/// Writes while a disk is full: each is more than what may be free inside of the log's file.
const WRITES: usize = 12;
/// What may be said of a write that is not made.
const REFUSALS: &[&str] = &["The swarm does not have a leader", "context deadline exceeded", "no space left on device"];

/// The nodes' disks are small.
fn formed(case: &Case, managers: usize, workers: usize) -> Mesh<'_> {
    let makers = vec![Maker::under_test(case); managers + workers];
    let mesh = Mesh::on(Wire::of_small_disks(case), &makers, &[]);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd: its process ends when its log can't be written");
    mesh.form(managers);
    mesh
}

/// Asks for a config of this name. Whether it was acknowledged, now or as one that is there already; else it is said why not.
#[track_caller]
fn is_written(mesh: &Mesh<'_>, node: usize, name: &str) -> bool {
    let line = format!("head -c 150000 /dev/zero | tr '\\0' x | timeout 40 docker config create {name} -");
    let out = mesh.node(node).engine.sh(&line);
    let is_there = out.code == 0 || out.stderr.contains("already exists");
    let is_told = REFUSALS.iter().any(|text| out.stderr.to_lowercase().contains(&text.to_lowercase()));
    assert!(is_there || is_told, "config {name} by node{node}: {out}");
    is_there
}

/// How often its log has stopped.
fn stops(mesh: &Mesh<'_>, node: usize) -> usize {
    mesh.node(node).engine.log().matches("this manager takes no part any more").count()
}

/// Until a manager tells of all these configs, and one that it is asked for is written.
#[track_caller]
fn wait_back(mesh: &Mesh<'_>, node: usize, acknowledged: &[String]) {
    wait_within(BACK, &format!("node{node} has what was acknowledged"), || {
        let out = mesh.docker(node, "config ls --format '{{.Name}}'");
        let told: Vec<&str> = out.text().lines().collect();
        let is_all = out.code == 0 && acknowledged.iter().all(|name| told.contains(&name.as_str()));
        if is_all { Ok(()) } else { Err(format!("{out}\nacknowledged: {acknowledged:?}")) }
    });
    let name = format!("again-{}-by-{node}", acknowledged.len());
    wait_within(BACK, &format!("node{node} writes"), || {
        if is_written(mesh, node, &name) { Ok(()) } else { Err("it is refused".to_owned()) }
    });
}

fn a_manager_of_three_has_no_room(case: &Case) {
    let mesh = formed(case, 3, 1);
    let service = "service create -q -d --name web --endpoint-mode dnsrr --replicas 2 --constraint node.role==worker 10.99.0.254:5000/busybox:1 sleep 1000";
    let _ = mesh.docker(1, service).ok();
    let running = mesh.wait_running(1, "web", 2, |number| number == 4);
    let mut acknowledged = Vec::new();
    for turn in ["follows", "leads"] {
        let leader = mesh.leader(1, BACK);
        let full = if turn == "leads" { leader } else { leader % 3 + 1 };
        let others: Vec<usize> = (1..=3).filter(|number| *number != full).collect();
        let before = stops(&mesh, full);
        full_disk::fill(&mesh.node(full).engine, "data");
        let mut refused = 0;
        for number in 1..=WRITES {
            let (name, by) = (format!("{turn}-{number}"), number % 3 + 1);
            if is_written(&mesh, by, &name) { acknowledged.push(name) } else { refused += 1 }
        }
        println!("mesh: the manager that {turn} has no room: {} of {WRITES} writes acknowledged", WRITES - refused);
        wait_within(BACK, "its log has stopped", || {
            let now = stops(&mesh, full);
            if now > before { Ok(()) } else { Err(format!("{now} times")) }
        });
        // The two that have room are enough.
        for by in &others {
            let name = format!("{turn}-with-two-{by}");
            wait_within(BACK, &format!("node{by} writes"), || {
                if is_written(&mesh, *by, &name) { Ok(()) } else { Err("it is refused".to_owned()) }
            });
            acknowledged.push(name);
        }
        assert_eq!(mesh.wait_running(others[0], "web", 2, |_| true), running, "tasks run on");
        full_disk::make_room(&mesh.node(full).engine, "data");
        for number in 1..=3 {
            wait_back(&mesh, number, &acknowledged);
        }
        let line = "node ls --format '{{if .ManagerStatus}}{{.Hostname}} {{.Status}}{{end}}'";
        let _ = mesh.wait_output(full, line, |text| text == "node1 Ready\nnode2 Ready\nnode3 Ready");
    }
    assert_eq!(mesh.wait_running(1, "web", 2, |_| true), running, "nothing was moved");
    mesh.end();
}

fn the_only_manager_has_no_room(case: &Case) {
    let mesh = formed(case, 1, 1);
    let service = "service create -q -d --name web --endpoint-mode dnsrr --replicas 2 --constraint node.role==worker 10.99.0.254:5000/busybox:1 sleep 1000";
    let _ = mesh.docker(1, service).ok();
    let running = mesh.wait_running(1, "web", 2, |number| number == 2);
    let mut acknowledged = Vec::new();
    full_disk::fill(&mesh.node(1).engine, "data");
    for number in 1..=WRITES {
        let name = format!("alone-{number}");
        if is_written(&mesh, 1, &name) {
            acknowledged.push(name);
        }
    }
    println!("mesh: the only manager has no room: {} of {WRITES} writes acknowledged", acknowledged.len());
    assert!(acknowledged.len() < WRITES, "it was not full");
    let containers = "ps --quiet --filter label=com.docker.swarm.service.name=web";
    assert_eq!(mesh.docker(2, containers).ok().text().lines().count(), 2, "tasks run on");
    full_disk::make_room(&mesh.node(1).engine, "data");
    wait_back(&mesh, 1, &acknowledged);
    mesh.wait_ready(1, &[1, 2]);
    assert_eq!(mesh.wait_running(1, "web", 2, |_| true), running, "nothing was moved");
    mesh.end();
}
