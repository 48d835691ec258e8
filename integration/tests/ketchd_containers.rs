//! A container's life by the docker command line: stop, kill, restart, pause, rename, wait, top, lists, restart policies, health.

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests, wait_until};

tests![
    stop_asks_and_then_kills,
    stop_uses_the_containers_signal_and_time,
    start_and_stop_twice_are_not_errors,
    kill_by_signal,
    restart_is_another_process,
    pause_freezes,
    rename_and_conflict,
    remove_running_is_refused,
    removal_of_several_and_of_none,
    wait_for_conditions,
    top_shows_processes,
    inspect_shows_what_was_asked,
    list_filters,
    ambiguous_prefixes,
    policy_on_failure_counts,
    policy_always_ends_by_stop,
    policy_backs_off,
    health_goes_both_ways,
    health_without_and_disabled,
    update_of_a_policy,
    events_of_a_life,
    diff_and_changes,
    copy_both_ways,
    stats_of_one,
    prune_takes_the_stopped,
    many_at_once,
];

fn sleeping(engine: &Engine<'_>, flags: &str) -> String {
    engine.docker(&format!("run -d --network none {flags} busybox sleep 1000")).ok().text().to_owned()
}

/// One that ends by itself when told to, with a code.
fn trapping(engine: &Engine<'_>, name: &str, flags: &str, signal: &str, code: u8) {
    let script = format!("trap 'exit {code}' {signal}; echo set; while :; do sleep 0.02; done");
    let mut words = vec!["run", "-d", "--network", "none", "--name", name];
    words.extend(flags.split_whitespace());
    let _ = engine.client().args(words).args(["busybox", "sh", "-c", &script]).run().ok();
    engine.wait_log(name, "set");
}

fn stop_asks_and_then_kills(case: &Case) {
    let engine = Engine::start(case);
    trapping(&engine, "polite", "", "TERM", 5);
    assert_eq!(engine.docker("stop -t 20 polite").ok().text(), "polite");
    assert_eq!(engine.inspect("polite", "{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    // The first process of a namespace does not get a signal that it has no handler for.
    let _ = sleeping(&engine, "--name deaf");
    let _ = engine.docker("stop -t 1 deaf").ok();
    assert_eq!(engine.inspect("deaf", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    engine.end();
}

fn stop_uses_the_containers_signal_and_time(case: &Case) {
    let engine = Engine::start(case);
    trapping(&engine, "box", "--stop-signal INT --stop-timeout 20", "INT", 6);
    let _ = engine.docker("stop box").ok();
    assert_eq!(engine.inspect("box", "{{.State.ExitCode}} {{.Config.StopSignal}} {{.Config.StopTimeout}}"), "6 INT 20");
    let _ = engine.docker("start box").ok();
    wait_until("the second set", || {
        let out = engine.docker("logs box").ok();
        if out.stdout.matches("set").count() == 2 { Ok(()) } else { Err(out.to_string()) }
    });
    let _ = engine.docker("stop --signal KILL box").ok();
    assert_eq!(engine.inspect("box", "{{.State.ExitCode}}"), "137");
    engine.end();
}

fn start_and_stop_twice_are_not_errors(case: &Case) {
    let engine = Engine::start(case);
    let id = sleeping(&engine, "--name box");
    let _ = engine.docker("start box").ok();
    let answer = engine.call("POST", &format!("/containers/{id}/start"), "").is(304);
    assert_eq!(answer.body, "");
    let _ = engine.docker("stop -t 0 box").ok();
    let _ = engine.docker("stop -t 0 box").ok();
    let _ = engine.call("POST", &format!("/containers/{id}/stop"), "").is(304);
    engine.end();
}

fn kill_by_signal(case: &Case) {
    let engine = Engine::start(case);
    trapping(&engine, "box", "", "USR1", 9);
    let _ = engine.docker("kill -s USR1 box").ok();
    assert_eq!(engine.docker("wait box").ok().text(), "9");
    let out = engine.docker("kill box").exits(1);
    let id = engine.inspect("box", "{{.Id}}");
    assert_eq!(out.stderr.trim(), format!("Error response from daemon: cannot kill container: box: container {id} is not running"));
    let out = engine.docker("kill -s NONSENSE box").exits(1);
    assert!(out.stderr.contains("NONSENSE"), "{out}");
    engine.end();
}

fn restart_is_another_process(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name box");
    let first = engine.inspect("box", "{{.State.Pid}} {{.State.StartedAt}}");
    let _ = engine.docker("exec box touch /tmp/kept").ok();
    let _ = engine.docker("restart -t 0 box").ok();
    assert_ne!(engine.inspect("box", "{{.State.Pid}} {{.State.StartedAt}}"), first);
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.RestartCount}}"), "running 0");
    let _ = engine.docker("exec box ls /tmp/kept").ok();
    let _ = engine.docker("stop -t 0 box").ok();
    let _ = engine.docker("restart box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}}"), "running");
    engine.end();
}

fn pause_freezes(case: &Case) {
    let engine = Engine::start(case);
    let id = sleeping(&engine, "--name box");
    let _ = engine.docker("pause box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}"), "paused true true");
    let out = engine.docker("pause box").exits(1);
    assert_eq!(out.stderr.trim(), format!("Error response from daemon: Container {id} is already paused"));
    let out = engine.docker("exec box true").exits(1);
    assert!(out.stderr.contains("is paused, unpause the container before exec"), "{out}");
    assert!(engine.docker("ps --filter status=paused").ok().text().contains("(Paused)"));
    let _ = engine.docker("unpause box").ok();
    let _ = engine.docker("exec box true").ok();
    let _ = engine.docker("pause box").ok();
    let _ = engine.docker("rm -f box").ok();
    engine.end();
}

fn rename_and_conflict(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name one");
    let _ = sleeping(&engine, "--name two");
    let out = engine.docker("rename one two").exits(1);
    assert!(out.stderr.contains("is already in use by container"), "{out}");
    let _ = engine.docker("rename one three").ok();
    assert_eq!(engine.docker("ps --format {{.Names}}").ok().text(), "two\nthree");
    let _ = engine.docker("run -d --network none --name one busybox sleep 1000").ok();
    engine.end();
}

fn remove_running_is_refused(case: &Case) {
    let engine = Engine::start(case);
    let id = sleeping(&engine, "--name box");
    let text = "cannot remove container \"box\": container is running: stop the container before removing or force remove";
    assert_eq!(engine.call("DELETE", "/containers/box", "").refuses(409), text);
    let _ = engine.docker("rm -f box").ok();
    let _ = engine.call("GET", &format!("/containers/{id}/json"), "").refuses(404);
    engine.end();
}

fn removal_of_several_and_of_none(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name one --network none busybox").ok();
    let out = engine.docker("rm one two").exits(1);
    assert_eq!(out.text(), "one");
    assert_eq!(out.stderr.trim(), "Error response from daemon: No such container: two");
    let _ = engine.docker("rm -f two").ok();
    engine.end();
}

fn wait_for_conditions(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box --network none busybox sh -c 'exit 3'").ok();
    let mut removed = engine.http();
    removed.ask("POST", "/containers/box/wait?condition=removed", &[], "");
    let mut next = engine.http();
    next.ask("POST", "/containers/box/wait?condition=next-exit", &[], "");
    // The head is there at once: the command line starts the container after it.
    let head = next.head();
    assert_eq!((head.status, head.header("content-type")), (200, "application/json"));
    assert_eq!(removed.head().status, 200);
    let now = engine.call("POST", "/containers/box/wait", "").is(200);
    assert_eq!(now.body, "{\"StatusCode\":0}\n");
    let _ = engine.docker("start box").ok();
    assert_eq!(next.chunk().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).as_deref(), Some("{\"StatusCode\":3}\n"));
    let _ = engine.docker("wait box").ok();
    let _ = engine.docker("rm box").ok();
    assert_eq!(removed.chunk().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).as_deref(), Some("{\"StatusCode\":3}\n"));
    let _ = engine.call("POST", "/containers/box/wait", "").refuses(404);
    let answer = engine.call("POST", "/containers/box/wait?condition=nonsense", "");
    assert_eq!(answer.refuses(400), "invalid condition: \"nonsense\"");
    engine.end();
}

fn top_shows_processes(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name box");
    let out = engine.docker("top box").ok();
    assert!(out.text().starts_with("UID ") && out.text().ends_with("sleep 1000"), "{out}");
    assert_eq!(engine.docker("top box -o pid,comm").ok().text().lines().last().unwrap_or_default().split_whitespace().nth(1), Some("sleep"));
    let top = engine.call("GET", "/containers/box/top?ps_args=-o%20pid,comm", "").is(200).json();
    assert_eq!(top["Titles"], serde_json::json!(["PID", "COMMAND"]));
    assert_eq!(top["Processes"][0][0], engine.inspect("box", "{{.State.Pid}}"));
    engine.end();
}

fn inspect_shows_what_was_asked(case: &Case) {
    let engine = Engine::start(case);
    let flags = "--name box --memory 64m --cap-add NET_ADMIN --read-only --restart on-failure:3 --ulimit nofile=100:200 --tmpfs /t --dns 10.0.0.1 -e A=b -l x=y -w /tmp -u 1000 -h h --log-opt max-size=1m --init";
    let _ = sleeping(&engine, flags);
    let seen = engine.call("GET", "/v1.50/containers/box/json", "").is(200).json();
    let host = &seen["HostConfig"];
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["CapAdd"], serde_json::json!(["CAP_NET_ADMIN"]));
    assert_eq!(host["CapDrop"], serde_json::Value::Null);
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["RestartPolicy"], serde_json::json!({"Name": "on-failure", "MaximumRetryCount": 3}));
    assert_eq!(host["Ulimits"], serde_json::json!([{"Name": "nofile", "Hard": 200, "Soft": 100}]));
    assert_eq!(host["Tmpfs"], serde_json::json!({"/t": ""}));
    assert_eq!(host["Dns"], serde_json::json!(["10.0.0.1"]));
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["LogConfig"], serde_json::json!({"Type": "json-file", "Config": {"max-size": "1m"}}));
    assert_eq!(host["Init"], true);
    assert_eq!(host["ShmSize"], 64 << 20);
    let config = &seen["Config"];
    assert_eq!(config["Env"], serde_json::json!(["A=b", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]));
    assert_eq!(config["Labels"], serde_json::json!({"x": "y"}));
    assert_eq!((config["WorkingDir"].as_str(), config["User"].as_str(), config["Hostname"].as_str()), (Some("/tmp"), Some("1000"), Some("h")));
    assert_eq!(config["Cmd"], serde_json::json!(["sleep", "1000"]));
    assert_eq!(config["Image"], "busybox");
    assert_eq!(seen["Name"], "/box");
    assert!(seen["Image"].as_str().is_some_and(|id| id.starts_with("sha256:") && id.len() == 71), "{seen}");
    assert!(seen["LogPath"].as_str().is_some_and(|path| path.ends_with("-json.log") && std::path::Path::new(path).exists()), "{seen}");
    engine.end();
}

fn list_filters(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name one -l group=a");
    let _ = engine.docker("run --name two -l group=a --network none busybox sh -c 'exit 3'").exits(3);
    let _ = engine.docker("create --name three -l group=b --network none busybox").ok();
    let names = |flags: &str| engine.docker(&format!("ps --format {{{{.Names}}}} {flags}")).ok().text().replace('\n', " ");
    assert_eq!(names(""), "one");
    assert_eq!(names("-a"), "three two one");
    assert_eq!(names("-l"), "three");
    assert_eq!(names("-n 2"), "three two");
    assert_eq!(names("-a --filter label=group"), "three two one");
    assert_eq!(names("-a --filter label=group=a"), "two one");
    assert_eq!(names("-a --filter label=group=a --filter status=exited"), "two");
    assert_eq!(names("-a --filter status=created --filter status=exited"), "three two");
    assert_eq!(names("-a --filter exited=3"), "two");
    assert_eq!(names("-a --filter name=^t"), "three two");
    assert_eq!(names("-a --filter before=three"), "two one");
    assert_eq!(names("-a --filter since=one"), "three two");
    assert_eq!(names("-a --filter ancestor=busybox:latest"), "three two one");
    assert_eq!(names("-a --filter network=none"), "three two one");
    assert_eq!(names(&format!("-a --filter id={}", &engine.inspect("two", "{{.Id}}")[..10])), "two");
    let list = engine.call("GET", "/containers/json?all=1&size=1&limit=1", "").is(200).json();
    assert_eq!(list[0]["Names"], serde_json::json!(["/three"]));
    assert!(list[0]["SizeRootFs"].as_u64().is_some_and(|bytes| bytes > 100_000), "{list}");
    assert_eq!((list[0]["State"].as_str(), list[0]["Status"].as_str()), (Some("created"), Some("Created")));
    engine.end();
}

fn ambiguous_prefixes(case: &Case) {
    let engine = Engine::start(case);
    // Seventeen ids: two begin alike.
    let ids: Vec<String> = (0..17).map(|_| engine.docker("create --network none busybox").ok().text().to_owned()).collect();
    let first = ids.iter().map(|id| &id[..1]).find(|digit| ids.iter().filter(|id| id.starts_with(*digit)).count() > 1).expect("two alike");
    let message = engine.call("GET", &format!("/containers/{first}/json"), "").refuses(400);
    assert_eq!(message, format!("multiple IDs found with provided prefix: {first}"));
    engine.end();
}

fn policy_on_failure_counts(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --restart on-failure:2 --network none busybox sh -c 'echo ran; exit 3'").ok();
    engine.wait_inspect("box", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", "2 exited 3");
    assert_eq!(engine.docker("logs box").ok().text(), "ran\nran\nran");
    let _ = engine.docker("run -d --name fine --restart on-failure --network none busybox true").ok();
    engine.wait_inspect("fine", "{{.RestartCount}} {{.State.Status}}", "0 exited");
    engine.end();
}

fn policy_always_ends_by_stop(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name box --restart always");
    let pid = engine.inspect("box", "{{.State.Pid}}");
    let _ = engine.sh(&format!("kill -9 {pid}")).ok();
    engine.wait_inspect("box", "{{.RestartCount}} {{.State.Status}}", "1 running");
    assert_ne!(engine.inspect("box", "{{.State.Pid}}"), pid);
    let _ = engine.docker("stop -t 0 box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}}"), "exited");
    engine.end();
}

fn policy_backs_off(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --restart always --network none busybox false").ok();
    engine.wait_inspect("box", "{{ge .RestartCount 3}}", "true");
    wait_until("a restarting container", || {
        let seen = engine.inspect("box", "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.Pid}}");
        if seen == "restarting true true 0" { Ok(()) } else { Err(seen) }
    });
    // Its next life may begin, and end, between the client's two calls.
    wait_until("a refusal, as it is restarting", || {
        let out = engine.docker("exec box true");
        let refused = out.code == 1 && out.stderr.contains("is restarting, wait until the container is running");
        if refused { Ok(()) } else { Err(out.to_string()) }
    });
    let _ = engine.docker("stop box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.Restarting}}"), "exited false");
    engine.end();
}

fn health_goes_both_ways(case: &Case) {
    let engine = Engine::start(case);
    let flags = "--name box --health-cmd 'echo looked; test -e /healthy' --health-interval 30ms --health-retries 2";
    let _ = sleeping(&engine, flags);
    engine.wait_inspect("box", "{{.State.Health.Status}}", "unhealthy");
    assert!(engine.inspect("box", "{{.State.Health.FailingStreak}}").parse::<u32>().is_ok_and(|streak| streak >= 2));
    let _ = engine.docker("exec box touch /healthy").ok();
    engine.wait_inspect("box", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", "healthy 0");
    let log = engine.inspect("box", "{{json (index .State.Health.Log 0)}}");
    assert!(log.contains(r#""Output":"looked\n""#), "{log}");
    assert!(engine.docker("ps").ok().text().contains("(healthy)"));
    let events = engine.docker("events --since 1h --until -1s --filter event=health_status --format {{.Action}}").ok();
    assert_eq!(events.text(), "health_status: unhealthy\nhealth_status: healthy");
    engine.end();
}

fn health_without_and_disabled(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name plain");
    assert_eq!(engine.inspect("plain", "{{json .State.Health}} {{json .Config.Healthcheck}}"), "null null");
    let _ = sleeping(&engine, "--name off --no-healthcheck");
    assert_eq!(engine.inspect("off", "{{json .State.Health}} {{json .Config.Healthcheck.Test}}"), r#"null ["NONE"]"#);
    engine.end();
}

fn update_of_a_policy(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name box");
    let _ = engine.docker("update --restart always box").ok();
    assert_eq!(engine.inspect("box", "{{.HostConfig.RestartPolicy.Name}}"), "always");
    let pid = engine.inspect("box", "{{.State.Pid}}");
    let _ = engine.sh(&format!("kill -9 {pid}")).ok();
    engine.wait_inspect("box", "{{.RestartCount}} {{.State.Status}}", "1 running");
    engine.end();
}

fn events_of_a_life(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none -l a=b busybox sh -c 'exit 3'").exits(3);
    let _ = engine.docker("rm box").ok();
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.a}}";
    let out = engine.client().args(["events", "--since", "1h", "--until", "-1s", "--filter", "container=box", "--filter", "type=container", "--format", format]).run().ok();
    let none = "<no value>";
    let wanted = [("create", none), ("attach", none), ("start", none), ("die", "3"), ("destroy", none)];
    let wanted: Vec<String> = wanted.iter().map(|(action, code)| format!("container {action} box {code} b")).collect();
    assert_eq!(out.text().lines().collect::<Vec<_>>(), wanted);
    // Followed as they come.
    let following = engine.client().args(["events", "--filter", "event=rename", "--format", "{{.Actor.Attributes.oldName}}"]).spawn();
    let _ = engine.docker("create --name old --network none busybox").ok();
    wait_until("an event that is followed", || {
        let _ = engine.docker("rename old new").code;
        let _ = engine.docker("rename new old").code;
        let seen = following.stdout_now();
        if seen.contains("/old") { Ok(()) } else { Err(seen) }
    });
    following.signal(rustix::process::Signal::TERM);
    let _ = following.wait();
    engine.end();
}

fn diff_and_changes(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'echo x >/new; rm /bin/yes; echo more >>/etc/group; mkdir -p /made/deep'").ok();
    let out = engine.docker("diff box").ok();
    let mut lines: Vec<&str> = out.text().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /made", "A /made/deep", "A /new", "C /bin", "C /etc", "C /etc/group", "D /bin/yes"]);
    let _ = engine.docker("create --name fresh --network none busybox").ok();
    assert_eq!(engine.docker("diff fresh").ok().text(), "");
    assert_eq!(engine.call("GET", "/containers/fresh/changes", "").is(200).body, "null\n");
    engine.end();
}

fn copy_both_ways(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box --network none busybox cat /made/file").ok();
    let folder = engine.site.path("in");
    std::fs::create_dir_all(folder.join("deep")).expect("make a folder");
    std::fs::write(folder.join("deep/file"), "copied").expect("write a file");
    std::fs::write(folder.join("file"), "content\n").expect("write a file");
    let out = engine.client().arg("cp").arg(&folder).arg("box:/made").run().ok();
    assert_eq!(out.text(), "");
    assert_eq!(engine.docker("start -a box").ok().text(), "content");
    let back = engine.site.path("back");
    let _ = engine.client().args(["cp", "box:/made"]).arg(&back).run().ok();
    assert_eq!(std::fs::read_to_string(back.join("deep/file")).expect("the file back"), "copied");
    let stat = engine.call("HEAD", "/containers/box/archive?path=/made/file", "").is(200);
    assert!(!stat.header("x-docker-container-path-stat").is_empty(), "{stat:?}");
    let out = engine.docker("cp box:/nowhere -").exits(1);
    assert!(out.stderr.contains("Could not find the file /nowhere in container box"), "{out}");
    let _ = sleeping(&engine, "--name runs -v /vol");
    let _ = engine.client().arg("cp").arg(folder.join("file")).arg("runs:/vol/").run().ok();
    assert_eq!(engine.docker("exec runs cat /vol/file").ok().text(), "content");
    engine.end();
}

fn stats_of_one(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name box --memory 64m");
    let out = engine.docker("stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' box").ok();
    assert!(out.text().starts_with("box 1 ") && out.text().ends_with("/ 64MiB"), "{out}");
    let one = engine.call("GET", "/containers/box/stats?stream=0&one-shot=1", "").is(200).json();
    assert!(one["memory_stats"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{one}");
    assert_eq!(one["pids_stats"]["current"], 1);
    assert!(one["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().is_some_and(|nanos| nanos > 0), "{one}");
    engine.end();
}

fn prune_takes_the_stopped(case: &Case) {
    let engine = Engine::start(case);
    let _ = sleeping(&engine, "--name runs");
    let stopped = engine.docker("create --network none busybox").ok().text().to_owned();
    let out = engine.docker("container prune -f").ok();
    assert!(out.text().contains(&stopped) && out.text().contains("Total reclaimed space: 0B"), "{out}");
    assert_eq!(engine.docker("ps -a --format {{.Names}}").ok().text(), "runs");
    engine.end();
}

fn many_at_once(case: &Case) {
    let engine = Engine::start(case);
    let started: Vec<_> = (0..16)
        .map(|number| engine.client().args(["run", "--rm", "--network", "none", "busybox", "echo"]).arg(number.to_string()).spawn())
        .collect();
    for (number, running) in started.into_iter().enumerate() {
        assert_eq!(running.wait().ok().text(), number.to_string());
    }
    engine.end();
}
