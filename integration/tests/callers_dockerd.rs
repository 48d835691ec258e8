//! Debian's dockerd with the runtime under test as its default runtime, driven by the docker command line.

use ketch_integration::dockerd::Docker;
use ketch_integration::{Case, tests, wait_until};

tests![
    run_gives_output_and_exit_code,
    exec_top_and_stop,
    pause_and_update,
    logs_of_a_detached_container,
    an_out_of_memory_kill_is_reported,
    the_restart_policy_restarts,
    a_terminal_is_a_terminal,
    the_default_filter_and_capabilities_hold,
    a_missing_program_is_127,
];

fn run_gives_output_and_exit_code(case: &Case) {
    let docker = Docker::start(case, None);
    let out = docker.docker(["run", "--rm", "--network", "none", "busybox", "/bin/sh", "-c", "echo out; echo err >&2; exit 4"]).exits(4);
    assert_eq!(out.text(), "out");
    assert!(out.stderr.contains("err"), "{out}");
    docker.end();
}

fn exec_top_and_stop(case: &Case) {
    let docker = Docker::start(case, None);
    let _ = docker.docker(["run", "-d", "--name", "box", "--init", "--network", "none", "busybox", "/bin/sleep", "1000"]).ok();
    assert!(docker.docker(["exec", "box", "/bin/ps"]).ok().text().contains("sleep"));
    let _ = docker.docker(["exec", "box", "/bin/sh", "-c", "exit 7"]).exits(7);
    assert_eq!(docker.docker(["exec", "--user", "1000:1000", "box", "/bin/id", "-u"]).ok().text(), "1000");
    assert!(docker.docker(["top", "box"]).ok().text().contains("sleep"));
    let _ = docker.docker(["stop", "--time", "30", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 143");
    let _ = docker.docker(["rm", "box"]).ok();
    docker.end();
}

fn pause_and_update(case: &Case) {
    let docker = Docker::start(case, None);
    let _ = docker.docker(["run", "-d", "--name", "box", "--network", "none", "busybox", "/bin/sleep", "1000"]).ok();
    let _ = docker.docker(["pause", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "paused");
    let _ = docker.docker(["unpause", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
    let _ = docker.docker(["update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "box"]).ok();
    let id = docker.inspect("box", "{{.Id}}");
    let limit = |controller: &str, file: &str| {
        let path = format!("{}/{id}", docker.site.case.tag);
        ketch_integration::probe::read(case.layout.cgroup_dir(controller, &path).join(file))
    };
    let file = if case.layout.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(limit("memory", file), (64 << 20).to_string());
    assert_eq!(limit("pids", "pids.max"), "50");
    let _ = docker.docker(["rm", "--force", "box"]).ok();
    docker.end();
}

fn logs_of_a_detached_container(case: &Case) {
    let docker = Docker::start(case, None);
    let _ = docker.docker(["run", "-d", "--name", "box", "--network", "none", "busybox", "/bin/sh", "-c", "echo one; echo two >&2"]).ok();
    docker.wait_inspect("box", "{{.State.Status}}", "exited");
    let logs = docker.docker(["logs", "box"]).ok();
    assert_eq!((logs.text(), logs.stderr.trim()), ("one", "two"));
    let _ = docker.docker(["rm", "box"]).ok();
    docker.end();
}

fn an_out_of_memory_kill_is_reported(case: &Case) {
    let docker = Docker::start(case, None);
    // The container outlives the kill: containerd drops the event of a container whose end it hears of first.
    let script = "head -c 200m /dev/zero | tail; exec sleep 1000";
    let _ = docker
        .docker(["run", "-d", "--name", "box", "--network", "none", "--memory", "32m", "busybox", "/bin/sh", "-c", script])
        .ok();
    wait_until("the event of the out-of-memory kill", || {
        let out = docker.docker([
            "events", "--since", "1h", "--until", "0s", "--filter", "event=oom", "--filter", "container=box",
        ]);
        if out.text().is_empty() { Err(out.to_string()) } else { Ok(()) }
    });
    // The kernel may have taken more than one process, and the container with it.
    let _either = docker.docker(["kill", "box"]);
    docker.wait_inspect("box", "{{.State.Running}} {{.State.OOMKilled}}", "false true");
    let _ = docker.docker(["rm", "box"]).ok();
    docker.end();
}

fn the_restart_policy_restarts(case: &Case) {
    let docker = Docker::start(case, None);
    let _ = docker.docker(["run", "-d", "--name", "box", "--restart", "on-failure:2", "--network", "none", "busybox", "/bin/false"]).ok();
    docker.wait_inspect("box", "{{.RestartCount}} {{.State.Status}}", "2 exited");
    let _ = docker.docker(["rm", "box"]).ok();
    docker.end();
}

fn a_terminal_is_a_terminal(case: &Case) {
    let docker = Docker::start(case, None);
    let out = docker.docker(["run", "--rm", "-t", "--network", "none", "busybox", "/bin/sh", "-c", "test -t 0 && stat -c %F /dev/console"]).ok();
    assert_eq!(out.text(), "character special file");
    docker.end();
}

fn the_default_filter_and_capabilities_hold(case: &Case) {
    let docker = Docker::start(case, None);
    let out = docker.docker(["run", "--rm", "--network", "none", "busybox", "/bin/grep", "-E", "^(Seccomp|CapEff|CapInh):", "/proc/self/status"]).ok();
    let value = |name: &str| {
        out.text().lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned()).unwrap_or_default()
    };
    assert_eq!(value("Seccomp:"), "2", "{out}");
    assert_eq!(value("CapEff:"), "00000000a80425fb", "{out}");
    docker.end();
}

fn a_missing_program_is_127(case: &Case) {
    let docker = Docker::start(case, None);
    let out = docker.docker(["run", "--rm", "--network", "none", "busybox", "nope"]).exits(127);
    assert!(out.stderr.contains("executable file not found in $PATH"), "{out}");
    docker.end();
}
