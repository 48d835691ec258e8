//! The routing mesh: throughput beside a plain way with the same legs, and new connections with one service and with a thousand.
//!
//! The client is a machine on the bridge that is no node. `node2` has the task. Beside it is a namespace of the bench's own with
//! the same server, reached by routes alone: through `node2` and a bridge of it; and through `node1`, a VXLAN device between the two
//! and a bridge in a namespace, as an overlay network's is. Nothing is translated on these ways. The thousand services' tasks are
//! on a node without containers. By another port of the same task, which is told who connects, all goes through the nodes' relays.

use std::time::Duration;

use ketch_integration::mesh::Mesh;
use ketch_integration::site::{Daemon, Site};
use ketch_integration::wait::wait_within;
use serde_json::{Value, json};

use super::super::contender::call;
use super::super::samples::Samples;
use super::super::{Extent, OURS, client, knob};
use super::rest::Fakes;
use super::{PLAIN, RELAYED, Stage, image};

pub(super) const LOCAL: &str = "mesh port, local task, GiB a second";
pub(super) const REMOTE: &str = "mesh port, remote task, GiB a second";
pub(super) const ONE: &str = "mesh port, remote task, of 1 service, new connections a second";
const MANY: &str = "mesh port, remote task, of 1000 services, new connections a second";
const CREATED: &str = "1000 services with a port each, made and in the rules, s";

const MESH_LOCAL: &str = "10.99.0.2:8080";
const MESH_REMOTE: &str = "10.99.0.1:8080";
const RELAYED_LOCAL: &str = "10.99.0.2:8081";
const RELAYED_REMOTE: &str = "10.99.0.1:8081";
const PLAIN_LOCAL: &str = "10.98.0.2:8080";
const PLAIN_REMOTE: &str = "10.98.1.2:8080";
const MILLISECONDS: &str = "200";
/// Of one sample: the ports of all rest for a minute after use.
const CONNECTIONS: &str = "30";
const PATIENCE: Duration = Duration::from_secs(90);
/// The ports of the thousand.
const FIRST_PORT: usize = 20000;

/// The plain way; it goes with its namespaces.
struct Plain<'a> {
    _server: Daemon,
    _sites: [Site<'a>; 2],
}

pub(super) fn measure(stage: &mut Stage<'_>, extent: Extent, samples: &mut Samples) {
    let mesh = &stage.ours;
    let _fakes = stage.fakes.get_or_insert_with(|| Fakes::join(mesh));
    widen(mesh);
    serve(mesh);
    let _plain = Plain::lay(mesh);
    let paths = [
        (MESH_LOCAL, LOCAL, OURS),
        (PLAIN_LOCAL, LOCAL, PLAIN),
        (MESH_REMOTE, REMOTE, OURS),
        (PLAIN_REMOTE, REMOTE, PLAIN),
        (RELAYED_LOCAL, LOCAL, RELAYED),
        (RELAYED_REMOTE, REMOTE, RELAYED),
    ];
    for line in
        by_turns(mesh, &["throughput", MILLISECONDS], extent.rounds, &paths.map(|(address, ..)| address))
    {
        paths.iter().zip(line).for_each(|((_, case, key), value)| samples.keep(case, key, value));
    }
    connect(mesh, extent, (ONE, samples));
    let since = std::time::Instant::now();
    let count = knob("SERVICES", 1000) - 1;
    publish(mesh, count);
    samples.keep(CREATED, OURS, since.elapsed().as_secs_f64());
    connect(mesh, extent, (MANY, samples));
}

/// How many new connections there are with a thousand services for each one with one; the plain way's, which has none, takes out what
/// the machine does meanwhile.
pub(super) fn flatness(samples: &Samples) -> Option<f64> {
    Some(samples.by_turns(MANY, OURS, PLAIN)? / samples.by_turns(ONE, OURS, PLAIN)?)
}

/// Gives the mesh's network room for a thousand virtual addresses and as many tasks: by default it has 254, as Docker's.
fn widen(mesh: &Mesh<'_>) {
    let mut http = mesh.node(1).engine.http();
    let _gone = call(&mut http, "DELETE", "/networks/ingress", &Value::Null);
    wait_within(PATIENCE, "another network of the mesh", || {
        let body = json!({
            "Name": "ingress", "Driver": "overlay", "Ingress": true,
            "IPAM": { "Config": [{ "Subnet": "10.96.0.0/16" }] },
        });
        let made = mesh.node(1).engine.call("POST", "/networks/create", &body.to_string());
        if made.status == 201 { Ok(()) } else { Err(format!("{} {}", made.status, made.body)) }
    });
}

fn connect(mesh: &Mesh<'_>, extent: Extent, (case, samples): (&str, &mut Samples)) {
    let ways = [MESH_REMOTE, PLAIN_REMOTE, RELAYED_REMOTE];
    for line in by_turns(mesh, &["connections", CONNECTIONS], extent.rounds, &ways) {
        [OURS, PLAIN, RELAYED].iter().zip(line).for_each(|(key, value)| samples.keep(case, key, value));
    }
}

/// The task on the second node. It has the last CPU, and its client the first.
fn serve(mesh: &Mesh<'_>) {
    let this = std::env::current_exe().expect("find this program").display().to_string();
    let line = format!(
        "service create --detach --quiet --name way --constraint node.hostname==node2 --publish 8080:8080
            --publish 8081:8081 --label ketch.publish.proxy=8081 --mount type=bind,source={this},target=/serve,readonly --stop-grace-period 1s {} /serve client serve",
        image()
    );
    let _id = mesh.docker(1, &line).ok();
    super::replicas::wait_running(mesh, "way", 1);
    let engine = &mesh.node(2).engine;
    let script = format!(
        "taskset --all-tasks --cpu-list --pid {} $(docker inspect --format '{{{{.State.Pid}}}}' $(docker ps -q))",
        last_cpu()
    );
    let _out = engine.sh(&script).ok();
    for address in [MESH_LOCAL, MESH_REMOTE, RELAYED_LOCAL, RELAYED_REMOTE] {
        wait_answered(mesh, address);
    }
}

fn last_cpu() -> String {
    std::thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1).to_string()
}

fn wait_answered(mesh: &Mesh<'_>, address: &str) {
    let this = std::env::current_exe().expect("find this program");
    wait_within(PATIENCE, address, || {
        let out = mesh.wire().site().command(&this).args(["client", "ask", address]).run();
        if out.code == 0 { Ok(()) } else { Err(out.to_string()) }
    });
}

impl<'a> Plain<'a> {
    fn lay(mesh: &Mesh<'a>) -> Self {
        let case = mesh.wire().site().case;
        let (space, server) = (Site::in_folder(case, "plain-space"), Site::in_folder(case, "plain-server"));
        let (one, two) = (&mesh.node(1).engine.site, &mesh.node(2).engine.site);
        let (in_space, in_server) =
            (space.network().display().to_string(), server.network().display().to_string());
        let run = |site: &Site<'_>, script: &str| drop(site.run("sh", ["-ec", script]).ok());
        // ketchd has nothing forwarded but from or to a bridge.
        run(
            one,
            "ip link add plain9 type vxlan id 9 dstport 4790 local 10.99.0.1 remote 10.99.0.2 dev mesh0
             ip link add plain0 type bridge; ip link set plain9 master plain0 up
             ip addr add 10.98.1.1/24 dev plain0; ip link set plain0 up",
        );
        run(
            two,
            &format!(
                "ip link add plain9 type vxlan id 9 dstport 4790 local 10.99.0.2 remote 10.99.0.1 dev mesh0
                 ip link set plain9 netns {in_space}
                 ip link add plain0 type bridge; ip addr add 10.98.0.1/24 dev plain0; ip link set plain0 up
                 ip link add plain1 type veth peer name eth0 netns {in_server}; ip link set plain1 master plain0 up"
            ),
        );
        run(
            &space,
            &format!(
                "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables
                 ip link add plain0 type bridge; ip link set plain0 up; ip link set plain9 master plain0 up
                 ip link add plain1 type veth peer name eth1 netns {in_server}; ip link set plain1 master plain0 up"
            ),
        );
        run(
            &server,
            "ip addr add 10.98.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.98.0.1
             ip link set eth1 mtu 1450; ip addr add 10.98.1.2/24 dev eth1; ip link set eth1 up
             ip rule add from 10.98.1.2 lookup 9; ip route add default via 10.98.1.1 table 9",
        );
        run(
            mesh.wire().site(),
            "ip route add 10.98.0.0/24 via 10.99.0.2; ip route add 10.98.1.0/24 via 10.99.0.1",
        );
        let this = std::env::current_exe().expect("find this program").display().to_string();
        let daemon = server.daemon("taskset", ["--cpu-list", &last_cpu(), &this, "client", "serve"]);
        for address in [PLAIN_LOCAL, PLAIN_REMOTE] {
            wait_answered(mesh, address);
        }
        Self { _server: daemon, _sites: [space, server] }
    }
}

/// Makes so many services with a port and a task each, and waits until the first node has the rules of all.
fn publish(mesh: &Mesh<'_>, count: usize) {
    let mut http = mesh.node(1).engine.http();
    for number in 0..count {
        let body = json!({
            "Name": format!("one-of-many-{number}"),
            "TaskTemplate": {
                "ContainerSpec": { "Image": "busybox" },
                "Placement": { "Constraints": ["node.hostname==fake1"] },
            },
            "EndpointSpec": { "Ports": [{ "TargetPort": 80, "PublishedPort": FIRST_PORT + number }] },
        });
        let (body, kind) = (body.to_string(), ["Content-Type: application/json"]);
        wait_within(PATIENCE, "a service is made", || {
            let made = http.call("POST", "/services/create", &kind, &body);
            // Asked again when a busy machine has lost its leader for a moment: it may have been made all the same.
            if matches!(made.status, 201 | 409) { Ok(()) } else { Err(made.body) }
        });
    }
    wait_published(mesh, count + 1);
}

/// Waits until the first node's own rules have so many ports.
fn wait_published(mesh: &Mesh<'_>, count: usize) {
    let site = &mesh.node(1).engine.site;
    wait_within(PATIENCE, &format!("the rules of {count} ports"), || {
        let out = site.run("sh", ["-c", "nft list ruleset | grep -c 'chain .*tcp-[0-9]'"]);
        if out.text() == count.to_string() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
        Err(out.to_string())
    });
}

/// A client's samples of addresses, turn by turn: one that goes through all of them, until it has to let others run.
fn by_turns(mesh: &Mesh<'_>, words: &[&str], turns: usize, addresses: &[&str]) -> Vec<Vec<f64>> {
    /// A command of the harness ends within a minute.
    const AT_ONCE: usize = 20;
    let this = std::env::current_exe().expect("find this program");
    let site = mesh.wire().site();
    let targets: Vec<String> =
        addresses.iter().map(|address| client::target(address, &site.network())).collect();
    let mut lines = Vec::new();
    while lines.len() < turns {
        let some = (turns - lines.len()).min(AT_ONCE).to_string();
        let pinned = site.case.program("taskset").args(["--cpu-list", "0"]).arg(&this).arg("client");
        let out = pinned.args(words).arg(some).args(&targets).run().ok();
        let line = |line: &str| line.split(' ').map(|number| number.parse().expect("a number")).collect();
        lines.extend(out.text().lines().map(line));
    }
    lines
}
