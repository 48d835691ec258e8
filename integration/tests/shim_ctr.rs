//! The shim under containerd, 1.6 and 2.x, driven by `ctr`: a task's whole life, and containerd killed at each of its steps.

use ketch_integration::console::Terminal;
use ketch_integration::containerd::{Age, Containerd, Cri, HEARD};
use ketch_integration::{Case, probe, tests, wait_until};

tests![
    run_gives_output_and_exit_code_1_6,
    run_gives_output_and_exit_code_2,
    a_life_of_exec_pause_update_metrics_and_kill_1_6,
    a_life_of_exec_pause_update_metrics_and_kill_2,
    a_terminal_is_a_terminal_1_6,
    a_terminal_is_a_terminal_2,
    containerd_is_killed_at_every_step_1_6,
    containerd_is_killed_at_every_step_2,
    a_runtime_that_is_missing_is_named,
    a_missing_program_is_an_error_and_leaves_nothing,
];

fn run_gives_output_and_exit_code_1_6(case: &Case) {
    run_gives_output_and_exit_code(case, Age::V1_6);
}

fn run_gives_output_and_exit_code_2(case: &Case) {
    run_gives_output_and_exit_code(case, Age::V2);
}

fn run_gives_output_and_exit_code(case: &Case, age: Age) {
    let containerd = Containerd::start(case, age, Cri::Off);
    let script = format!("echo from inside; echo and beside >&2; {HEARD}; exit 3");
    let run = containerd.run_command(&["--rm", "--mount", &containerd.gate()], "one", &["/bin/sh", "-c", &script]);
    let _ = containerd.hear(run, "from inside", "and beside").exits(3);
    no_task_is_left(&containerd);
    containerd.end();
}

/// No task, no container's cgroup, no shim.
fn no_task_is_left(containerd: &Containerd<'_>) {
    assert_eq!(containerd.ctr(["task", "ls", "--quiet"]).ok().text(), "");
    containerd.site.wait_without("containerd-shim");
}

fn a_life_of_exec_pause_update_metrics_and_kill_1_6(case: &Case) {
    a_life(case, Age::V1_6);
}

fn a_life_of_exec_pause_update_metrics_and_kill_2(case: &Case) {
    a_life(case, Age::V2);
}

fn a_life(case: &Case, age: Age) {
    let containerd = Containerd::start(case, age, Cri::Off);
    let flags = ["--detach", "--mount", &containerd.gate()];
    let _ = containerd.run_command(&flags, "box", &["/bin/sleep", "1000"]).run().ok();
    wait_listed(&containerd, "box", "RUNNING");
    let script = format!("id -u; {HEARD}");
    let id = containerd.ctr_command(["task", "exec", "--exec-id", "e", "box", "/bin/sh", "-c", &script]);
    let _ = containerd.hear(id, "0", "").ok();
    let _ = containerd.ctr(["task", "exec", "--exec-id", "f", "box", "/bin/sh", "-c", "exit 5"]).exits(5);
    // A process that reads its standard input to the end: ctr sends CloseIO.
    let script = format!("cat; {HEARD}");
    let cat = containerd.ctr_command(["task", "exec", "--exec-id", "g", "box", "/bin/sh", "-c", &script]);
    let _ = containerd.hear(cat.stdin("through and back"), "through and back", "").ok();
    let _ = containerd.ctr(["task", "pause", "box"]).ok();
    wait_listed(&containerd, "box", "PAUSED");
    let _ = containerd.ctr(["task", "resume", "box"]).ok();
    wait_listed(&containerd, "box", "RUNNING");
    let metrics = containerd.ctr(["task", "metrics", "--format", "json", "box"]).ok().json();
    assert_eq!(metrics["pids"]["current"], 1, "{metrics}");
    // A number with cgroup v2.
    let usage = &metrics["memory"]["usage"];
    let bytes = usage.as_u64().or_else(|| usage["usage"].as_u64());
    assert!(bytes.is_some_and(|bytes| bytes > 4096), "{metrics}");
    assert!(containerd.ctr(["task", "ps", "box"]).ok().text().lines().count() >= 2);
    let _ = containerd.ctr(["task", "kill", "--signal", "KILL", "box"]).ok();
    wait_listed(&containerd, "box", "STOPPED");
    let removed = containerd.ctr(["task", "rm", "box"]).ok();
    assert!(removed.stderr.contains("exit code 137"), "{removed}");
    let _ = containerd.ctr(["container", "rm", "box"]).ok();
    no_task_is_left(&containerd);
    containerd.end();
}

fn wait_listed(containerd: &Containerd<'_>, id: &str, status: &str) {
    wait_until(&format!("{id} {status}"), || {
        let list = containerd.ctr(["task", "ls"]).ok();
        let line = list.text().lines().find(|line| line.split_whitespace().next() == Some(id));
        if line.is_some_and(|line| line.ends_with(status)) { Ok(()) } else { Err(list.text().to_owned()) }
    });
}

fn a_terminal_is_a_terminal_1_6(case: &Case) {
    a_terminal_is_a_terminal(case, Age::V1_6);
}

fn a_terminal_is_a_terminal_2(case: &Case) {
    a_terminal_is_a_terminal(case, Age::V2);
}

fn a_terminal_is_a_terminal(case: &Case, age: Age) {
    let containerd = Containerd::start(case, age, Cri::Off);
    let (mut terminal, slave) = Terminal::open();
    let script = "test -t 0 && test -t 1 && stat -c %F /dev/console; read line; echo got $line; exit 4";
    let running = containerd
        .run_command(&["--rm", "--tty"], "tty", &["/bin/sh", "-c", script])
        .terminal(slave)
        .spawn();
    terminal.expect("character special file");
    terminal.send("a line\n");
    terminal.expect("got a line");
    let _ = running.wait().exits(4);
    no_task_is_left(&containerd);
    containerd.end();
}

fn containerd_is_killed_at_every_step_1_6(case: &Case) {
    containerd_is_killed_at_every_step(case, Age::V1_6);
}

fn containerd_is_killed_at_every_step_2(case: &Case) {
    containerd_is_killed_at_every_step(case, Age::V2);
}

fn containerd_is_killed_at_every_step(case: &Case, age: Age) {
    let mut containerd = Containerd::start(case, age, Cri::Off);
    let log = containerd.site.path("task.log");
    let uri = format!("file://{}", log.display());
    let script = "trap 'echo ended; exit 9' TERM; echo begun; while :; do sleep 1000 & wait $!; done";
    let _ = containerd.run_command(&["--detach", "--log-uri", &uri], "box", &["/bin/sh", "-c", script]).run().ok();
    wait_until("the task's first line", || {
        let seen = std::fs::read_to_string(&log).unwrap_or_default();
        if seen == "begun\n" { Ok(()) } else { Err(seen) }
    });
    containerd.restart();
    wait_listed(&containerd, "box", "RUNNING");
    let _ = containerd.ctr(["task", "exec", "--exec-id", "a", "box", "/bin/sh", "-c", "exit 6"]).exits(6);
    let _ = containerd.ctr(["task", "pause", "box"]).ok();
    containerd.restart();
    wait_listed(&containerd, "box", "PAUSED");
    let _ = containerd.ctr(["task", "resume", "box"]).ok();
    wait_listed(&containerd, "box", "RUNNING");
    // It ends while containerd is away, which learns of it when it is back.
    let pid = containerd.ctr(["task", "ls"]).ok();
    let pid = pid.text().lines().find_map(|line| line.strip_prefix("box")?.split_whitespace().next()?.parse().ok());
    let pid: i32 = pid.expect("the task's pid");
    containerd.crash();
    let target = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(target, rustix::process::Signal::TERM).expect("signal the task");
    wait_until("the task's last line", || {
        let seen = std::fs::read_to_string(&log).unwrap_or_default();
        if seen == "begun\nended\n" { Ok(()) } else { Err(seen) }
    });
    // What it says last is not its end: a containerd that is back before that has a running task, and keeps it once it has ended.
    wait_until("the task's end", || match probe::state_letter(pid) {
        None => Ok(()),
        Some(letter) => Err(format!("{pid} is there: {letter}")),
    });
    containerd.come_back();
    match age {
        Age::V1_6 => {
            wait_listed(&containerd, "box", "STOPPED");
            let removed = containerd.ctr(["task", "rm", "box"]).ok();
            assert!(removed.stderr.contains("exit code 9"), "{removed}");
        }
        // It clears away a shim that it finds without a running process.
        Age::V2 => wait_until("the end of the task", || {
            let list = containerd.ctr(["task", "ls", "--quiet"]).ok();
            if list.text().is_empty() { Ok(()) } else { Err(list.text().to_owned()) }
        }),
    }
    containerd.restart();
    let _ = containerd.ctr(["container", "rm", "box"]).ok();
    no_task_is_left(&containerd);
    containerd.end();
}

fn a_runtime_that_is_missing_is_named(case: &Case) {
    let containerd = Containerd::start(case, Age::V1_6, Cri::Off);
    let missing = case.dir.join("no-such-runtime").display().to_string();
    let out = containerd.run_with_runtime(&missing, &["--rm"], "box", &["/bin/true"]).run();
    out.refuses(&["no-such-runtime"]);
    no_task_is_left(&containerd);
    containerd.end();
}

fn a_missing_program_is_an_error_and_leaves_nothing(case: &Case) {
    let containerd = Containerd::start(case, Age::V1_6, Cri::Off);
    let out = containerd.run_command(&["--rm"], "box", &["/bin/no-such-program"]).run();
    out.refuses(&["no-such-program"]);
    no_task_is_left(&containerd);
    containerd.end();
}
