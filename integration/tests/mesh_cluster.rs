//! Real clusters, each node in a network namespace of its own: they form, spread, lose members and get over it.
//!
//! What is asked in time is [`Pace`]'s: ketchd's promises, and dockerd's numbers when `KETCHD=peer` proves a test.

use std::time::{Duration, Instant};

use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::mesh::{Mesh, node_of};
use ketch_integration::runtime::Output;
use ketch_integration::{Case, tests, wait_within};

tests![
    three_managers_and_two_workers,
    replicas_spread_scale_and_drain,
    a_leader_dies,
    a_leader_hangs,
    a_worker_dies_with_its_containers,
    an_agent_that_is_back_in_time_moves_nothing,
    an_agent_that_hangs_for_a_while_moves_nothing,
    a_minority_is_cut_off,
    the_majority_is_lost_and_a_new_cluster_made,
    tokens,
    leave_and_remove,
    a_removed_node_stays_out,
    all_of_them_start_again,
    dockerds_cluster_is_another,
];

/// A service of so many, which end at once and are replaced at once.
fn serve(mesh: &Mesh<'_>, name: &str, replicas: usize, flags: &str) {
    let _ = mesh
        .docker(1, &format!("service create -q -d --name {name} --endpoint-mode dnsrr --replicas {replicas} {flags} 10.99.0.254:5000/busybox:1 sleep 1000"))
        .ok();
}

/// How many of a service's tasks are on each of the nodes, the first's first.
fn spread(lines: &[String], nodes: usize) -> Vec<usize> {
    (1..=nodes).map(|number| lines.iter().filter(|line| node_of(line) == Some(number)).count()).collect()
}

/// What a manager tells of all nodes: name, state, role.
fn told(mesh: &Mesh<'_>, node: usize) -> Output {
    mesh.docker(node, "node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'")
}

/// Until a node is told as so.
#[track_caller]
fn wait_status(mesh: &Mesh<'_>, seen_by: usize, number: usize, status: &str, within: Duration) {
    let line = format!("node ls --filter name=node{number} --format '{{{{.Status}}}}'");
    let _ = mesh.wait_output_within(within, seen_by, &line, |text| text == status);
}

fn three_managers_and_two_workers(case: &Case) {
    let mesh = Mesh::formed(case, 3, 2);
    let wanted = "node1 Ready Active Leader\nnode2 Ready Active Reachable\nnode3 Ready Active Reachable\nnode4 Ready Active \nnode5 Ready Active";
    for manager in 1..=3 {
        let _ = mesh.wait_output(
            manager,
            "node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'",
            |text| text == wanted,
        );
    }
    for worker in 4..=5 {
        told(&mesh, worker).refuses(&["This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state."]);
    }
    // Written by one that follows, read by another.
    let _ = mesh.docker(3, "node update --label-add zone=a node5").ok();
    let _ = mesh.wait_output(2, "node ls --filter node.label=zone=a --format '{{.Hostname}}'", |text| text == "node5");
    mesh.end();
}

fn replicas_spread_scale_and_drain(case: &Case) {
    let mesh = Mesh::formed(case, 1, 2);
    serve(&mesh, "web", 6, "");
    let first = mesh.wait_running(1, "web", 6, |_| true);
    assert_eq!(spread(&first, 3), [2, 2, 2]);
    for node in mesh.nodes() {
        let out = node.engine.docker("ps --quiet --filter label=com.docker.swarm.service.name=web").ok();
        assert_eq!(out.text().lines().count(), 2, "{out}");
    }
    let _ = mesh.docker(1, "service scale -d web=9").ok();
    let second = mesh.wait_running(1, "web", 9, |_| true);
    assert_eq!(spread(&second, 3), [3, 3, 3]);
    assert!(first.iter().all(|line| second.contains(line)), "more of them moves none: {first:?} {second:?}");
    let _ = mesh.docker(1, "node update --availability drain node2").ok();
    let third = mesh.wait_running(1, "web", 9, |number| number != 2);
    let stayed = second.iter().filter(|line| node_of(line) != Some(2));
    assert!(stayed.clone().all(|line| third.contains(line)), "what was elsewhere stays: {second:?} {third:?}");
    let _ = mesh.node(2).engine.docker("ps --quiet").ok();
    let _ = mesh.docker(1, "node update --availability active node2").ok();
    let _ = mesh.docker(1, "service scale -d web=3").ok();
    let fourth = mesh.wait_running(1, "web", 3, |number| number != 2);
    assert!(fourth.iter().all(|line| third.contains(line)), "fewer of them moves none: {fourth:?}");
    let _ = mesh.docker(1, "service rm web").ok();
    for node in 1..=3 {
        let _ = mesh.wait_output(node, "ps --quiet --filter label=com.docker.swarm.task", str::is_empty);
    }
    mesh.end();
}

fn a_leader_dies(case: &Case) {
    let mut mesh = Mesh::formed(case, 3, 2);
    serve(&mesh, "web", 4, "--constraint node.role==worker");
    let before = mesh.wait_running(1, "web", 4, |number| number > 3);
    let pace = mesh.pace();
    let killed = Instant::now();
    mesh.node_mut(1).kill_agent();
    let leader = mesh.leader(2, pace.election + Duration::from_secs(1));
    assert!(leader == 2 || leader == 3, "node{leader} leads");
    println!("mesh: a new leader after {:.1} s", killed.elapsed().as_secs_f64());
    // Services go on, and are changed. The new leader knows how tasks go once their nodes have found it.
    assert_eq!(mesh.wait_running(2, "web", 4, |_| true), before);
    let _ = mesh.docker(3, "service scale -d web=6").ok();
    let after = mesh.wait_running(3, "web", 6, |number| number > 3);
    assert!(before.iter().all(|line| after.contains(line)), "{before:?} {after:?}");
    let _ = mesh.wait_output(2, "node ls --filter name=node1 --format '{{.Status}} {{.ManagerStatus}}'", |text| text == "Down Unreachable");
    mesh.node_mut(1).come_back();
    let _ = mesh.wait_output(1, "node ls --filter name=node1 --format '{{.Status}} {{.ManagerStatus}}'", |text| text == "Ready Reachable");
    let again = mesh.wait_running(1, "web", 6, |number| number > 3);
    assert_eq!(again, after, "the old leader's return moves nothing");
    mesh.end();
}

/// It hangs for longer than a node may: another leads, its tasks run twice while it can't be told, and no more once it can.
fn a_leader_hangs(case: &Case) {
    let mesh = Mesh::formed(case, 3, 1);
    serve(&mesh, "web", 4, "");
    let before = mesh.wait_running(1, "web", 4, |_| true);
    assert_eq!(spread(&before, 4), [1, 1, 1, 1]);
    let inmates = mesh.node(1).inmates();
    assert!(!inmates.is_empty(), "the processes of a task");
    let pace = mesh.pace();
    let frozen = Instant::now();
    mesh.node(1).freeze();
    let leader = mesh.leader(2, pace.election + Duration::from_secs(1));
    assert!(leader == 2 || leader == 3, "node{leader} leads");
    println!("mesh: a new leader for one that hangs after {:.1} s", frozen.elapsed().as_secs_f64());
    let during = mesh.wait_running_within(pace.replacement, 2, "web", 4, |number| number != 1);
    println!("mesh: tasks of a node that hangs run elsewhere after {:.1} s", frozen.elapsed().as_secs_f64());
    let stayed = before.iter().filter(|line| node_of(line) != Some(1));
    assert!(stayed.clone().all(|line| during.contains(line)), "what was elsewhere stays: {before:?} {during:?}");
    assert_eq!(mesh.node(1).inmates(), inmates, "its tasks run on");
    let _ = mesh.docker(3, "service update -d --label-add while=frozen web").ok();
    mesh.node(1).thaw();
    let _ = mesh.wait_output(1, "node ls --filter name=node1 --format '{{.Status}} {{.ManagerStatus}}'", |text| text == "Ready Reachable");
    let _ = mesh.wait_output(1, "ps --quiet --filter label=com.docker.swarm.task", str::is_empty);
    assert_eq!(mesh.wait_running(1, "web", 4, |_| true), during, "its return moves nothing");
    let label = "service inspect --format '{{.Spec.Labels.while}}' web";
    assert_eq!(mesh.docker(1, label).ok().text(), "frozen", "it has what was written without it");
    mesh.end();
}

fn a_worker_dies_with_its_containers(case: &Case) {
    let mut mesh = Mesh::formed(case, 1, 3);
    serve(&mesh, "web", 6, "--constraint node.role==worker");
    let before = mesh.wait_running(1, "web", 6, |number| number > 1);
    assert_eq!(spread(&before, 4), [0, 2, 2, 2]);
    let pace = mesh.pace();
    let killed = Instant::now();
    mesh.node_mut(4).kill_all();
    let after = mesh.wait_running_within(pace.replacement, 1, "web", 6, |number| number == 2 || number == 3);
    println!("mesh: tasks of a dead node run elsewhere after {:.1} s", killed.elapsed().as_secs_f64());
    let stayed = before.iter().filter(|line| node_of(line) != Some(4));
    assert!(stayed.clone().all(|line| after.contains(line)), "{before:?} {after:?}");
    wait_status(&mesh, 1, 4, "Down", pace.down);
    // It comes back with nothing of it.
    mesh.node_mut(4).come_back();
    wait_status(&mesh, 1, 4, "Ready", Duration::from_secs(30));
    let _ = mesh.wait_output(4, "ps --quiet --filter label=com.docker.swarm.task", str::is_empty);
    assert_eq!(mesh.wait_running(1, "web", 6, |_| true), after, "its return moves nothing");
    mesh.end();
}

fn an_agent_that_is_back_in_time_moves_nothing(case: &Case) {
    let mut mesh = Mesh::with_flags(case, 3, &["--live-restore"]);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd: no swarm mode together with --live-restore");
    mesh.form(1);
    serve(&mesh, "web", 4, "--constraint node.role==worker");
    let before = mesh.wait_running(1, "web", 4, |number| number > 1);
    let containers = |mesh: &Mesh<'_>| mesh.docker(2, "ps --no-trunc --format '{{.ID}}'").ok().text().to_owned();
    let (ids, pace) = (containers(&mesh), mesh.pace());
    mesh.node_mut(2).kill_agent();
    std::thread::sleep(pace.blip.saturating_sub(Duration::from_secs(1)));
    mesh.node_mut(2).come_back();
    wait_status(&mesh, 1, 2, "Ready", Duration::from_secs(10));
    stays(&mesh, &before, Duration::from_secs(8));
    assert_eq!(containers(&mesh), ids, "the same containers run");
    mesh.end();
}

/// One hangs, another can't be reached, both for as long as one may.
fn an_agent_that_hangs_for_a_while_moves_nothing(case: &Case) {
    let mesh = Mesh::formed(case, 1, 2);
    serve(&mesh, "web", 4, "--constraint node.role==worker");
    let before = mesh.wait_running(1, "web", 4, |number| number > 1);
    assert_eq!(spread(&before, 3), [0, 2, 2]);
    let containers = || [2, 3].map(|node| mesh.docker(node, "ps --no-trunc --format '{{.ID}}'").ok().text().to_owned());
    let ids = containers();
    mesh.cut_off(&[3]);
    mesh.node(2).freeze();
    std::thread::sleep(mesh.pace().blip);
    mesh.node(2).thaw();
    mesh.heal();
    stays(&mesh, &before, Duration::from_secs(8));
    assert_eq!(containers(), ids, "the same containers run");
    mesh.wait_ready(1, &[1, 2, 3]);
    mesh.end();
}

/// The same tasks run, and go on to for a while.
#[track_caller]
fn stays(mesh: &Mesh<'_>, before: &[String], long: Duration) {
    let _ = mesh.wait_running(1, "web", before.len(), |_| true);
    let end = Instant::now() + long;
    while Instant::now() < end {
        assert_eq!(mesh.running(1, "web"), before, "nothing is moved");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn a_minority_is_cut_off(case: &Case) {
    let mesh = Mesh::formed(case, 3, 1);
    serve(&mesh, "web", 4, "");
    let before = mesh.wait_running(1, "web", 4, |_| true);
    assert_eq!(spread(&before, 4), [1, 1, 1, 1]);
    let containers = mesh.docker(1, "ps --quiet --no-trunc").ok().text().to_owned();
    assert_eq!(containers.lines().count(), 1, "{containers}");
    let inmates = mesh.node(1).inmates();
    let pace = mesh.pace();
    mesh.cut_off(&[1]);
    // The one that led can't any more, and says so, to readers and to writers.
    let bounded = |line: &str| mesh.node(1).engine.program("timeout").args(["30", "sh", "-c", line]).run();
    wait_within(pace.lost_quorum, "the minority refuses to be read", || {
        let out = bounded("docker node ls");
        if out.code != 0 && out.code != 124 && out.stderr.contains("The swarm does not have a leader") {
            Ok(())
        } else {
            Err(out.to_string())
        }
    });
    // The first two read before they write, the others don't.
    let lines = [
        "docker service scale -d web=8",
        "docker node update --label-add late=1 node1",
        "docker network create -d overlay late",
        "echo late | docker config create late -",
        "docker service create -q -d --no-resolve-image --name late --endpoint-mode dnsrr 10.99.0.254:5000/busybox:1 sleep 1000",
    ];
    for line in lines {
        let out = bounded(line);
        assert!(out.code != 0 && out.code != 124 && out.stderr.contains("does not have a leader"), "{line}: {out}");
    }
    let out = bounded("docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}'").ok();
    assert!(out.text().starts_with("active"), "{out}");
    // The others have a leader, and go on.
    let leader = mesh.leader(2, pace.election + Duration::from_secs(1));
    assert!(leader == 2 || leader == 3, "node{leader} leads");
    let _ = mesh.docker(2, "service scale -d web=6").ok();
    wait_status(&mesh, 2, 1, "Down", pace.down);
    let during = mesh.wait_running(2, "web", 6, |number| number != 1);
    // Its tasks have run on all the time.
    assert_eq!(mesh.docker(1, "ps --quiet --no-trunc").ok().text(), containers);
    assert_eq!(mesh.node(1).inmates(), inmates, "the same processes");
    mesh.heal();
    let _ = mesh.wait_output(1, "node ls --filter name=node1 --format '{{.Status}} {{.ManagerStatus}}'", |text| text == "Ready Reachable");
    let after = mesh.wait_running(1, "web", 6, |_| true);
    assert_eq!(after, during, "its return moves nothing");
    let _ = mesh.wait_output(1, "ps --quiet --filter label=com.docker.swarm.task", str::is_empty);
    // What it refused has not happened.
    for node in 1..=2 {
        assert_eq!(mesh.docker(node, "service ls --format '{{.Name}}'").ok().text(), "web");
        let out = mesh.docker(node, "config ls --quiet").ok();
        assert_eq!(out.text(), "", "{out}");
        let out = mesh.docker(node, "network ls --quiet --filter name=late").ok();
        assert_eq!(out.text(), "", "{out}");
        assert_eq!(mesh.docker(node, "node inspect --format '{{len .Spec.Labels}}' node1").ok().text(), "0");
    }
    mesh.end();
}

fn the_majority_is_lost_and_a_new_cluster_made(case: &Case) {
    let mut mesh = Mesh::formed(case, 3, 1);
    serve(&mesh, "web", 2, "--constraint node.hostname==node4");
    let before = mesh.wait_running(1, "web", 2, |number| number == 4);
    let pace = mesh.pace();
    mesh.node_mut(2).kill_all();
    mesh.node_mut(3).kill_all();
    wait_within(pace.lost_quorum, "one of three refuses to be read", || {
        let out = mesh.node(1).engine.program("timeout").args(["30", "docker", "node", "ls"]).run();
        if out.code != 0 && out.code != 124 && out.stderr.contains("The swarm does not have a leader") { Ok(()) } else { Err(out.to_string()) }
    });
    // The worker knows nothing of it.
    let out = mesh.docker(4, "ps --quiet --filter label=com.docker.swarm.service.name=web").ok();
    assert_eq!(out.text().lines().count(), 2, "{out}");
    let out = mesh.docker(1, "swarm init --force-new-cluster --advertise-addr 10.99.0.1").ok();
    assert!(out.text().starts_with("Swarm initialized: current node ("), "{out}");
    let _ = mesh.wait_output(1, "node ls --filter name=node1 --format '{{.Status}} {{.ManagerStatus}}'", |text| text == "Ready Leader");
    wait_status(&mesh, 1, 4, "Ready", Duration::from_secs(60));
    assert_eq!(mesh.wait_running(1, "web", 2, |number| number == 4), before, "a new cluster keeps what runs");
    // The lost ones are told as down, and can be taken out.
    for lost in [2, 3] {
        wait_status(&mesh, 1, lost, "Down", Duration::from_secs(60));
        let _ = mesh.docker(1, &format!("node demote node{lost}"));
        let _ = mesh.docker(1, &format!("node rm --force node{lost}")).ok();
    }
    mesh.wait_ready(1, &[1, 4]);
    mesh.end();
}

fn tokens(case: &Case) {
    let mesh = Mesh::start(case, 3);
    let _ = mesh.docker(1, "swarm init --advertise-addr 10.99.0.1").ok();
    let (worker, manager) = (mesh.token(1, "worker"), mesh.token(1, "manager"));
    // Another cluster's root, and another secret of the same.
    let foreign = "SWMTKN-1-3v8b67plzqtf9shdb226w96rvhqks1nfwujh218tf8wzx9kskw-6jaq5ae9bz0koh8r96ao5w8ct";
    mesh.join(2, foreign, 1).refuses(&["remote CA does not match fingerprint. Expected: "]);
    let wrong = format!("{}{}", &worker[..worker.len() - 25], "0".repeat(25));
    mesh.join(2, &wrong, 1).refuses(&["A valid join token is necessary to join this cluster"]);
    mesh.join(2, "nonsense", 1).refuses(&["invalid join token"]);
    // The old one is no good once there is a new one; the other role's is.
    let newer = mesh.docker(1, "swarm join-token --rotate --quiet worker").ok().text().to_owned();
    assert_ne!(newer, worker);
    mesh.join(2, &worker, 1).refuses(&["A valid join token is necessary to join this cluster"]);
    assert_eq!(mesh.docker(2, "info --format '{{.Swarm.LocalNodeState}}'").ok().text(), "inactive");
    let out = mesh.join(2, &newer, 1).ok();
    assert_eq!(out.text(), "This node joined a swarm as a worker.");
    let out = mesh.join(3, &manager, 1).ok();
    assert_eq!(out.text(), "This node joined a swarm as a manager.");
    mesh.wait_ready(1, &[1, 2, 3]);
    mesh.join(2, &newer, 1).refuses(&["This node is already part of a swarm."]);
    assert_eq!(mesh.token(3, "worker"), newer);
    mesh.end();
}

fn leave_and_remove(case: &Case) {
    let mesh = Mesh::formed(case, 3, 1);
    serve(&mesh, "web", 4, "");
    let _ = mesh.wait_running(1, "web", 4, |_| true);
    mesh.docker(1, "node rm node4").refuses(&["is not down and can't be removed"]);
    let out = mesh.docker(4, "swarm leave").ok();
    assert_eq!(out.text(), "Node left the swarm.");
    assert_eq!(mesh.docker(4, "ps --all --quiet").ok().text(), "", "nothing of the cluster is left");
    wait_status(&mesh, 1, 4, "Down", mesh.pace().down);
    let _ = mesh.wait_running(1, "web", 4, |number| number != 4);
    assert_eq!(mesh.docker(1, "node rm node4").ok().text(), "node4");
    mesh.wait_ready(1, &[1, 2, 3]);
    // A manager is demoted first.
    mesh.docker(3, "swarm leave").refuses(&["You are attempting to leave the swarm on a node that is participating as a manager."]);
    mesh.docker(1, "node rm --force node3").refuses(&["It must be demoted to worker before removal"]);
    assert_eq!(mesh.docker(1, "node demote node3").ok().text(), "Manager node3 demoted in the swarm.");
    let _ = mesh.wait_output(3, "info --format '{{.Swarm.ControlAvailable}}'", |text| text == "false");
    let _ = mesh.docker(3, "swarm leave").ok();
    wait_status(&mesh, 1, 3, "Down", mesh.pace().down);
    let _ = mesh.docker(1, "node rm node3").ok();
    // Who has left may join again, as a new node.
    let _ = mesh.join(4, &mesh.token(2, "manager"), 2).ok();
    mesh.wait_ready(4, &[1, 2, 4]);
    // The leader is demoted: another leads.
    let _ = mesh.docker(2, "node demote node1").ok();
    let leader = mesh.leader(2, Duration::from_secs(60));
    assert!(leader == 2 || leader == 4, "node{leader} leads");
    let _ = mesh.wait_running(2, "web", 4, |number| number != 3);
    mesh.end();
}

fn a_removed_node_stays_out(case: &Case) {
    let mut mesh = Mesh::formed(case, 1, 1);
    serve(&mesh, "web", 2, "");
    let _ = mesh.wait_running(1, "web", 2, |_| true);
    mesh.node_mut(2).kill_all();
    wait_status(&mesh, 1, 2, "Down", mesh.pace().down);
    assert_eq!(mesh.docker(1, "node rm node2").ok().text(), "node2");
    let _ = mesh.wait_running(1, "web", 2, |number| number == 1);
    // Its certificate is still good for months; it is not let in by it.
    let told = mesh.node(2).engine.log().len();
    mesh.node_mut(2).come_back();
    wait_removed(&mesh.node(2).engine, told);
    mesh.wait_ready(1, &[1]);
    let _ = mesh.wait_running(1, "web", 2, |number| number == 1);
    if !mesh.node(2).engine.is_ketch() {
        // dockerd leaves the namespace of an ingress network that it does not come back to.
        let netns = mesh.node(2).engine.site.path("exec/netns");
        let _ = mesh.node(2).engine.sh(&format!("cd {} && umount 1-* && rm 1-*", netns.display())).ok();
    }
    mesh.end();
}

/// Until an engine that asked to be let in was told that it is no more of the cluster; what is before `from` in its log is old.
fn wait_removed(engine: &Engine<'_>, from: usize) {
    let said = if engine.is_ketch() { "this node was removed from its cluster" } else { "agent: session failed" };
    wait_within(Duration::from_secs(60), said, || {
        let log = engine.log();
        if log[from..].contains(said) { Ok(()) } else { Err(log) }
    });
}

fn all_of_them_start_again(case: &Case) {
    let mut mesh = Mesh::formed(case, 3, 1);
    let _ = mesh.node(1).engine.sh("printf kept | docker secret create one -").ok();
    let _ = mesh.docker(1, "network create -d overlay --attachable inner").ok();
    let _ = mesh.docker(1, "node update --label-add zone=a node4").ok();
    serve(&mesh, "web", 4, "--secret one --network inner --restart-delay 100ms");
    let old = mesh.wait_running(1, "web", 4, |_| true);
    let facts = |mesh: &Mesh<'_>| {
        let lines = [
            "node ls --format '{{.ID}} {{.Hostname}}'",
            "service ls --format '{{.ID}} {{.Name}} {{.Replicas}}'",
            "secret ls --format '{{.ID}} {{.Name}}'",
            "network ls --no-trunc --filter scope=swarm --format '{{.ID}} {{.Name}}'",
            "node ls --filter node.label=zone=a --format '{{.Hostname}}'",
            "swarm join-token --quiet worker",
        ];
        lines.map(|line| mesh.docker(2, line).ok().text().to_owned())
    };
    let before = facts(&mesh);
    (1..=4).for_each(|number| mesh.node_mut(number).kill_all());
    (1..=4).for_each(|number| mesh.node_mut(number).come_back());
    let _ = mesh.leader(2, Duration::from_secs(60));
    mesh.wait_ready(2, &[1, 2, 3, 4]);
    // What ran is told as it was until its node has looked: others run in the end.
    let after = wait_within(Duration::from_secs(60), "four others", || {
        let running = mesh.running(2, "web");
        let is_new = running.iter().all(|line| !old.contains(line));
        if running.len() == 4 && is_new { Ok(running) } else { Err(format!("{running:?}")) }
    });
    let _ = mesh.wait_output(2, "service ls --format '{{.Replicas}}'", |text| text == "4/4");
    assert_eq!(facts(&mesh), before);
    let number = after.first().and_then(|line| node_of(line)).expect("a task's node");
    let out = mesh
        .node(number)
        .engine
        .sh("docker exec $(docker ps -q --filter label=com.docker.swarm.service.name=web | head -1) cat /run/secrets/one")
        .ok();
    assert_eq!(out.text(), "kept");
    mesh.end();
}

/// Neither joins the other's, and says why.
fn dockerds_cluster_is_another(case: &Case) {
    let maker = Maker::under_test(case);
    case.needs(maker != Maker::Docker, "dockerd: there is no other to join");
    let mesh = Mesh::of(case, &[maker, Maker::Docker], &[]);
    for (ours, theirs) in [(1, 2), (2, 1)] {
        let _ = mesh.docker(theirs, &format!("swarm init --advertise-addr 10.99.0.{theirs}")).ok();
        let started = Instant::now();
        let out = mesh.join(ours, &mesh.token(theirs, "worker"), theirs);
        assert!(out.code != 0, "{out}");
        if ours == 1 {
            // What dockerd says of ours is its own.
            assert!(out.stderr.contains("is not a manager of a ketch cluster"), "{out}");
            assert!(started.elapsed() < Duration::from_secs(5), "it takes {:.1} s", started.elapsed().as_secs_f64());
        }
        assert_eq!(mesh.docker(ours, "info --format '{{.Swarm.LocalNodeState}}'").ok().text(), "inactive");
        let _ = mesh.docker(theirs, "swarm leave --force").ok();
    }
    mesh.end();
}
