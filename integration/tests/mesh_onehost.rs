//! A cluster as one host: a task's container is reached from every manager, whichever node runs it, by the stock client.

use std::fs;

use ketch_integration::console::Terminal;
use ketch_integration::mesh::{IMAGE, Mesh, node_of};
use ketch_integration::{Case, tests, wait_until};

tests![
    every_command_from_every_manager,
    a_terminal_and_its_size,
    files_both_ways,
    streams_end_as_they_do_here,
    an_agent_is_killed_in_the_middle,
    a_leader_is_killed_in_the_middle,
    a_node_may_keep_to_itself,
    a_worker_reaches_nothing,
    the_whole_cluster_is_listed,
    what_is_nobodys_is_answered_as_ever,
];


/// A service of one task at that node; its container's name.
#[track_caller]
fn task_at(mesh: &Mesh<'_>, node: usize, name: &str, flags: &str, words: &str) -> String {
    let _ = mesh
        .docker(1, &format!("service create -q -d --name {name} --constraint node.hostname==node{node} {flags} {IMAGE} {words}"))
        .ok();
    let _ = mesh.wait_running(1, name, 1, |number| number == node);
    named(mesh, node, name)
}

/// The name of the container that runs there for a service.
#[track_caller]
fn named(mesh: &Mesh<'_>, node: usize, service: &str) -> String {
    let line = format!("ps --format '{{{{.Names}}}}' --filter label=com.docker.swarm.service.name={service}");
    mesh.wait_output(node, &line, |text| text.starts_with(service))
}

fn id_of(mesh: &Mesh<'_>, node: usize, name: &str) -> String {
    mesh.docker(node, &format!("inspect --format '{{{{.Id}}}}' {name}")).ok().text().to_owned()
}

fn every_command_from_every_manager(case: &Case) {
    let mesh = Mesh::formed(case, 3, 1);
    let flags = "--publish mode=host,published=8080,target=80";
    let words = "sh -c 'trap \"echo caught\" USR1; echo begun; while true; do sleep 0.1; done'";
    let name = task_at(&mesh, 4, "web", flags, words);
    let id = id_of(&mesh, 4, &name);
    for manager in 1..=3 {
        for typed in [name.as_str(), id.as_str(), &id[..12]] {
            let out = mesh.docker(manager, &format!("exec {typed} hostname")).ok();
            assert_eq!(out.text(), &id[..12], "node{manager} {typed}");
        }
        let on = |line: &str| mesh.docker(manager, line);
        let _ = on(&format!("exec {name} sh -c 'exit 7'")).exits(7);
        let out = on(&format!("exec {name} sh -c 'echo out; echo err >&2'")).ok();
        assert_eq!((out.text(), out.stderr.trim()), ("out", "err"));
        let _ = on(&format!("exec -d {name} touch /from{manager}")).ok();
        let _ = mesh.wait_output(manager, &format!("exec {name} ls /from{manager}"), |text| text.starts_with("/from"));
        assert!(on(&format!("logs {name}")).ok().text().starts_with("begun"));
        assert_eq!(on(&format!("inspect --format '{{{{.Id}}}} {{{{.Name}}}}' {name}")).ok().text(), format!("{id} /{name}"));
        assert!(on(&format!("top {name}")).ok().text().contains("trap"));
        let out = on(&format!("stats --no-stream --format '{{{{.Name}}}} {{{{.PIDs}}}}' {name}")).ok();
        assert!(out.text().starts_with(&name) && !out.text().ends_with(" 0"), "{out}");
        assert!(on(&format!("port {name}")).ok().text().contains("80/tcp -> 0.0.0.0:8080"));
        let before = on(&format!("logs {name}")).ok().text().matches("caught").count();
        let _ = on(&format!("kill --signal USR1 {name}")).ok();
        let _ = mesh.wait_output(manager, &format!("logs {name}"), |text| text.matches("caught").count() == before + 1);
    }
    // Each of them is in the log of the node that has answered, with who has asked.
    let managers: Vec<String> = (1..=3)
        .map(|manager| mesh.docker(manager, "info --format '{{.Swarm.NodeID}}'").ok().text().to_owned())
        .collect();
    let log = mesh.node(4).engine.log();
    for manager in &managers {
        assert!(log.lines().any(|line| line.contains("a manager asks") && line.contains(manager) && line.contains("/exec")), "{log}");
    }
    for (node, direction) in [(1, "sent"), (4, "answered")] {
        let name = format!("ketch_container_access_requests_total{{direction=\"{direction}\",status=\"2xx\"}}");
        assert!(mesh.node(node).engine.metric(&name) > 0.0, "{name} of node{node}");
    }
    // Its life is the service's.
    for line in ["stop", "rm", "restart", "pause"] {
        mesh.docker(2, &format!("{line} {name}")).refuses(&["No such container"]);
    }
    let _ = mesh.docker(2, &format!("kill {name}")).ok();
    let _ = mesh.wait_output(4, &format!("inspect --format '{{{{.State.Status}}}}' {name}"), |text| text == "exited");
    let out = mesh.docker(2, &format!("inspect --format '{{{{.State.Status}}}} {{{{.State.ExitCode}}}}' {name}")).ok();
    assert_eq!(out.text(), "exited 137", "also of one that has ended");
    mesh.end();
}

fn a_terminal_and_its_size(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    let name = task_at(&mesh, 2, "web", "", "sleep 1000");
    let (mut terminal, slave) = Terminal::open();
    let client = mesh.node(1).engine.client().args(["exec", "-it", &name, "sh"]).terminal(slave);
    let running = client.spawn();
    terminal.send("tty; echo e''nd\n");
    assert!(terminal.expect("end\r\n").contains("/dev/pts/"));
    rustix::termios::tcsetwinsize(
        &terminal.master,
        rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 },
    )
    .expect("the terminal's size");
    running.signal(rustix::process::Signal::WINCH);
    terminal.send("until test \"$(stty size)\" = '33 77'; do sleep 0.1; done; echo re''sized\n");
    let _ = terminal.expect("resized\r\n");
    terminal.send("exit 8\n");
    let _ = running.wait().exits(8);
    mesh.end();
}

fn files_both_ways(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    let name = task_at(&mesh, 2, "web", "", "sleep 1000");
    let engine = &mesh.node(1).engine;
    let file = engine.site.path("much");
    let came = engine.site.path("came");
    let make = format!("head -c 50M /dev/urandom > {}", file.display());
    let _ = engine.sh(&make).ok();
    let digest = engine.sh(&format!("sha256sum < {}", file.display())).ok().text().to_owned();
    let _ = mesh.docker(1, &format!("cp {} {name}:/much", file.display())).ok();
    assert_eq!(mesh.docker(1, &format!("exec {name} sh -c 'sha256sum < /much'")).ok().text(), digest);
    let _ = mesh.docker(1, &format!("cp {name}:/much {}", came.display())).ok();
    assert_eq!(engine.sh(&format!("sha256sum < {}", came.display())).ok().text(), digest);
    mesh.docker(1, &format!("cp {name}:/none {}", came.display())).refuses(&["Could not find the file /none in container"]);
    for gone in [file, came] {
        fs::remove_file(gone).expect("the test's file");
    }
    mesh.end();
}

fn streams_end_as_they_do_here(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    let name = task_at(&mesh, 2, "web", "", "sh -c 'until test -e /go; do sleep 0.1; done; echo out; exit 4'");
    let client = || mesh.node(1).engine.client();
    let much = "x".repeat(3_000_000);
    let out = client().args(["exec", "-i", &name, "wc", "-c"]).stdin(much).run().ok();
    assert_eq!(out.text(), "3000000", "the end of what is typed is the process's");
    let exec = mesh.node(1).engine.call("POST", &format!("/containers/{name}/exec"), r#"{"AttachStdout":true,"Cmd":["echo","raw"]}"#).is(201);
    let exec = exec.json()["Id"].as_str().unwrap_or_default().to_owned();
    let mut http = mesh.node(1).engine.http();
    http.ask("POST", &format!("/exec/{exec}/start"), &["Content-Type: application/json"], r#"{"Tty":true}"#);
    let head = http.head();
    assert_eq!((head.status, head.header("content-type")), (200, "application/vnd.docker.raw-stream"));
    assert_eq!(String::from_utf8_lossy(&http.rest()), "raw\n");
    let attached = client().args(["attach", &name]).spawn();
    let waited = client().args(["wait", &name]).spawn();
    let followed = client().args(["logs", "-f", &name]).spawn();
    wait_until("the attachment", || {
        let out = mesh.docker(2, "events --since 1h --until 0s --filter event=attach");
        if out.text().is_empty() { Err(out.to_string()) } else { Ok(()) }
    });
    let _ = mesh.docker(1, &format!("exec {name} touch /go")).ok();
    assert_eq!(attached.wait().exits(4).text(), "out");
    assert_eq!(waited.wait().ok().text(), "4");
    assert_eq!(followed.wait().ok().text(), "out");
    mesh.end();
}

fn an_agent_is_killed_in_the_middle(case: &Case) {
    let mut mesh = Mesh::formed(case, 1, 1);
    let name = task_at(&mesh, 2, "web", "", "sleep 1000");
    let running = mesh.node(1).engine.client().args(["exec", &name, "sh", "-c", "echo begun; sleep 1000"]).spawn();
    wait_until("what it says", || if running.stdout_now() == "begun\n" { Ok(()) } else { Err(running.stdout_now()) });
    mesh.node_mut(2).kill_agent();
    let out = running.wait();
    assert_ne!(out.code, 0, "{out}");
    let error = mesh.docker(1, &format!("exec {name} true"));
    error.refuses(&["node node2"]);
    mesh.node_mut(2).come_back();
    let _ = mesh.wait_output(1, &format!("exec {name} hostname"), |text| !text.is_empty());
    mesh.end();
}

fn a_leader_is_killed_in_the_middle(case: &Case) {
    let mut mesh = Mesh::formed(case, 3, 1);
    let name = task_at(&mesh, 4, "web", "", "sleep 1000");
    let leader = mesh.leader(2, std::time::Duration::from_secs(30));
    let other = if leader == 2 { 3 } else { 2 };
    let running = mesh.node(other).engine.client().args(["logs", "-f", &name]).spawn();
    let _ = mesh.docker(other, &format!("exec {name} true")).ok();
    mesh.node_mut(leader).kill_agent();
    // It ends with the leader that it went through.
    let _ended = running.wait();
    let _ = mesh.wait_output(other, &format!("exec {name} hostname"), |text| !text.is_empty());
    mesh.node_mut(leader).come_back();
    let _ = mesh.wait_output(leader, &format!("exec {name} hostname"), |text| !text.is_empty());
    mesh.end();
}

fn a_node_may_keep_to_itself(case: &Case) {
    let mesh = Mesh::with_flags(case, 2, &["--cluster-container-access=false"]);
    mesh.form(1);
    let name = task_at(&mesh, 2, "web", "", "sleep 1000");
    let text = "node node2 lets no manager into its containers: cluster-container-access is false there";
    for line in ["exec NAME true", "logs NAME", "top NAME", "kill NAME", "cp NAME:/etc/passwd -"] {
        mesh.docker(1, &line.replace("NAME", &name)).refuses(&[text]);
    }
    let answer = mesh.node(1).engine.call("GET", &format!("/containers/{name}/json"), "");
    assert_eq!(answer.refuses(403), text);
    let _ = mesh.docker(2, &format!("exec {name} true")).ok();
    let own = task_at(&mesh, 1, "own", "", "sleep 1000");
    let _ = mesh.docker(1, &format!("exec {own} true")).ok();
    mesh.end();
}

fn a_worker_reaches_nothing(case: &Case) {
    let mesh = Mesh::formed(case, 1, 2);
    let name = task_at(&mesh, 3, "web", "", "sleep 1000");
    let id = id_of(&mesh, 3, &name);
    let on_manager = task_at(&mesh, 1, "own", "", "sleep 1000");
    for line in ["exec NAME true", "logs NAME", "kill NAME", "top NAME"] {
        for typed in [&name, &id, &on_manager] {
            mesh.docker(2, &line.replace("NAME", typed)).refuses(&["No such container"]);
        }
    }
    mesh.docker(2, "ps --filter node=*").refuses(&["invalid filter 'node'"]);
    assert!(!mesh.node(3).engine.log().contains("a manager asks"));
    // Of what is no task a manager reaches nothing, either.
    let _ = mesh.docker(3, &format!("run -d --name plain {IMAGE} sleep 1000")).ok();
    let plain = id_of(&mesh, 3, "plain");
    for typed in ["plain", &plain] {
        mesh.docker(1, &format!("exec {typed} true")).refuses(&["No such container"]);
    }
    let _ = mesh.docker(3, "rm -f plain").ok();
    mesh.end();
}

fn the_whole_cluster_is_listed(case: &Case) {
    let mut mesh = Mesh::formed(case, 1, 2);
    let _ = mesh.docker(1, &format!("service create -q -d --name web --replicas 6 {IMAGE} sleep 1000")).ok();
    let lines = mesh.wait_running(1, "web", 6, |_| true);
    let count = |line: &str| mesh.docker(1, line).ok().text().lines().count();
    let on_own = lines.iter().filter(|line| node_of(line) == Some(1)).count();
    assert_eq!(count("ps -q"), on_own, "a plain list is as ever");
    assert_eq!(count("ps -q --filter node=*"), 6);
    assert_eq!(count("ps -q --filter node=node2"), 2);
    assert_eq!(count("ps -q --filter node=node2 --filter node=node3"), 4);
    assert_eq!(count("ps -q --last 3 --filter node=*"), 3);
    assert_eq!(count("ps -q --filter node=* --filter name=web.1"), 1);
    let line = "ps --filter node=* --format '{{.Label \"com.docker.swarm.node.id\"}}'";
    let mut nodes: Vec<String> = mesh.docker(1, line).ok().text().lines().map(str::to_owned).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    mesh.docker(1, "ps --filter node=nope").refuses(&["node nope not found"]);
    // Of other nodes only tasks.
    let _ = mesh.docker(3, &format!("run -d --name plain {IMAGE} sleep 1000")).ok();
    assert_eq!(count("ps -q --filter node=*"), 6);
    let _ = mesh.docker(3, "rm -f plain").ok();
    mesh.node_mut(3).kill_agent();
    let answer = mesh.node(1).engine.call("GET", "/containers/json?filters=%7B%22node%22%3A%5B%22*%22%5D%7D", "").is(200);
    assert!(answer.header("warning").contains("node node3"), "{answer:?}");
    assert_eq!(answer.json().as_array().map(Vec::len), Some(4), "{answer:?}");
    mesh.node_mut(3).come_back();
    mesh.end();
}

fn what_is_nobodys_is_answered_as_ever(case: &Case) {
    let mesh = Mesh::formed(case, 1, 1);
    let name = task_at(&mesh, 2, "web", "", "sleep 1000");
    for typed in ["nope", "f00d", "web", "web.1", &name.replace("web.1", "web.2"), &format!("{name}x")] {
        let answer = mesh.node(1).engine.call("GET", &format!("/containers/{typed}/json"), "");
        assert_eq!(answer.refuses(404), format!("No such container: {typed}"));
        let answer = mesh.node(1).engine.call("POST", &format!("/containers/{typed}/kill"), "");
        assert_eq!(answer.refuses(404), format!("cannot kill container: {typed}: No such container: {typed}"));
    }
    let exec = format!("{}{}", "a".repeat(64), "0".repeat(32));
    let answer = mesh.node(1).engine.call("GET", &format!("/exec/{exec}/json"), "");
    assert_eq!(answer.refuses(404), format!("No such exec instance: {exec}"));
    mesh.end();
}
