//! Debian's dockerd 20.10 with the shim first on its PATH under the name of containerd's own, `containerd-shim-runc-v2`.

use ketch_integration::dockerd::Docker;
use ketch_integration::shim::{Maker, Shim};
use ketch_integration::{Case, tests, wait_until};

tests![
    run_logs_and_exit_codes,
    a_life_of_exec_pause_top_and_stop,
    a_terminal_and_standard_input,
    an_out_of_memory_kill_and_a_restart_policy,
];

fn start(case: &Case) -> Docker<'_> {
    let shim = Shim::under_test(case);
    case.needs(shim.maker != Maker::Go2, "this dockerd's containerd 1.6 takes the answer of a shim of 2.x for an address");
    Docker::start(case, Some(&shim.path))
}

/// dockerd's own containerd has started the shim that is ours, if it is ours.
fn runs_the_shim_under_test(case: &Case, docker: &Docker<'_>) {
    let shim = std::fs::canonicalize(Shim::under_test(case).path).expect("the shim");
    let pids = docker.site.processes("containerd-shim-runc-v2");
    assert!(!pids.is_empty(), "a shim runs");
    for pid in pids {
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).expect("its program"), shim);
    }
}

fn done(docker: Docker<'_>) {
    docker.site.wait_without("containerd-shim");
    docker.end();
}

fn run_logs_and_exit_codes(case: &Case) {
    let docker = start(case);
    let script = "echo out; echo err >&2; exit 4";
    let out =
        docker.docker(["run", "--rm", "--network", "none", "busybox", "/bin/sh", "-c", script]).exits(4);
    assert_eq!(out.text(), "out");
    assert!(out.stderr.contains("err"), "{out}");
    let _ = docker.docker(["run", "-d", "--name", "box", "--network", "none", "busybox", "/bin/sh", "-c", script]).ok();
    docker.wait_inspect("box", "{{.State.Status}} {{.State.ExitCode}}", "exited 4");
    // dockerd waits 2 s for the rest of the output before it tells of the end.
    wait_until("the logs", || {
        let logs = docker.docker(["logs", "box"]).ok();
        if (logs.text(), logs.stderr.trim()) == ("out", "err") { Ok(()) } else { Err(logs.to_string()) }
    });
    let _ = docker.docker(["rm", "box"]).ok();
    let missing = docker.docker(["run", "--rm", "--network", "none", "busybox", "nope"]).exits(127);
    assert!(missing.stderr.contains("executable file not found in $PATH"), "{missing}");
    done(docker);
}

fn a_life_of_exec_pause_top_and_stop(case: &Case) {
    let docker = start(case);
    let run = ["run", "-d", "--name", "box", "--init", "--network", "none", "busybox", "/bin/sleep", "1000"];
    let _ = docker.docker(run).ok();
    runs_the_shim_under_test(case, &docker);
    let _ = docker.docker(["exec", "box", "/bin/sh", "-c", "exit 7"]).exits(7);
    assert!(docker.docker(["top", "box"]).ok().text().contains("sleep"));
    let _ = docker.docker(["pause", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "paused");
    let _ = docker.docker(["unpause", "box"]).ok();
    let _ = docker.docker(["update", "--pids-limit", "50", "box"]).ok();
    let id = docker.inspect("box", "{{.Id}}");
    let cgroup = case.layout.cgroup_dir("pids", &format!("{}/{id}", case.tag));
    assert_eq!(ketch_integration::probe::read(cgroup.join("pids.max")), "50");
    let stats = docker.docker(["stats", "--no-stream", "--format", "{{.PIDs}}", "box"]).ok();
    assert!(stats.text().parse::<u32>().is_ok_and(|pids| pids >= 1), "{stats}");
    let _ = docker.docker(["stop", "--time", "30", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 143");
    let _ = docker.docker(["start", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
    let _ = docker.docker(["rm", "--force", "box"]).ok();
    done(docker);
}

fn a_terminal_and_standard_input(case: &Case) {
    let docker = start(case);
    let script = "test -t 0 && stat -c %F /dev/console";
    let out = docker.docker(["run", "--rm", "-t", "--network", "none", "busybox", "/bin/sh", "-c", script]).ok();
    assert_eq!(out.text(), "character special file");
    let host = format!("unix://{}", docker.site.path("docker.sock").display());
    let client = if std::path::Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
    let cat = docker
        .site
        .command(client)
        .args(["--host", &host, "run", "--rm", "-i", "--network", "none", "busybox", "/bin/cat"])
        .stdin("through and back");
    assert_eq!(cat.run().ok().text(), "through and back");
    done(docker);
}

fn an_out_of_memory_kill_and_a_restart_policy(case: &Case) {
    let docker = start(case);
    // The container outlives the kill: containerd drops the event of a container whose end it hears of first.
    let script = "head -c 200m /dev/zero | tail; exec sleep 1000";
    let _ = docker
        .docker([
            "run", "-d", "--name", "eater", "--network", "none", "--memory", "32m", "busybox", "/bin/sh", "-c", script,
        ])
        .ok();
    wait_until("the event of the out-of-memory kill", || {
        let out = docker.docker([
            "events", "--since", "1h", "--until", "0s", "--filter", "event=oom", "--filter", "container=eater",
        ]);
        if out.text().is_empty() { Err(out.to_string()) } else { Ok(()) }
    });
    let _ = docker.docker(["rm", "--force", "eater"]).ok();
    let run = ["run", "-d", "--name", "again", "--restart", "on-failure:2", "--network", "none", "busybox", "/bin/false"];
    let _ = docker.docker(run).ok();
    docker.wait_inspect("again", "{{.RestartCount}} {{.State.Status}}", "2 exited");
    let _ = docker.docker(["rm", "again"]).ok();
    done(docker);
}
