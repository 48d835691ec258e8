//! The label `ketch.publish.proxy` on a real cluster: tasks are told who connects to a published port, whichever node he has asked and
//! by whichever address family, and the process that carries it may be killed at any time.
//!
//! The servers and the clients are `mesh_peer`. dockerd knows no such label: ketchd alone is asked.

use std::time::Duration;

use ketch_integration::mesh::{Mesh, REGISTRY};
use ketch_integration::runtime::Running;
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_within};
use rustix::process::{Pid, Signal, kill_process};

tests![
    labels_that_can_not_be_are_refused,
    tasks_are_told_who_connects,
    an_update_under_load_fails_no_request,
    a_killed_relay_and_a_killed_agent,
];

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh_peer");
/// The client's addresses: the bridge's.
const CLIENT: [&str; 2] = ["10.99.0.254", "fd99::fe"];
const SOON: Duration = Duration::from_secs(60);
const RELAY: &str = "ketchd-relay";
const LABEL: &str = "ketch.publish.proxy=8080/tcp,5432";
const HEALTH: &str = "--health-cmd '/mesh_peer check' --health-interval 300ms --health-timeout 5s --health-retries 5";

/// A manager and two workers with addresses of both families; the servers' image is in the registry.
fn formed(case: &Case) -> Mesh<'_> {
    let mesh = Mesh::formed_of_ketch(case, 1, 2);
    add_address(mesh.wire().site(), "fd99::fe", "wire");
    for node in mesh.nodes() {
        add_address(&node.engine.site, &format!("fd99::{}", node.number), "mesh0");
    }
    mesh.push_peer(PROGRAM);
    mesh
}

fn add_address(site: &Site<'_>, address: &str, interface: &str) {
    let script = format!("ip address add {address}/64 dev {interface} nodad");
    let _ = site.run("sh", ["-c", &script]).ok();
}

/// Servers that want a header, both ports published.
fn serve(mesh: &Mesh<'_>, replicas: usize, flags: &str) {
    let line = format!(
        "service create -q -d --name web --replicas {replicas} --env PROXY=1 --env VERSION=1 \
         --env 'TASK={{{{.Task.Slot}}}}@{{{{.Node.Hostname}}}}' --publish 8080:8080 --publish 5432:5432 --publish 5300:5300/udp \
         --label {LABEL} {HEALTH} {flags} {REGISTRY}/peer:1"
    );
    let _ = mesh.docker(1, &line).ok();
    let _ = mesh.wait_running(1, "web", replicas, |_| true);
}

/// The addresses of a node, as a URL has them, each with the client's of its family.
fn ways(node: usize) -> [(String, &'static str); 2] {
    [(format!("10.99.0.{node}"), CLIENT[0]), (format!("[fd99::{node}]"), CLIENT[1])]
}

/// What a task says to whoever asks from here; empty when nobody answers.
fn page(site: &Site<'_>, at: &str) -> String {
    let url = format!("http://{at}:8080/");
    site.run("curl", ["--silent", "--globoff", "--max-time", "5", &url]).text().to_owned()
}

/// Waits until each way of each node leads to each of so many tasks, all of which know the client.
#[track_caller]
fn wait_told(mesh: &Mesh<'_>, tasks: usize, version: &str) {
    for (at, client) in (1..=mesh.nodes().len()).flat_map(ways) {
        wait_within(SOON, &format!("pages by {at}"), || {
            let pages: Vec<String> = (0..2 * tasks).map(|_| page(mesh.wire().site(), &at)).collect();
            let is_told = |page: &String| page.ends_with(&format!(" {version}, to {client}"));
            let mut seen: Vec<&str> = pages.iter().filter_map(|page| page.split(' ').next()).collect();
            seen.sort_unstable();
            seen.dedup();
            if pages.iter().all(is_told) && seen.len() == tasks { Ok(()) } else { Err(format!("{pages:?}")) }
        });
    }
}

/// The relays' processes of a node.
fn relays(mesh: &Mesh<'_>, node: usize) -> Vec<i32> {
    mesh.node(node).engine.site.processes(RELAY)
}

fn labels_that_can_not_be_are_refused(case: &Case) {
    let mesh = Mesh::formed_of_ketch(case, 1, 0);
    let create = |name: &str, flags: &str| {
        mesh.docker(1, &format!("service create -q -d --name {name} {flags} {REGISTRY}/busybox:1 sleep 1000"))
    };
    let refused = |flags: &str, told: &str| create("bad", flags).refuses(&[&format!("label ketch.publish.proxy: {told}")]);
    refused("--label ketch.publish.proxy=yes -p 80:80", "\"yes\" is no port of a task, such as 80/tcp");
    refused("--label ketch.publish.proxy=80/udp -p 80:80/udp", "\"80/udp\" is no stream of tcp");
    refused("--label ketch.publish.proxy=80", "80/tcp is no port that the service publishes");
    refused("--label ketch.publish.proxy=8080 -p 8080:80", "8080/tcp is no port that the service publishes");
    let by_host = "--publish mode=host,published=8080,target=80";
    refused(&format!("--label ketch.publish.proxy=80 {by_host}"), "80/tcp is published in mode host");
    let _ = create("good", "--label ketch.publish.proxy=80 -p 8080:80").ok();
    let update = |flags: &str| mesh.docker(1, &format!("service update -q -d {flags} good"));
    update("--label-add ketch.publish.proxy=81").refuses(&["81/tcp is no port that the service publishes"]);
    update("--publish-rm 80").refuses(&["label ketch.publish.proxy: 80/tcp is no port that the service publishes"]);
    let _ = update("--publish-rm 80 --label-rm ketch.publish.proxy").ok();
    let _ = mesh.docker(1, "service rm good").ok();
    mesh.end();
}

fn tasks_are_told_who_connects(case: &Case) {
    let mesh = formed(case);
    // The manager has none of them.
    serve(&mesh, 2, "--constraint node.role==worker --replicas-max-per-node 1");
    wait_told(&mesh, 2, "1");
    assert!((1..=3).all(|node| relays(&mesh, node).len() == 1), "one on each node");
    assert!((1..=3).all(|node| mesh.node(node).engine.metric("ketch_relay_ports") >= 1.0));

    // Whoever is kept out is so by his own address.
    let update = |flags: &str| drop(mesh.docker(1, &format!("service update -q -d {flags} web")).ok());
    update("--label-add ketch.publish.from=10.99.0.254,fd99::fe");
    let stranger = mesh.wire().connected(9);
    let is_closed = || (1..=3).all(|node| page(&stranger, &format!("10.99.0.{node}")).is_empty());
    wait_within(SOON, "the ports are closed to others", || if is_closed() { Ok(()) } else { Err("not yet".to_owned()) });
    wait_told(&mesh, 2, "1");
    update("--label-rm ketch.publish.from");
    let told = |page: String| if page.ends_with(" 1, to 10.99.0.9") { Ok(()) } else { Err(page) };
    wait_within(SOON, "a stranger's page", || told(page(&stranger, "10.99.0.1")));

    // A node's own tasks alone, and then no relay at all.
    update("--label-add ketch.mesh.prefer-local=true");
    wait_within(SOON, "a node's own task", || {
        let pages: Vec<String> = (0..4).map(|_| page(mesh.wire().site(), "10.99.0.2")).collect();
        let is_own = |page: &String| page.contains("@node2 1, to 10.99.0.254");
        if pages.iter().all(is_own) { Ok(()) } else { Err(format!("{pages:?}")) }
    });
    update("--label-rm ketch.publish.proxy --label-rm ketch.mesh.prefer-local --env-rm PROXY");
    for node in 1..=3 {
        wait_within(SOON, "no relay is left", || match relays(&mesh, node).as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?} at node{node}")),
        });
    }
    wait_within(SOON, "a page of the mesh's own rules", || {
        let page = page(mesh.wire().site(), "10.99.0.1");
        if page.contains(" 1, to 10.") { Ok(()) } else { Err(page) }
    });
    mesh.end();
}

/// A program that asks from outside of the nodes; it ends with the test.
struct Client(Option<Running>);

impl Client {
    fn start(mesh: &Mesh<'_>, args: &[&str]) -> Self {
        Self(Some(mesh.wire().site().command(PROGRAM).args(args).spawn()))
    }

    fn signal(&self, signal: Signal) {
        self.0.as_ref().expect("it runs").signal(signal);
    }

    /// What it has printed.
    fn lines(&self) -> Vec<String> {
        self.0.as_ref().expect("it runs").stdout_now().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait_more_than(&self, count: usize) -> Vec<String> {
        wait_within(SOON, "what a client prints", || {
            let lines = self.lines();
            if lines.len() > count { Ok(lines) } else { Err(format!("{lines:?}")) }
        })
    }

    /// Has a session ask, and gives what it then prints.
    #[track_caller]
    fn asked(&self) -> String {
        let before = self.lines().len();
        self.signal(Signal::USR1);
        self.wait_more_than(before).pop().expect("a line")
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

fn an_update_under_load_fails_no_request(case: &Case) {
    let mesh = formed(case);
    serve(&mesh, 6, "--update-parallelism 2 --update-order stop-first --update-monitor 500ms");
    wait_told(&mesh, 6, "1");
    let load = Client::start(&mesh, &["load", "200", "10.99.0.1:8080", "[fd99::2]:8080", "10.99.0.3:8080"]);
    let _ = mesh.docker(1, "service update -q -d --env-add VERSION=2 web").ok();
    let _ = mesh.wait_output(1, "service inspect --format '{{.UpdateStatus.State}}' web", |text| text == "completed");
    load.signal(Signal::TERM);
    let lines = load.wait_more_than(0);
    let counts: Vec<usize> = lines[0].split(' ').filter_map(|number| number.parse().ok()).collect();
    println!("mesh: {} requests, {} failed", counts[0], counts[1]);
    assert!(counts[0] > 200, "that was no load: {lines:?}");
    assert_eq!(counts[1], 0, "requests failed: {lines:#?}");
    wait_told(&mesh, 6, "2");
    drop(load);
    mesh.end();
}

fn a_killed_relay_and_a_killed_agent(case: &Case) {
    let mut mesh = formed(case);
    serve(&mesh, 2, "--constraint node.role==worker --replicas-max-per-node 1");
    wait_told(&mesh, 2, "1");
    let before = relays(&mesh, 2);
    for pid in before.iter().copied().filter_map(Pid::from_raw) {
        kill_process(pid, Signal::KILL).expect("kill the relay");
    }
    wait_told(&mesh, 2, "1");
    assert!(relays(&mesh, 2).iter().all(|pid| !before.contains(pid)), "another process");

    // What is open outlives the agent; the port is open again with the next one.
    let session = Client::start(&mesh, &["session", "10.99.0.2:5432"]);
    let _ = session.wait_more_than(0);
    let word = session.asked();
    assert!(word.ends_with(" 1, to 10.99.0.254"), "{word}");
    mesh.node_mut(2).kill_agent();
    assert_eq!(session.asked(), word, "without an agent");
    mesh.node_mut(2).come_back();
    wait_told(&mesh, 2, "1");
    assert_eq!(session.asked(), word, "with the next one");
    assert_eq!(relays(&mesh, 2).len(), 2, "one has a connection still");
    drop(session);
    wait_within(SOON, "the old relay ends with its connection", || {
        let left = relays(&mesh, 2);
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    mesh.end();
}
