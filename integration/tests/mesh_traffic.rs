//! What clients outside of a cluster see through its published ports while tasks come and go: requests in a rolling update, a flow of
//! datagrams and an idle connection across an update and a node's loss, and whose address a server sees.
//!
//! The servers and the clients are `mesh_peer`. dockerd's routing mesh needs IPVS, which this kernel has not: ketchd alone is asked.

use std::time::Duration;

use ketch_integration::ketchd::Maker;
use ketch_integration::mesh::{Mesh, REGISTRY, node_of};
use ketch_integration::runtime::Running;
use ketch_integration::{Case, tests, wait_within};
use rustix::process::Signal;

tests![
    an_update_that_starts_first_fails_no_request,
    an_update_that_stops_first_fails_no_request,
    an_update_ends_datagrams_at_once_and_streams_with_the_grace,
    a_lost_node_ends_datagrams_and_streams,
    a_local_task_sees_the_clients_address,
];

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh_peer");
/// The client's: the bridge's.
const CLIENT: &str = "10.99.0.254";
const RATE: &str = "200";
const SOON: Duration = Duration::from_secs(60);
const HEALTH: &str = "--health-cmd '/mesh_peer check' --health-interval 300ms --health-timeout 5s --health-retries 5";

/// A program that asks from outside of the nodes; it ends with the test.
struct Client(Option<Running>);

impl Client {
    fn start(mesh: &Mesh<'_>, args: &[&str]) -> Self {
        Self(Some(mesh.wire().site().command(PROGRAM).args(args).spawn()))
    }

    fn running(&self) -> &Running {
        self.0.as_ref().expect("it runs")
    }

    fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// What it has printed.
    fn lines(&self) -> Vec<String> {
        self.running().stdout_now().lines().map(str::to_owned).collect()
    }

    /// Waits until the last of what it has printed is as wanted.
    #[track_caller]
    fn wait_last(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        wait_within(SOON, what, || match self.lines().pop() {
            Some(line) if is_so(&line) => Ok(line),
            other => Err(format!("{other:?}")),
        })
    }

    /// Has a session ask, and gives what it then prints.
    #[track_caller]
    fn asked(&self) -> String {
        let before = self.lines().len();
        self.signal(Signal::USR1);
        wait_within(SOON, "what a session prints", || {
            let mut lines = self.lines();
            if lines.len() > before { lines.pop().ok_or_else(String::new) } else { Err(format!("{lines:?}")) }
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.signal(Signal::KILL);
            drop(running.wait());
        }
    }
}

/// A manager and two workers; the servers' image is in the registry.
fn formed(case: &Case) -> Mesh<'_> {
    case.needs(Maker::under_test(case) != Maker::Docker, "dockerd: its routing mesh needs IPVS");
    let mesh = Mesh::formed(case, 1, 2);
    mesh.push_peer(PROGRAM);
    mesh
}

/// A service of so many servers on nodes of one's choice, its three ports published, each task known by its words; returns when all
/// run and all nodes lead to them.
#[track_caller]
fn serve(mesh: &Mesh<'_>, replicas: usize, flags: &str) -> Vec<String> {
    let line = format!(
        "service create -q -d --name web --replicas {replicas} --env VERSION=1 --env 'TASK={{{{.Task.Slot}}}}@{{{{.Node.Hostname}}}}' \
         --publish 8080:8080 --publish 5432:5432 --publish 5300:5300/udp {HEALTH} --update-monitor 500ms {flags} {REGISTRY}/peer:1"
    );
    let _ = mesh.docker(1, &line).ok();
    let running = mesh.wait_running(1, "web", replicas, |_| true);
    for node in mesh.nodes() {
        wait_within(SOON, "a page of each task by each node", || {
            let pages: Vec<String> = (0..2 * replicas).map(|_| page(mesh, node.number)).collect();
            let is_seen = |line: &String| {
                let slot = line.split(' ').next().and_then(|name| name.strip_prefix("web.")).unwrap_or_default();
                pages.iter().any(|page| page.starts_with(&format!("{slot}@")))
            };
            if running.iter().all(is_seen) { Ok(()) } else { Err(format!("node{}: {pages:?}", node.number)) }
        });
    }
    running
}

/// `slot@node version, to address`; empty when there is no page.
fn page(mesh: &Mesh<'_>, node: usize) -> String {
    let url = format!("http://10.99.0.{node}:8080/");
    mesh.wire().site().run("curl", ["--silent", "--max-time", "5", &url]).text().to_owned()
}

/// Has each task replaced by one of version 2.
fn update(mesh: &Mesh<'_>) {
    let _ = mesh.docker(1, "service update -q -d --env-add VERSION=2 web").ok();
}

/// Waits until that is done.
#[track_caller]
fn wait_updated(mesh: &Mesh<'_>) {
    let _ = mesh.wait_output(1, "service inspect --format '{{.UpdateStatus.State}}' web", |text| text == "completed");
}

/// Waits until every node leads to tasks of version 2 alone: an update is completed once the old ones are asked to end, which each
/// node then hears of.
#[track_caller]
fn wait_new_alone(mesh: &Mesh<'_>) {
    for node in mesh.nodes() {
        wait_within(SOON, "pages of the new version", || {
            let pages: Vec<String> = (0..8).map(|_| page(mesh, node.number)).collect();
            let is_new = pages.iter().all(|page| page.contains(" 2, "));
            if is_new { Ok(()) } else { Err(format!("node{}: {pages:?}", node.number)) }
        });
    }
}

fn an_update_that_starts_first_fails_no_request(case: &Case) {
    update_under_load(case, "--update-order start-first");
}

fn an_update_that_stops_first_fails_no_request(case: &Case) {
    update_under_load(case, "--update-order stop-first");
}

fn update_under_load(case: &Case, flags: &str) {
    let mesh = formed(case);
    let _ = serve(&mesh, 6, &format!("--update-parallelism 2 {flags}"));
    let load = Client::start(&mesh, &["load", RATE, "10.99.0.1:8080", "10.99.0.2:8080", "10.99.0.3:8080"]);
    update(&mesh);
    wait_updated(&mesh);
    load.signal(Signal::TERM);
    let told = load.wait_last("the end of the load", |_| true);
    let lines = load.lines();
    let counts: Vec<usize> = lines[0].split(' ').filter_map(|number| number.parse().ok()).collect();
    println!("mesh: {} requests, {} failed", counts[0], counts[1]);
    assert!(counts[0] > 200, "that was no load: {told}");
    assert_eq!(counts[1], 0, "requests failed: {lines:#?}");
    wait_new_alone(&mesh);
    drop(load);
    mesh.end();
}

/// A connection to each of the tasks by a node, with what it says.
#[track_caller]
fn sessions(mesh: &Mesh<'_>, node: usize, tasks: usize) -> Vec<(Client, String)> {
    let mut sessions: Vec<(Client, String)> = Vec::new();
    for _ in 0..10 * tasks {
        let session = Client::start(mesh, &["session", &format!("10.99.0.{node}:5432")]);
        let _ = session.wait_last("a connection", |line| line == "connected");
        let word = session.asked();
        if sessions.iter().all(|(_, known)| *known != word) {
            sessions.push((session, word));
        }
        if sessions.len() == tasks {
            return sessions;
        }
    }
    panic!("not all tasks have got a connection by node{node}")
}

fn an_update_ends_datagrams_at_once_and_streams_with_the_grace(case: &Case) {
    let mesh = formed(case);
    // By a node that runs none of them, and by one that runs one.
    let flags = "--constraint node.role==worker --replicas-max-per-node 2 --update-order start-first --update-parallelism 0 --stop-grace-period 25s";
    let _ = serve(&mesh, 2, flags);
    let open: Vec<_> = [1, 2].into_iter().flat_map(|node| sessions(&mesh, node, 2)).collect();
    let flows = [1, 2].map(|node| Client::start(&mesh, &["datagrams", &format!("10.99.0.{node}:5300")]));
    for flow in &flows {
        let _ = flow.wait_last("an answer", |line| line.contains(" 1, "));
    }
    update(&mesh);
    // The old tasks live for as long as there are sessions with them: a flow goes to a new one all the same.
    for flow in &flows {
        let _ = flow.wait_last("an answer of the new version", |line| line.contains(" 2, "));
    }
    // No new connection gets to one.
    wait_new_alone(&mesh);
    for (session, word) in &open {
        assert_eq!(session.asked(), *word, "a session goes on with the task that it has");
    }
    // With the grace all is over, and a client that is idle learns of it.
    for (session, _) in &open {
        let _ = session.wait_last("the end of a session", |line| line.starts_with("ended"));
    }
    wait_updated(&mesh);
    for flow in &flows {
        let _ = flow.wait_last("an answer of the new version", |line| line.contains(" 2, "));
    }
    drop((open, flows));
    mesh.end();
}

fn a_lost_node_ends_datagrams_and_streams(case: &Case) {
    let mut mesh = formed(case);
    let _ = serve(&mesh, 2, "--constraint node.role==worker --replicas-max-per-node 2");
    let open: Vec<_> = [1, 2].into_iter().flat_map(|node| sessions(&mesh, node, 2)).collect();
    // Some flows are with the task that is lost.
    let flows: Vec<Client> = [1, 1, 1, 2, 2, 2]
        .map(|node| Client::start(&mesh, &["datagrams", &format!("10.99.0.{node}:5300")]))
        .into_iter()
        .collect();
    for flow in &flows {
        let _ = flow.wait_last("an answer", |line| line.contains(" 1, "));
    }
    // Without a word to anybody, as of a machine that has lost its power.
    mesh.cut_off(&[3]);
    mesh.node_mut(3).kill_all();
    let before: Vec<usize> = flows.iter().map(|flow| flow.lines().len()).collect();
    let _ = mesh.wait_running_within(mesh.pace().replacement, 1, "web", 2, |number| number == 2);
    for (flow, before) in flows.iter().zip(before) {
        wait_within(SOON, "an answer of another task", || {
            let lines = flow.lines();
            let is_answered = lines.len() > before + 1 && lines.last().is_some_and(|line| line.contains("@node2 "));
            if is_answered { Ok(()) } else { Err(format!("{before} lines, then {:?}", lines.get(before..))) }
        });
    }
    for (session, word) in &open {
        if word.contains("@node2 ") {
            assert_eq!(session.asked(), *word, "a session with another task goes on");
        } else {
            let said = session.asked();
            assert!(said.starts_with("ended"), "a session with a lost task: {said}");
        }
    }
    drop((open, flows));
    mesh.end();
}

fn a_local_task_sees_the_clients_address(case: &Case) {
    let mesh = formed(case);
    let running = serve(&mesh, 2, "--constraint node.role==worker");
    assert_eq!(running.iter().filter_map(|line| node_of(line)).sum::<usize>(), 5, "one on each worker: {running:?}");
    for node in 1..=3 {
        let pages: Vec<String> = (0..8).map(|_| page(&mesh, node)).collect();
        for page in &pages {
            let is_kept = page.ends_with(&format!("to {CLIENT}"));
            assert_eq!(is_kept, page.contains(&format!("@node{node} ")), "a task of the node itself, and no other: {pages:?}");
        }
    }
    // By the option there is no other.
    let _ = mesh.docker(1, "service update -q -d --label-add ketch.mesh.prefer-local=true web").ok();
    for node in [2, 3] {
        wait_within(SOON, "only the node's own task", || {
            let pages: Vec<String> = (0..8).map(|_| page(&mesh, node)).collect();
            let is_so = |page: &String| page.contains(&format!("@node{node} ")) && page.ends_with(&format!("to {CLIENT}"));
            if pages.iter().all(is_so) { Ok(()) } else { Err(format!("{pages:?}")) }
        });
    }
    assert!(page(&mesh, 1).contains("@node"), "a node without one leads to the others'");
    mesh.end();
}
