//! The daemon's life: its flags, its end and crash under running containers, several side by side, reloading.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_until};
use rustix::process::Signal;

tests![
    containers_live_through_a_crash,
    output_of_the_time_without_a_daemon_is_kept,
    a_log_server_that_is_away_at_a_takeover,
    an_end_while_it_was_down_is_told,
    policies_after_a_restart,
    restarts_go_on_after_a_crash,
    health_goes_on_after_a_crash,
    a_crash_while_containers_come_and_go,
    images_networks_and_volumes_outlive_it,
    a_stop_ends_the_containers,
    live_restore_keeps_them,
    a_second_interrupt_is_harmless,
    two_side_by_side,
    the_same_root_twice_is_refused,
    flags_in_both_forms,
    an_unknown_flag,
    a_bad_configuration_is_refused,
    reload_on_hangup,
    the_pidfile_and_the_socket,
    events_and_clients_end_with_it,
];

/// dockerd leaves them running at its end only when told so; ketchd always can.
fn restorable(case: &Case) -> Engine<'_> {
    let engine = Engine::bare(case, &["--live-restore"]);
    engine.load_busybox();
    engine
}

fn containers_live_through_a_crash(case: &Case) {
    let mut engine = restorable(case);
    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    let _ = engine.docker("create --name never --network none busybox").ok();
    let before = engine.inspect("box", "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}");
    engine.kill();
    engine.come_back();
    assert_eq!(engine.inspect("box", "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}"), before);
    assert_eq!(engine.docker("exec box echo inside").ok().text(), "inside");
    assert_eq!(engine.inspect("never", "{{.State.Status}}"), "created");
    let _ = engine.docker("stop -t 0 box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let _ = engine.docker("start box").ok();
    engine.end();
}

fn output_of_the_time_without_a_daemon_is_kept(case: &Case) {
    let mut engine = restorable(case);
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
    let _ = engine.client().args(["run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]).run().ok();
    engine.wait_log("box", "line 3\n");
    engine.kill();
    engine.come_back();
    let seen = engine.docker("logs box").ok().text().lines().count();
    wait_until("more lines", || {
        let now = engine.docker("logs box").ok().text().lines().count();
        if now > seen + 3 { Ok(()) } else { Err(format!("{now} lines, {seen} before")) }
    });
    if engine.is_ketch() {
        let out = engine.docker("logs box").ok();
        for (number, line) in out.text().lines().enumerate() {
            assert_eq!(line, format!("line {}", number + 1), "none is missing");
        }
    }
    engine.end();
}

/// The container writes on: nobody but the daemon reads what it writes, and a pipe that is full would stop it.
fn a_log_server_that_is_away_at_a_takeover(case: &Case) {
    let mut engine = restorable(case);
    engine.only_ketch("it does not read the output of a container whose log it can't open");
    let path = engine.site.path("syslog");
    let server = UnixDatagram::bind(&path).expect("listen as a syslog server");
    server.set_read_timeout(Some(Duration::from_secs(60))).expect("bound a wait");
    let address = format!("syslog-address=unixgram://{}", path.display());
    // A pipe takes 64 KiB: 1,000 lines of these are more.
    let line = "x".repeat(80);
    let script = format!("i=0; while :; do i=$((i+1)); echo $i {line}; test -e /fast || sleep 0.05; done");
    let run = ["run", "-d", "--name", "box", "--network", "none", "--log-driver", "syslog", "--log-opt"];
    let _ = engine.client().args(run).args([&address, "busybox", "sh", "-c", &script]).run().ok();
    let _ = server.recv(&mut [0; 1024]).expect("a line in the syslog");
    let root = engine.inspect("box", "{{.State.Pid}}");
    let last = |engine: &Engine<'_>| -> u64 {
        let out = engine.docker("logs --tail 1 box").ok();
        out.text().split(' ').next().and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    engine.kill();
    drop(server);
    std::fs::remove_file(&path).expect("take the server's socket away");
    engine.come_back();
    let before = last(&engine);
    std::fs::write(format!("/proc/{root}/root/fast"), "").expect("tell the container to write on");
    wait_until("it writes more than a pipe takes", || match last(&engine) {
        now if now > before + 2_000 => Ok(()),
        now => Err(format!("line {now}, {before} before: {}", engine.log())),
    });
    std::fs::remove_file(format!("/proc/{root}/root/fast")).expect("have it write less");
    let server = UnixDatagram::bind(&path).expect("listen again");
    server.set_read_timeout(Some(Duration::from_secs(60))).expect("bound a wait");
    let _ = server.recv(&mut [0; 1024]).expect("a line in the syslog that is back");
    let _ = engine.docker("rm -f box").ok();
    engine.end();
}

fn an_end_while_it_was_down_is_told(case: &Case) {
    let mut engine = restorable(case);
    let _ = engine.docker("run -d --name box --network none busybox sh -c 'until test -e /go; do sleep 0.02; done; exit 7'").ok();
    let root = engine.inspect("box", "{{.State.Pid}}");
    engine.kill();
    std::fs::write(format!("/proc/{root}/root/go"), "").expect("tell the container to end");
    let pid = root.parse().expect("a pid");
    wait_until("the container's end", || if ketch_integration::probe::is_dead(pid) { Ok(()) } else { Err("runs".into()) });
    engine.come_back();
    engine.wait_inspect("box", "{{.State.Status}} {{.State.ExitCode}}", "exited 7");
    engine.end();
}

fn policies_after_a_restart(case: &Case) {
    let mut engine = Engine::start(case);
    for (name, policy) in [("always", "always"), ("unless", "unless-stopped"), ("failure", "on-failure"), ("no", "no"), ("halted", "always"), ("quiet", "unless-stopped")] {
        let _ = engine.docker(&format!("run -d --name {name} --restart {policy} --network none busybox sleep 1000")).ok();
    }
    let _ = engine.docker("stop -t 0 halted quiet").ok();
    engine.stop();
    engine.come_back();
    for (name, state) in [("always", "running"), ("unless", "running"), ("no", "exited"), ("halted", "running"), ("quiet", "exited")] {
        engine.wait_inspect(name, "{{.State.Status}}", state);
    }
    engine.end();
}

fn restarts_go_on_after_a_crash(case: &Case) {
    let mut engine = restorable(case);
    let _ = engine.docker("run -d --name box --restart always --network none busybox sleep 1000").ok();
    engine.kill();
    engine.come_back();
    let pid = engine.inspect("box", "{{.State.Pid}}");
    let _ = engine.sh(&format!("kill -9 {pid}")).ok();
    engine.wait_inspect("box", "{{.RestartCount}} {{.State.Status}}", "1 running");
    engine.end();
}

fn health_goes_on_after_a_crash(case: &Case) {
    let mut engine = restorable(case);
    engine.only_ketch("it leaves the shim of a container whose probe ran at the crash");
    let _ = engine.docker("run -d --name box --health-cmd 'test -e /healthy' --health-interval 50ms --health-retries 1 --network none busybox sleep 1000").ok();
    engine.wait_inspect("box", "{{.State.Health.Status}}", "unhealthy");
    engine.kill();
    engine.come_back();
    let _ = engine.docker("exec box touch /healthy").ok();
    engine.wait_inspect("box", "{{.State.Health.Status}}", "healthy");
    engine.end();
}

fn a_crash_while_containers_come_and_go(case: &Case) {
    let mut engine = restorable(case);
    engine.only_ketch("it leaves the shims of what it was starting");
    for round in 0..5 {
        let clients: Vec<_> = (0..4)
            .map(|number| engine.client().args(["run", "-d", "--name"]).arg(format!("box-{round}-{number}")).args(["--network", "none", "busybox", "sleep", "1000"]).spawn())
            .collect();
        wait_until("the first of them", || {
            let out = engine.docker("ps -q").ok();
            if out.text().lines().count() > round { Ok(()) } else { Err(out.to_string()) }
        });
        engine.kill();
        let acknowledged: Vec<String> = clients.into_iter().map(ketch_integration::runtime::Running::wait).filter(|out| out.code == 0).map(|out| out.text().to_owned()).collect();
        engine.come_back();
        for id in acknowledged {
            assert_eq!(engine.inspect(&id, "{{.State.Status}}"), "running", "an acknowledged start is not lost");
        }
    }
    engine.end();
}

fn images_networks_and_volumes_outlive_it(case: &Case) {
    let mut engine = Engine::start(case);
    let _ = engine.docker("tag busybox other:1").ok();
    let _ = engine.docker("network create --subnet 10.80.0.0/24 one").ok();
    let _ = engine.docker("volume create --label a=b vol").ok();
    let _ = engine.docker("run --name box --network one -v vol:/v -l x=y busybox sh -c 'echo kept >/v/file; echo log'").ok();
    let look = |engine: &Engine<'_>| {
        let lines = ["images --format '{{.ID}}'", "network ls", "volume inspect vol", "ps -a --format '{{.Names}} {{.Labels}}'", "logs box", "inspect --format '{{json .HostConfig.Binds}} {{json .Config.Labels}} {{json .Mounts}} {{.State.ExitCode}}' box"];
        lines.map(|line| engine.docker(line).ok().text().to_owned())
    };
    let before = look(&engine);
    engine.kill();
    engine.come_back();
    assert_eq!(look(&engine), before);
    engine.stop();
    engine.come_back();
    assert_eq!(look(&engine), before);
    let _ = engine.docker("start -a box").ok();
    let _ = engine.docker("rm box").ok();
    let _ = engine.docker("network rm one").ok();
    engine.end();
}

fn a_stop_ends_the_containers(case: &Case) {
    let mut engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sh -c 'trap \"exit 5\" TERM; echo set; while :; do sleep 0.02; done'").ok();
    engine.wait_log("box", "set");
    engine.stop();
    assert_eq!(engine.site.processes("containerd-shim"), [] as [i32; 0], "no shim runs on");
    engine.come_back();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    engine.end();
}

fn live_restore_keeps_them(case: &Case) {
    let mut engine = restorable(case);
    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    let pid = engine.inspect("box", "{{.State.Pid}}");
    engine.stop();
    assert!(!ketch_integration::probe::is_dead(pid.parse().expect("a pid")), "runs on");
    engine.come_back();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    engine.end();
}

fn a_second_interrupt_is_harmless(case: &Case) {
    let mut engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sh -c 'trap \"sleep 0.3; exit 5\" TERM; echo set; while :; do sleep 0.02; done'").ok();
    engine.wait_log("box", "set");
    engine.signal(Signal::INT);
    engine.signal(Signal::INT);
    engine.stop();
    engine.come_back();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    engine.end();
}

fn two_side_by_side(case: &Case) {
    let maker = Maker::under_test(case);
    case.needs(maker != Maker::Docker, "dockerd: two of them share docker0 and its rules");
    // One network namespace; roots, sockets and cgroups of their own.
    let engine = Engine::of(case, maker, &[]);
    engine.load_busybox();
    let other = engine.another("other");
    other.load_busybox();
    for engine in [&engine, &other] {
        let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    }
    assert_ne!(engine.inspect("box", "{{.Id}}"), other.inspect("box", "{{.Id}}"));
    assert_eq!(engine.docker("ps -q").ok().text().lines().count(), 1);
    other.end();
    assert_eq!(engine.inspect("box", "{{.State.Status}}"), "running");
    assert_eq!(engine.docker("exec box echo lives").ok().text(), "lives");
    engine.end();
}

fn the_same_root_twice_is_refused(case: &Case) {
    let engine = Engine::start(case);
    let (program, args) = engine.command_line();
    let out = engine.program(program).args(args).run();
    assert_eq!(out.code, 1, "{out}");
    assert!(out.stderr.contains("failed to start daemon"), "{out}");
    assert_eq!(engine.call("GET", "/_ping", "").is(200).body, "OK");
    engine.end();
}

fn flags_in_both_forms(case: &Case) {
    let engine = Engine::bare(case, &["--log-level=error", "--debug=false", "--default-ulimit", "nofile=123:456", "--label", "a=b", "--userland-proxy=false"]);
    engine.load_busybox();
    assert_eq!(engine.docker("run --rm --network none busybox sh -c 'ulimit -Sn; ulimit -Hn'").ok().text(), "123\n456");
    assert_eq!(engine.docker("info --format '{{json .Labels}} {{.Debug}}'").ok().text(), r#"["a=b"] false"#);
    engine.end();
}

fn an_unknown_flag(case: &Case) {
    let site = Site::new(case);
    let program = match Maker::under_test(case) {
        Maker::Ketch(path) => path,
        Maker::Docker | Maker::Debian => ketch_integration::shim::peer("dockerd"),
    };
    for (flag, said) in [("--nonsense", "Status: unknown flag: --nonsense\nSee '"), ("--log-level", "Status: flag needs an argument: --log-level\nSee '")] {
        let out = site.command(&program).arg(flag).run().exits(1);
        assert!(out.stderr.starts_with(said) && out.stderr.trim_end().ends_with(", Code: 125"), "{out}");
    }
    let out = site.command(&program).arg("--version").run().ok();
    assert!(out.text().contains("version"), "{out}");
}

fn a_bad_configuration_is_refused(case: &Case) {
    let engine = Engine::start(case);
    let (program, mut args) = engine.command_line();
    let place = args.iter().position(|arg| arg == "--config-file").expect("the flag of the configuration") + 1;
    for (text, wanted) in [("{", "unable to configure the Docker daemon with file"), (r#"{"nonsense": 1}"#, "the following directives don't match any configuration option: nonsense"), (r#"{"debug": "yes"}"#, "unable to configure the Docker daemon with file")] {
        let file = engine.site.path("bad.json");
        std::fs::write(&file, text).expect("write a configuration");
        args[place] = file.into();
        let out = engine.program(&program).args(&args).run();
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains(wanted), "{wanted}: {out}");
    }
    engine.end();
}

fn reload_on_hangup(case: &Case) {
    let engine = Engine::start(case);
    let file = engine.site.path("daemon.json");
    std::fs::write(&file, r#"{"debug": true, "labels": ["a=b"]}"#).expect("write the configuration");
    engine.signal(Signal::HUP);
    wait_until("the reload", || {
        let out = engine.docker("info --format '{{json .Labels}} {{.Debug}}'").ok();
        if out.text() == r#"["a=b"] true"# { Ok(()) } else { Err(out.to_string()) }
    });
    wait_until("the event of the reload", || {
        let out = engine.docker("events --since 1h --until 0s --filter type=daemon --format {{.Action}}").ok();
        if out.text() == "reload" { Ok(()) } else { Err(out.to_string()) }
    });
    std::fs::write(&file, "{").expect("write a bad configuration");
    engine.signal(Signal::HUP);
    assert_eq!(engine.call("GET", "/_ping", "").is(200).body, "OK");
    engine.end();
}

fn the_pidfile_and_the_socket(case: &Case) {
    use std::os::unix::fs::MetadataExt;
    let mut engine = Engine::start(case);
    let text = std::fs::read_to_string(engine.site.path("docker.pid")).expect("the file of the pid");
    assert!(text.trim().parse::<i32>().is_ok_and(|pid| pid == engine.pid()), "{text}");
    let mode = std::fs::metadata(engine.socket()).expect("the socket").mode() & 0o777;
    assert_eq!(mode, 0o660);
    engine.stop();
    assert!(!engine.site.path("docker.pid").exists(), "the file of the pid goes with it");
    engine.come_back();
    engine.kill();
    engine.come_back();
    engine.end();
}

fn events_and_clients_end_with_it(case: &Case) {
    let mut engine = Engine::start(case);
    let following = engine.client().args(["events"]).spawn();
    // The client says nothing when it begins to listen.
    wait_until("an event", || {
        let _ = engine.docker("volume create").ok();
        if following.stdout_now().contains("create") { Ok(()) } else { Err(following.stderr_now()) }
    });
    engine.stop();
    let out = following.wait();
    assert!(!out.stdout.contains("panic"), "{out}");
    engine.come_back();
    engine.end();
}
