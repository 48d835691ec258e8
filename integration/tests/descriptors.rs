//! Descriptors that a container is given on purpose, and that it gets no others.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::{Value, json};

tests![
    no_descriptor_but_the_three_streams,
    exec_has_no_descriptor_but_the_three_streams,
    preserve_fds_hands_them_over,
    descriptors_not_preserved_are_closed,
    listen_fds_hands_them_over,
    a_preserved_descriptor_that_is_not_open_is_refused,
    a_socket_of_an_activation_that_is_not_open_is_refused,
    exec_preserve_fds,
    notify_socket_is_relayed,
    notify_socket_is_removed_with_the_container,
];

/// The static program of this crate that runs inside containers.
fn probe_mount() -> Value {
    json!({
        "destination": "/probe", "type": "bind", "source": env!("CARGO_BIN_EXE_container_probe"), "options": ["bind", "ro"]
    })
}

fn with_probe<'a>(case: &'a Case, command: &str) -> Bundle<'a> {
    case.bundle().mount(probe_mount()).command(&["/probe", command])
}

fn numbers(listing: &str) -> Vec<&str> {
    listing.lines().filter_map(|line| line.split(' ').next()).collect()
}

fn no_descriptor_but_the_three_streams(case: &Case) {
    let seen = with_probe(case, "fds").prints();
    assert_eq!(numbers(&seen), ["0", "1", "2"], "{seen}");
}

fn exec_has_no_descriptor_but_the_three_streams(case: &Case) {
    let container = case.bundle().mount(probe_mount()).sleeper().start();
    let seen = container.exec(&["/probe", "fds"]).ok().stdout;
    assert_eq!(numbers(&seen), ["0", "1", "2"], "{seen}");
}

fn preserve_fds_hands_them_over(case: &Case) {
    let bundle = case.bundle().script("cat <&3; cat <&4");
    let run = bundle.run_command().args(["--preserve-fds", "2"]).arg(&bundle.id);
    let out = run.through_shell("exec 3<<three 4<<four \"$@\"\nthree is open\nthree\nfour is open\nfour\n").run().ok();
    assert_eq!(out.stdout, "three is open\nfour is open\n");
}

fn descriptors_not_preserved_are_closed(case: &Case) {
    let bundle = with_probe(case, "fds");
    let run = bundle.run_command().arg(&bundle.id).through_shell("exec 3</ 9</etc \"$@\"");
    let out = run.run().ok();
    assert_eq!(numbers(&out.stdout), ["0", "1", "2"], "{out}");
}

fn listen_fds_hands_them_over(case: &Case) {
    let bundle = case.bundle().script("echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    let run = bundle.run_command().arg(&bundle.id).env("LISTEN_FDS", "1");
    let out = run.through_shell("LISTEN_PID=$$ exec 3<<three \"$@\"\nactivated\nthree\n").run().ok();
    assert_eq!(out.stdout, "1 1\nactivated\n");
}

fn a_preserved_descriptor_that_is_not_open_is_refused(case: &Case) {
    case.not_on_runc("refuses, but leaves the state folder behind");
    let bundle = case.bundle();
    let run = bundle.run_command().args(["--preserve-fds", "200"]).arg(&bundle.id);
    run.run().refuses(&["preserve"]);
}

fn a_socket_of_an_activation_that_is_not_open_is_refused(case: &Case) {
    case.not_on_runc("does not look");
    for count in ["2", "4294967295", "99999999999"] {
        let bundle = case.bundle();
        let run = bundle.run_command().arg(&bundle.id).env("LISTEN_FDS", count);
        let out = run.through_shell("LISTEN_PID=$$ exec 3<<three \"$@\"\nactivated\nthree\n").run();
        out.refuses(&["unable to stat socket-activation fd 1 "]);
    }
}

fn exec_preserve_fds(case: &Case) {
    let container = case.bundle().sleeper().start();
    let exec = case.ketch().args(["exec", "--preserve-fds", "1", &container.id, "/bin/sh", "-c", "cat <&3"]);
    let out = exec.through_shell("exec 3<<three \"$@\"\nthree is open\nthree\n").run().ok();
    assert_eq!(out.stdout, "three is open\n");
}

fn notify_socket_is_relayed(case: &Case) {
    let path = case.dir.join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("bind the notify socket");
    case.give(&path);
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let bundle = with_probe(case, "notify");
    let run = bundle.run_command().arg("--detach").arg(&bundle.id).env("NOTIFY_SOCKET", &path).spawn();
    let mut told = String::new();
    while !told.contains("READY=1") {
        let mut bytes = [0; 4096];
        let count = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("no READY=1 ({e}); told {told:?}"));
        told.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    // With the descriptor of the barrier, whose end the runtime waits for.
    drop(socket);
    let _ = run.wait().ok();
    let container = Container::adopt(case, &bundle.id);
    assert_eq!(container.status(), "running");
    container.stop();
}

fn notify_socket_is_removed_with_the_container(case: &Case) {
    let path = case.dir.join("notify.sock");
    let _socket = UnixDatagram::bind(&path).expect("bind the notify socket");
    let bundle = case.bundle().script("echo $NOTIFY_SOCKET");
    let out = bundle.create_command().arg(&bundle.id).env("NOTIFY_SOCKET", &path).run().ok();
    let container = Container::adopt(case, &bundle.id);
    let _ = container.command("start", &[]).env("NOTIFY_SOCKET", &path).run();
    container.wait_status("stopped");
    assert_eq!(out.stdout_now(), "/run/notify/notify.sock\n");
    let _ = container.delete().ok();
}
