//! Two things at once, and partners that do not answer: a stop in the middle of a restart, a removal in the middle of a start, a client
//! that does not read, a shim that hangs.

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};

tests![
    stop_while_it_restarts,
    remove_while_it_starts,
    remove_while_it_restarts,
    a_client_that_does_not_read,
    a_client_that_has_gone_is_let_go,
    a_shim_that_hangs,
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

fn a_shim_that_hangs(case: &Case) {
    let mut engine = Engine::bare(case, &["--live-restore"]);
    engine.only_ketch("it waits for containerd, which waits");
    engine.load_busybox();
    for name in ["hangs", "goes"] {
        let _ = engine.docker(&format!("run -d --name {name} --network none busybox sleep 1000")).ok();
    }
    let (id, pid) = (engine.inspect("hangs", "{{.Id}}"), engine.inspect("hangs", "{{.State.Pid}}"));
    engine.kill();
    let shims: Vec<i32> = engine.site.processes("containerd-shim");
    let is_its = |pid: &&i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.ends_with(&id));
    let shim = *shims.iter().find(is_its).expect("its shim");
    let shim = Pid::from_raw(shim).expect("a pid");
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
