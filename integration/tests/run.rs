//! run in the foreground: exit codes, streams, signals, and what a failed run leaves.

use std::fs;

use ketch_integration::{Case, Container, probe, tests, wait_until};
use rustix::process::Signal;
use serde_json::json;

tests![
    exit_code_is_the_commands,
    a_killed_command_gives_128_and_its_signal,
    streams_are_the_callers,
    stdin_reaches_the_command,
    signals_are_forwarded,
    a_missing_command_is_named,
    a_command_that_is_no_program_is_named,
    a_missing_working_folder_is_made,
    a_working_folder_that_is_a_file_is_refused,
    environment_is_the_specs,
    a_failed_run_leaves_nothing,
    a_failed_run_keeps_what_is_to_be_kept,
    the_first_process_is_pid_one,
    orphans_die_with_the_container,
    path_is_searched_inside_the_rootfs,
    detach_with_terminal_needs_a_console_socket,
];

fn exit_code_is_the_commands(case: &Case) {
    for code in [0, 1, 42, 255] {
        let _ = case.bundle().script(&format!("exit {code}")).run().exits(code);
    }
}

fn a_killed_command_gives_128_and_its_signal(case: &Case) {
    // Pid 1 cannot kill itself with SIGKILL, so it is done from outside.
    let bundle = case.bundle().script("echo up; while :; do sleep 1000; done");
    let running = bundle.run_command().arg(&bundle.id).spawn();
    wait_until("the container is up", || {
        let seen = running.stdout_now();
        if seen.contains("up") { Ok(()) } else { Err(seen) }
    });
    let _ = Container::adopt(case, &bundle.id).kill("KILL").ok();
    let _ = running.wait().exits(137);
}

fn streams_are_the_callers(case: &Case) {
    let out = case.bundle().script("echo to-out; echo to-err >&2").run().ok();
    assert_eq!(out.stdout, "to-out\n");
    assert_eq!(out.stderr, "to-err\n");
}

fn stdin_reaches_the_command(case: &Case) {
    let bundle = case.bundle().command(&["/bin/cat"]);
    let out = bundle.run_command().arg(&bundle.id).stdin("some input").run().ok();
    assert_eq!(out.stdout, "some input");
}

fn signals_are_forwarded(case: &Case) {
    let bundle = case.bundle().script("trap 'echo usr1; exit 7' USR1; echo up; while :; do sleep 1000 & wait $!; done");
    let running = bundle.run_command().arg(&bundle.id).spawn();
    wait_until("the container is up", || {
        let seen = running.stdout_now();
        if seen.contains("up") { Ok(()) } else { Err(seen) }
    });
    running.signal(Signal::USR1);
    let out = running.wait().exits(7);
    assert!(out.stdout.contains("usr1"), "{out}");
}

fn a_missing_command_is_named(case: &Case) {
    case.bundle().command(&["/bin/no-such-command"]).run().refuses(&["/bin/no-such-command", "no such file"]);
    case.bundle().command(&["no-such-command"]).run().refuses(&["no-such-command", "executable file not found in $PATH"]);
}

fn a_command_that_is_no_program_is_named(case: &Case) {
    let bundle = case.bundle().command(&["/etc/passwd"]);
    bundle.run().refuses(&["/etc/passwd", "permission denied"]);
}

fn a_missing_working_folder_is_made(case: &Case) {
    let bundle = case.bundle().command(&["/bin/pwd"]).set("/process/cwd", json!("/made/by/runtime"));
    assert_eq!(bundle.prints(), "/made/by/runtime");
}

fn a_working_folder_that_is_a_file_is_refused(case: &Case) {
    case.bundle().command(&["/bin/pwd"]).set("/process/cwd", json!("/etc/passwd")).run().refuses(&["/etc/passwd"]);
}

fn environment_is_the_specs(case: &Case) {
    let bundle = case.bundle().command(&["/bin/env"]).env("GREETING=hello world");
    let seen = bundle.prints();
    let mut lines: Vec<_> = seen.lines().collect();
    lines.sort_unstable();
    // HOME comes from the rootfs's passwd file, as runc does it.
    assert_eq!(lines, ["GREETING=hello world", "HOME=/root", "PATH=/bin:/sbin:/usr/bin:/usr/sbin"]);
}

fn a_failed_run_leaves_nothing(case: &Case) {
    let bundle = case.bundle().command(&["/no/such"]);
    let _ = bundle.run_command().arg(&bundle.id).run().exits(1);
    assert!(!case.state_root().join(&bundle.id).exists());
    assert!(!bundle.cgroup("pids").exists());
}

fn a_failed_run_keeps_what_is_to_be_kept(case: &Case) {
    let bundle = case.bundle().sleeper();
    let flags = ["--keep", "--pid-file", "/no/such/folder/pid"];
    bundle.run_command().args(flags).arg(&bundle.id).run().refuses(&["/no/such/folder"]);
    let kept = Container::adopt(case, &bundle.id);
    assert_eq!(kept.state()["status"], "stopped");
    let _ = kept.delete().ok();
}

fn the_first_process_is_pid_one(case: &Case) {
    assert_eq!(case.bundle().script("echo $$").prints(), "1");
}

fn orphans_die_with_the_container(case: &Case) {
    let bundle = case.bundle().script("sleep 1000 & echo $! ; sleep 1000 & exit 0");
    let _ = bundle.run().ok();
    assert!(!bundle.cgroup("pids").exists());
}

fn path_is_searched_inside_the_rootfs(case: &Case) {
    let bundle = case.bundle().command(&["only-in-here"]).edit(|spec| {
        spec["process"]["env"] = json!(["PATH=/opt/none:/opt/bin"]);
    });
    let folder = bundle.rootfs().join("opt/bin");
    fs::create_dir_all(&folder).expect("make /opt/bin");
    fs::copy("/bin/busybox", folder.join("true")).expect("copy busybox");
    std::os::unix::fs::symlink("/opt/bin/true", folder.join("only-in-here")).expect("link");
    // busybox does not know the name that it is called by; that it says so proves that it was found.
    let out = bundle.run();
    assert!(out.stderr.contains("applet not found"), "{out}");
}

fn detach_with_terminal_needs_a_console_socket(case: &Case) {
    let bundle = case.bundle().set("/process/terminal", json!(true));
    let out = bundle.run_command().arg("--detach").arg(&bundle.id).run();
    out.refuses(&["cannot allocate tty if runc will detach without setting console socket"]);
    let plain = case.bundle();
    let out = plain.run_command().args(["--detach", "--console-socket", "/tmp/none"]).arg(&plain.id).run();
    out.refuses(&["cannot use console socket if runc will not detach or allocate tty"]);
    assert!(!probe::is_dead(1));
}
