//! Containers of no service in a network of the cluster, at several nodes: they and the services there find each other, an address is
//! one container's, and is another's when that one is gone.

use ketch_integration::mesh::{IMAGE, Mesh};
use ketch_integration::{Case, tests};

tests![containers_and_services_reach_each_other, an_address_is_one_containers, an_agent_is_killed_and_the_place_stays];


/// Addresses that nobody has asked for are of its upper half.
fn network(mesh: &Mesh<'_>) {
    let _ = mesh.docker(1, "network create -d overlay --attachable --subnet 10.30.0.0/24 --ip-range 10.30.0.128/25 net").ok();
}

fn run(mesh: &Mesh<'_>, node: usize, name: &str, flags: &str) {
    let _ = mesh.docker(node, &format!("run -d --name {name} --network net {flags} {IMAGE} sleep 1000")).ok();
}

/// Until one container has an answer of another.
#[track_caller]
fn reaches(mesh: &Mesh<'_>, (node, from): (usize, &str), to: &str) {
    let _ = mesh.wait_output(node, &format!("exec {from} ping -c 1 -W 2 {to}"), |text| text.contains(" 0% packet loss"));
}

/// The address that a container has.
fn address(mesh: &Mesh<'_>, node: usize, name: &str) -> String {
    let line = format!("inspect --format '{{{{.NetworkSettings.Networks.net.IPAddress}}}}' {name}");
    mesh.docker(node, &line).ok().text().to_owned()
}

fn containers_and_services_reach_each_other(case: &Case) {
    let mesh = Mesh::formed(case, 1, 2);
    network(&mesh);
    // The network is not known at a worker before it has something there.
    run(&mesh, 2, "two", "--network-alias deux");
    run(&mesh, 1, "one", "--ip 10.30.0.50");
    assert_eq!(address(&mesh, 1, "one"), "10.30.0.50");
    let serve = "sh -c 'while true; do echo served | nc -l -p 80; done'";
    let service = format!("service create -q -d --name web --network net --constraint node.hostname==node3 {IMAGE} {serve}");
    let _ = mesh.docker(1, &service).ok();
    let _ = mesh.wait_running(1, "web", 1, |number| number == 3);
    for name in ["two", "deux", "tasks.web"] {
        reaches(&mesh, (1, "one"), name);
    }
    reaches(&mesh, (2, "two"), "one");
    for (node, from) in [(1, "one"), (2, "two")] {
        let _ = mesh.wait_output(node, &format!("exec {from} sh -c 'nc -w 5 web 80 </dev/null'"), |text| text == "served");
    }
    let task = mesh.wait_output(3, "ps --quiet --filter label=com.docker.swarm.service.name=web", |text| !text.is_empty());
    reaches(&mesh, (3, &task), "one");
    reaches(&mesh, (3, &task), "deux");
    mesh.docker(3, &format!("network disconnect net {task}")).refuses(&["is a task of a service"]);
    let _ = mesh.docker(2, "network disconnect net two").ok();
    let _ = mesh.docker(2, "network connect --ip 10.30.0.60 --alias zwei net two").ok();
    reaches(&mesh, (1, "one"), "zwei");
    let _ = mesh.docker(1, "service rm web").ok();
    let _ = mesh.docker(1, "rm -f one").ok();
    let _ = mesh.docker(2, "rm -f two").ok();
    mesh.end();
}

fn an_address_is_one_containers(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    network(&mesh);
    let _ = mesh.docker(1, "network create -d overlay closed").ok();
    run(&mesh, 1, "one", "--ip 10.30.0.50");
    let taken = "attaching to network failed, make sure your network options are correct and check manager logs: address 10.30.0.50 of network net is in use";
    for node in [1, 2] {
        mesh.docker(node, &format!("run --rm --network net --ip 10.30.0.50 {IMAGE} true")).refuses(&[taken]);
    }
    mesh.docker(2, &format!("run --rm --network closed {IMAGE} true"))
        .refuses(&["Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed not manually attachable"]);
    mesh.docker(2, &format!("run --rm --network nonsense {IMAGE} true"))
        .refuses(&["Could not attach to network nonsense: rpc error: code = NotFound desc = network nonsense not found"]);
    mesh.docker(1, "network rm net").refuses(&["is in use by"]);
    let _ = mesh.docker(1, "restart --timeout 0 one").ok();
    assert_eq!(address(&mesh, 1, "one"), "10.30.0.50", "what it asked for");
    let _ = mesh.docker(1, "rm -f one").ok();
    run(&mesh, 2, "two", "--ip 10.30.0.50");
    assert_eq!(address(&mesh, 2, "two"), "10.30.0.50", "it is free again");
    let _ = mesh.docker(2, "rm -f two").ok();
    let _ = mesh.wait_output(1, "network rm net", |_| true);
    mesh.end();
}

fn an_agent_is_killed_and_the_place_stays(case: &Case) {
    let mut mesh = Mesh::with_flags(case, 2, &["--live-restore"]);
    case.needs(mesh.node(1).engine.is_ketch(), "dockerd: no swarm mode together with --live-restore");
    mesh.form(1);
    network(&mesh);
    run(&mesh, 1, "one", "");
    run(&mesh, 2, "two", "");
    reaches(&mesh, (1, "one"), "two");
    let before = address(&mesh, 2, "two");
    mesh.node_mut(2).kill_agent();
    mesh.node_mut(2).come_back();
    mesh.wait_ready(1, &[1, 2]);
    assert_eq!(address(&mesh, 2, "two"), before);
    reaches(&mesh, (1, "one"), "two");
    reaches(&mesh, (2, "two"), "one");
    mesh.docker(1, &format!("run --rm --network net --ip {before} {IMAGE} true")).refuses(&["is in use"]);
    // Its end is told although the agent that has seen its beginning is gone.
    let _ = mesh.docker(2, "rm -f two").ok();
    let _ = mesh.docker(1, &format!("run --rm --network net --ip {before} {IMAGE} true")).ok();
    let _ = mesh.docker(1, "rm -f one").ok();
    mesh.end();
}
