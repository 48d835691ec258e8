//! Two things at once, and partners that do not answer: a stop in the middle of a restart, a removal in the middle of a start, a client
//! that does not read, a shim that hangs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};

tests![
    stop_while_it_restarts,
    remove_while_it_starts,
    remove_while_it_restarts,
    a_client_that_does_not_read,
    a_client_that_has_gone_is_let_go,
    a_client_by_tcp_that_has_gone_is_let_go,
    a_client_by_tls_that_has_gone_is_let_go,
    a_request_from_a_pipe,
    a_shim_that_hangs,
    shims_that_hang_while_they_are_needed,
    shims_that_die_one_after_another,
    no_shim_at_a_takeover,
];

fn stop_while_it_restarts(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box --restart always --network none busybox true").ok();
    for round in 0..8 {
        let _ = engine.docker("start box").ok();
        wait_until("restarts", || {
            let seen = engine.inspect("box", "{{.RestartCount}}");
            // Each time at another moment of the next.
            if seen.parse::<usize>().is_ok_and(|count| count > round % 3) { Ok(()) } else { Err(seen) }
        });
        let _ = engine.docker("stop box").ok();
        let state = "{{.State.Status}} {{.RestartCount}}";
        let stopped = engine.inspect("box", state);
        assert!(stopped.starts_with("exited "), "round {round}: {stopped}");
        // A start that was under way would be seen by now, or by the next round.
        let _ = engine.docker("run --rm --network none busybox true").ok();
        assert_eq!(engine.inspect("box", state), stopped, "round {round}");
    }
    engine.end();
}

fn remove_while_it_starts(case: &Case) {
    let engine = Engine::start(case);
    for round in 0..8 {
        let _ = engine.docker("create --name box -p 127.0.0.1:8080:80 busybox sleep 1000").ok();
        let starting = engine.client().args(["start", "box"]).spawn();
        let _ = engine.sh(&format!("sleep 0.0{round}; docker rm -f box")).ok();
        let _ = starting.wait();
        assert_eq!(engine.docker("ps -aq").ok().text(), "", "round {round}");
    }
    engine.end();
}

fn remove_while_it_restarts(case: &Case) {
    let engine = Engine::start(case);
    for round in 0..8 {
        let _ = engine.docker("run -d --name box --restart always --network none busybox true").ok();
        wait_until("restarts", || {
            let seen = engine.inspect("box", "{{.RestartCount}}");
            if seen.parse::<usize>().is_ok_and(|count| count > round % 3) { Ok(()) } else { Err(seen) }
        });
        let _ = engine.docker("rm -f box").ok();
        assert_eq!(engine.docker("ps -aq").ok().text(), "", "round {round}");
    }
    engine.end();
}

fn a_client_that_does_not_read(case: &Case) {
    let engine = Engine::start(case);
    engine.only_ketch("its kill waits for the client for ever");
    let _ = engine.docker("create --name box --network none busybox yes").ok();
    let mut http = engine.http();
    http.ask("POST", "/containers/box/attach?stream=1&stdout=1", &["Connection: Upgrade", "Upgrade: tcp"], "");
    assert_eq!(http.head().status, 101);
    let _ = engine.docker("start box").ok();
    engine.wait_inspect("box", "{{.State.Status}}", "running");
    let _ = engine.docker("kill box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    drop(http);
    engine.end();
}

/// What waits for a container's end goes with who has asked: `docker run -d` leaves such a call each time.
fn a_client_that_has_gone_is_let_go(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).expect("list its files").count();
    let before = files();
    for path in ["/events?filters=%7B%22type%22%3A%5B%22volume%22%5D%7D", "/containers/box/wait", "/containers/box/logs?follow=1&stdout=1", "/containers/box/stats"] {
        for _ in 0..10 {
            let mut http = engine.http();
            http.ask(if path.ends_with("wait") { "POST" } else { "GET" }, path, &[], "");
            assert_eq!(http.head().status, 200, "{path}");
        }
        wait_until("its files are as many as before", || match files() {
            now if now <= before + 3 => Ok(()),
            now => Err(format!("{path}: {now}, {before} before")),
        });
    }
    engine.end();
}

/// The same where the kernel tells of no more than the end of what the client writes.
fn a_client_by_tcp_that_has_gone_is_let_go(case: &Case) {
    let engine = Engine::bare(case, &["--host", "tcp://127.0.0.1:2375", "--tls=false"]);
    clients_on_the_network(&engine, "plain");
    engine.end();
}

fn a_client_by_tls_that_has_gone_is_let_go(case: &Case) {
    let maker = Maker::under_test(case);
    case.needs(case.has_program("openssl"), "no openssl (package openssl)");
    let site = Site::new(case);
    let _ = site.command_in(&site.dir, "sh").args(["-c", CERTIFICATES]).run().ok();
    let path = |name: &str| site.path(name).display().to_string();
    let (ca, cert, key) = (path("ca.crt"), path("cert.pem"), path("key.pem"));
    let flags = ["--host", "tcp://127.0.0.1:2375", "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let engine = Engine::inside(site, maker, &flags);
    clients_on_the_network(&engine, "tls");
    engine.end();
}

fn clients_on_the_network(engine: &Engine<'_>, how: &str) {
    let ask = r#"
import socket, ssl, sys
for method, path in (('GET', '/events?filters=%7B%22type%22%3A%5B%22volume%22%5D%7D'), ('POST', '/containers/box/wait'), ('GET', '/containers/box/logs?follow=1&stdout=1')):
    for _ in range(8):
        stream = socket.create_connection(('127.0.0.1', 2375))
        if sys.argv[1] == 'tls':
            context = ssl.create_default_context(cafile='ca.crt')
            context.load_cert_chain('client.cert', 'client.key')
            stream = context.wrap_socket(stream, server_hostname='127.0.0.1')
        stream.sendall(f'{method} {path} HTTP/1.1\r\nHost: d\r\n\r\n'.encode())
        head = stream.recv(100)
        assert head.startswith(b'HTTP/1.1 200 '), head
        stream.close()
"#;
    engine.load_busybox();
    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).expect("list its files").count();
    let before = files();
    let _ = engine.site.command_in(&engine.site.dir, "python3").args(["-c", ask, how]).run().ok();
    wait_until("its files are as many as before", || match files() {
        now if now <= before + 3 => Ok(()),
        now => Err(format!("{now}, {before} before")),
    });
    let _ = engine.docker("rm -f box").ok();
}

/// A CA, and certificates of it for a server on loopback and for a client.
const CERTIFICATES: &str = r#"
    set -e
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=engine -keyout key.pem -out request.pem 2>/dev/null
    echo subjectAltName=IP:127.0.0.1 >extensions
    openssl x509 -req -in request.pem -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=user -keyout client.key -out request.pem 2>/dev/null
    echo extendedKeyUsage=clientAuth >of-clients
    openssl x509 -req -in request.pem -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile of-clients -out client.cert 2>/dev/null
"#;

/// A script that pipes a request into the socket has written all that it will: it still reads the answer, and a stream ends.
fn a_request_from_a_pipe(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    for path in ["/_ping", "/info", "/containers/json"] {
        let mut http = engine.http();
        http.ask("GET", path, &[], "");
        http.half_close();
        assert_eq!(http.answer(false).status, 200, "{path}");
    }
    for (method, path) in [("GET", "/events"), ("POST", "/containers/box/wait"), ("GET", "/containers/box/logs?follow=1&stdout=1")] {
        let mut http = engine.http();
        http.ask(method, path, &[], "");
        assert_eq!(http.head().status, 200, "{path}");
        http.half_close();
        // Whatever it still says of it, it comes to an end.
        let _ = http.rest();
        assert!(http.has_ended(), "{path}");
    }
    // Output only, without an upgrade, goes on.
    let mut http = engine.http();
    http.ask("POST", "/containers/box/attach?stream=1&stdout=1", &[], "");
    assert_eq!(http.head().status, 200);
    http.half_close();
    let _ = engine.docker("exec box sh -c 'echo later >/proc/1/fd/1'").ok();
    assert_eq!(http.frame(), Some((1, "later\n".to_owned())));
    engine.end();
}

/// The shim of a container.
pub(crate) fn shim_of(engine: &Engine<'_>, name: &str) -> Pid {
    let id = engine.inspect(name, "{{.Id}}");
    let shims: Vec<i32> = engine.site.processes("containerd-shim");
    let is_its = |pid: &&i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.ends_with(&id));
    Pid::from_raw(*shims.iter().find(is_its).expect("its shim")).expect("a pid")
}

/// Each call comes to an end: the shim is killed, and another takes the container over.
fn shims_that_hang_while_they_are_needed(case: &Case) {
    let mut engine = Engine::bare(case, &["--live-restore"]);
    engine.only_ketch("it waits for containerd, which waits");
    engine.load_busybox();
    let names = ["stopped", "removed", "entered", "paused", "found"];
    for name in names {
        let _ = engine.docker(&format!("run -d --name {name} --network none busybox sleep 1000")).ok();
    }
    let health = "--health-cmd true --health-interval 100ms --health-retries 1";
    let _ = engine.docker(&format!("run -d --name checked {health} --network none busybox sleep 1000")).ok();
    engine.wait_inspect("checked", "{{.State.Health.Status}}", "healthy");
    let pid = |name: &str| engine.inspect(name, "{{.State.Pid}}");
    let before: Vec<String> = names.iter().map(|name| pid(name)).collect();
    for name in names.iter().chain(&["checked"]) {
        kill_process(shim_of(&engine, name), Signal::STOP).expect("stop the shim");
    }
    let lines = ["stop -t 1 stopped", "rm -f removed", "exec entered true", "pause paused", "top found"];
    let calls = lines.map(|line| engine.client().args(line.split(' ')).spawn());
    let codes = calls.map(|call| call.wait().code);
    assert_eq!(codes[..2], [0, 0]);
    assert_eq!(engine.inspect("stopped", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    // What was asked of the shim that hung is refused; the next time it is done.
    for (name, line) in [("entered", "exec entered true"), ("paused", "pause paused"), ("found", "top found")] {
        wait_until(line, || match engine.docker(line) {
            out if out.code == 0 => Ok(()),
            out => Err(out.to_string()),
        });
        assert_eq!(pid(name), before[names.iter().position(|one| *one == name).expect("a name")], "{name}");
    }
    wait_until("its health is seen again", || {
        let seen = engine.inspect("checked", "{{.State.Health.Status}} {{(index .State.Health.Log 4).ExitCode}}");
        if seen == "healthy 0" { Ok(()) } else { Err(seen) }
    });
    // One that hangs when the daemon comes back.
    let pid = pid("found");
    kill_process(shim_of(&engine, "found"), Signal::STOP).expect("stop the shim");
    engine.kill();
    engine.come_back();
    wait_until("it is taken up", || match engine.docker("exec found echo inside") {
        out if out.code == 0 => Ok(()),
        out => Err(out.to_string()),
    });
    assert_eq!(engine.inspect("found", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    let _ = engine.docker("unpause paused").ok();
    engine.end();
}

/// The daemon's programs in a folder of the site's, where a test may change them.
pub(crate) fn programs_of_its_own(site: &Site, program: &Path) -> PathBuf {
    let folder = site.path("programs");
    std::fs::create_dir(&folder).expect("make a folder of programs");
    for name in ["ketchd", "ketch", "containerd-shim-ketch-v2"] {
        let _ = std::fs::copy(program.with_file_name(name), folder.join(name)).expect("copy a program");
    }
    folder
}

/// While none takes it over the container lives on; one that shall end does, even then, and is not said to have ended before.
fn shims_that_die_one_after_another(case: &Case) {
    let Maker::Ketch(program) = Maker::under_test(case) else {
        case.skip("dockerd: its shims are containerd's, which starts no other");
    };
    let site = Site::new(case);
    let folder = programs_of_its_own(&site, &program);
    let shim = folder.join("containerd-shim-ketch-v2");
    let away = folder.join("away");
    let breaks = || {
        std::fs::rename(&shim, &away).expect("take the shim away");
        std::fs::write(&shim, "#!/bin/sh\necho no shim today >&2; exit 1\n").expect("write another");
        std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).expect("change its mode");
    };
    let engine = Engine::inside(site, Maker::Ketch(folder.join("ketchd")), &[]);
    engine.load_busybox();
    for name in ["lives", "ends"] {
        let _ = engine.docker(&format!("run -d --name {name} --network none busybox sleep 1000")).ok();
    }
    let state = |name: &str| engine.inspect(name, "{{.State.Status}} {{.State.Pid}}");
    let (lives, ends) = (state("lives"), state("ends"));
    let (first, second) = (shim_of(&engine, "lives"), shim_of(&engine, "ends"));
    breaks();
    for shim in [first, second] {
        kill_process(shim, Signal::KILL).expect("kill the shim");
    }
    wait_until("none takes it over", || match engine.log().matches("no shim takes").count() {
        count if count >= 4 => Ok(()),
        _ => Err(engine.log()),
    });
    assert_eq!((state("lives"), state("ends")), (lives.clone(), ends.clone()));
    std::fs::rename(&away, &shim).expect("put the shim back");
    for name in ["lives", "ends"] {
        wait_until("it is taken over", || match engine.docker(&format!("exec {name} true")) {
            out if out.code == 0 => Ok(()),
            out => Err(out.to_string()),
        });
    }
    assert_eq!((state("lives"), state("ends")), (lives, ends.clone()));
    breaks();
    let id = engine.inspect("ends", "{{.Id}}");
    let tries = |log: &str| log.lines().filter(|line| line.contains("no shim takes") && line.contains(&id)).count();
    // The ninth comes 26 s after the first.
    let before = tries(&engine.log());
    kill_process(shim_of(&engine, "ends"), Signal::KILL).expect("kill the shim");
    wait_until("it is tried again and again", || match tries(&engine.log()) - before {
        9.. => Ok(()),
        _ => Err(engine.log()),
    });
    // That none can be started is no reason to end it; that somebody wants it killed is.
    assert_eq!(state("ends"), ends);
    let pid = ends.trim_start_matches("running ");
    assert!(!ketch_integration::probe::is_dead(pid.parse().expect("a pid")), "it lives");
    let _ = engine.docker("kill ends");
    wait_until("its end is told", || match state("ends") {
        now if now == "exited 0" => Ok(()),
        now => Err(now),
    });
    wait_until("its process is gone", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.is_empty() || status.contains("State:\tZ") { Ok(()) } else { Err(status) }
    });
    std::fs::rename(&away, &shim).expect("put the shim back");
    engine.end();
}

/// A package's upgrade while the daemon is away: containers whose shims have died are well, and are taken over when there is a shim again.
fn no_shim_at_a_takeover(case: &Case) {
    let Maker::Ketch(program) = Maker::under_test(case) else {
        case.skip("dockerd: its shims are containerd's, which starts no other");
    };
    let site = Site::new(case);
    let folder = programs_of_its_own(&site, &program);
    let (shim, away) = (folder.join("containerd-shim-ketch-v2"), folder.join("away"));
    let mut engine = Engine::inside(site, Maker::Ketch(folder.join("ketchd")), &["--live-restore"]);
    engine.load_busybox();
    let _ = engine.docker("run -d --rm -v kept:/data --name lives --network none busybox sleep 1000").ok();
    let _ = engine.docker("run -d --name killed --network none busybox sleep 1000").ok();
    let state = |engine: &Engine<'_>, name: &str| engine.inspect(name, "{{.State.Status}} {{.State.Pid}}");
    let before = ["lives", "killed"].map(|name| (state(&engine, name), shim_of(&engine, name)));
    let ids = ["lives", "killed"].map(|name| engine.inspect(name, "{{.Id}}"));
    engine.kill();
    // It is asked for when it is started.
    std::fs::rename(&shim, &away).expect("take the shim away");
    std::fs::write(&shim, "#!/bin/sh\necho no shim today >&2; exit 1\n").expect("write another");
    std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).expect("change its mode");
    for (_, shim) in &before {
        kill_process(*shim, Signal::KILL).expect("kill the shim");
    }
    engine.come_back();
    wait_until("both are tried again", || {
        let log = engine.log();
        let tried = |id: &String| log.lines().filter(|line| line.contains("no shim takes it over yet") && line.contains(id)).count() > 2;
        if ids.iter().all(tried) { Ok(()) } else { Err(log) }
    });
    for (name, (was, _)) in ["lives", "killed"].iter().zip(&before) {
        assert_eq!(state(&engine, name), *was);
        let pid = was.trim_start_matches("running ").parse().expect("a pid");
        assert!(!ketch_integration::probe::is_dead(pid), "{name} lives");
    }
    // Whoever wants one killed has it killed, by the runtime; the client may hear that there is no shim to do it.
    let _ = engine.docker("kill killed");
    engine.wait_inspect("killed", "{{.State.Status}}", "exited");
    std::fs::rename(&away, &shim).expect("put the shim back");
    wait_until("it is taken over", || match engine.docker("exec lives true") {
        out if out.code == 0 => Ok(()),
        out => Err(out.to_string()),
    });
    assert_eq!(state(&engine, "lives"), before[0].0);
    let _ = engine.docker("rm -f lives killed").ok();
    engine.end();
}

fn a_shim_that_hangs(case: &Case) {
    let mut engine = Engine::bare(case, &["--live-restore"]);
    engine.only_ketch("it waits for containerd, which waits");
    engine.load_busybox();
    for name in ["hangs", "goes"] {
        let _ = engine.docker(&format!("run -d --name {name} --network none busybox sleep 1000")).ok();
    }
    let (shim, pid) = (shim_of(&engine, "hangs"), engine.inspect("hangs", "{{.State.Pid}}"));
    engine.kill();
    kill_process(shim, Signal::STOP).expect("stop the shim");
    engine.come_back();
    assert_eq!(engine.docker("exec goes echo inside").ok().text(), "inside");
    kill_process(shim, Signal::CONT).expect("let the shim go on");
    wait_until("it is taken up", || {
        let out = engine.docker("exec hangs echo inside");
        if out.code == 0 { Ok(()) } else { Err(out.to_string()) }
    });
    assert_eq!(engine.inspect("hangs", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    engine.end();
}
