//! exec: exit codes, its flags, process files, and the containers that it refuses.

use ketch_integration::probe::{self, field_of, namespace_of};
use ketch_integration::{Case, tests, wait_until};
use serde_json::json;

tests![
    exit_code_is_the_commands,
    a_failed_exec_ends_with_255,
    a_killed_command_gives_128_and_its_signal,
    joins_every_namespace,
    joins_the_cgroup,
    environment_is_the_containers_and_the_flags,
    working_folder,
    user_and_groups,
    capabilities_are_added,
    no_new_privileges_flag,
    a_process_file,
    detached_with_a_pid_file,
    into_a_sub_cgroup,
    a_missing_command_is_named,
    of_an_unknown_container,
    of_a_stopped_container,
    of_a_created_container,
    of_a_paused_container,
    options_end_at_the_first_argument,
    stdin_reaches_the_command,
    rlimits_of_the_container_hold,
    apparmor_label_is_refused_without_apparmor,
    many_at_once,
];

fn exit_code_is_the_commands(case: &Case) {
    let container = case.bundle().sleeper().start();
    for code in [0, 1, 42] {
        let _ = container.exec(&["/bin/sh", "-c", &format!("exit {code}")]).exits(code);
    }
}

fn a_failed_exec_ends_with_255(case: &Case) {
    let container = case.bundle().sleeper().start();
    let _ = container.exec_with(&["--cwd", "/etc/passwd"], &["/bin/true"]).exits(255);
}

fn a_killed_command_gives_128_and_its_signal(case: &Case) {
    let container = case.bundle().sleeper().start();
    let _ = container.exec(&["/bin/sh", "-c", "kill -9 $$"]).exits(137);
}

fn joins_every_namespace(case: &Case) {
    let container = case.bundle().sleeper().start();
    let pid = container.pid();
    let seen = container.sh("cd /proc/self/ns; for n in pid net ipc uts mnt cgroup user; do readlink $n; done");
    let expected = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"].map(|file| namespace_of(pid, file));
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
}

fn joins_the_cgroup(case: &Case) {
    let container = case.bundle().sleeper().start();
    // Within its cgroup namespace the container's cgroup is the root of every hierarchy it was put in.
    let of_init = probe::read(container.proc("cgroup"));
    let file = case.dir.join("pid");
    let exec = case.ketch().args(["exec", "--detach", "--pid-file"]).arg(&file);
    let _ = exec.args([&container.id, "/bin/sleep", "1000"]).run().ok();
    let pid = probe::read(&file);
    assert_eq!(probe::read(format!("/proc/{pid}/cgroup")), of_init);
}

fn environment_is_the_containers_and_the_flags(case: &Case) {
    let container = case.bundle().sleeper().env("FROM_SPEC=1").start();
    let out = container.exec_with(&["--env", "ADDED=2", "--env", "FROM_SPEC=3"], &["/bin/env"]).ok();
    assert!(out.stdout.contains("ADDED=2\n") && out.stdout.contains("FROM_SPEC=3\n"), "{out}");
    assert!(!out.stdout.contains("FROM_SPEC=1"), "{out}");
}

fn working_folder(case: &Case) {
    let container = case.bundle().sleeper().start();
    assert_eq!(container.exec_with(&["--cwd", "/tmp"], &["/bin/pwd"]).ok().text(), "/tmp");
    assert_eq!(container.exec(&["/bin/pwd"]).ok().text(), "/");
}

fn user_and_groups(case: &Case) {
    case.root_only("a user's container gets no additional groups");
    let container = case.bundle().sleeper().start();
    let out = container.exec_with(&["--user", "33:44", "-g", "7", "-g", "8"], &["/bin/id"]).ok();
    assert_eq!(out.text(), "uid=33(www) gid=44 groups=7,8");
}

fn capabilities_are_added(case: &Case) {
    let container = case.bundle().sleeper().start();
    let out = container.exec_with(&["--cap", "CAP_NET_RAW"], &["/bin/cat", "/proc/self/status"]).ok();
    assert_eq!(field_of(&out.stdout, "CapEff").expect("CapEff"), "0000000020002420");
    assert_eq!(field_of(&out.stdout, "CapInh").expect("CapInh"), "0000000000000000");
}

fn no_new_privileges_flag(case: &Case) {
    let container = case.bundle().sleeper().set("/process/noNewPrivileges", json!(false)).start();
    let status = ["/bin/cat", "/proc/self/status"];
    let with = container.exec_with(&["--no-new-privs"], &status).ok();
    assert_eq!(field_of(&with.stdout, "NoNewPrivs").expect("NoNewPrivs"), "1");
    let without = container.exec(&status).ok();
    assert_eq!(field_of(&without.stdout, "NoNewPrivs").expect("NoNewPrivs"), "0");
}

fn a_process_file(case: &Case) {
    let container = case.bundle().several_ids().sleeper().start();
    let file = container.process_file(|process| {
        process["args"] = json!(["/bin/sh", "-c", "pwd; id -u; echo $ONLY; grep CapEff /proc/self/status"]);
        process["cwd"] = json!("/tmp");
        process["user"] = json!({ "uid": 33, "gid": 33 });
        process["env"] = json!(["PATH=/bin", "ONLY=this"]);
    });
    let out = case.ketch().arg("exec").arg("--process").arg(file).arg(&container.id).run().ok();
    assert_eq!(out.text(), "/tmp\n33\nthis\nCapEff:\t0000000000000000");
}

fn detached_with_a_pid_file(case: &Case) {
    let container = case.bundle().sleeper().start();
    let file = case.dir.join("pid");
    let exec = case.ketch().args(["exec", "--detach", "--pid-file"]).arg(&file);
    let out = exec.args([&container.id, "/bin/sh", "-c", "echo detached; exec sleep 1000"]).run().ok();
    let pid: i32 = probe::read(&file).parse().expect("a pid");
    assert!(!probe::is_dead(pid));
    wait_until("the output of a detached exec", || {
        let seen = out.stdout_now();
        if seen == "detached\n" { Ok(()) } else { Err(seen) }
    });
}

fn into_a_sub_cgroup(case: &Case) {
    case.needs_own_cgroup();
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let below = bundle.cgroup("pids").join("below");
    std::fs::create_dir(&below).expect("make a cgroup below");
    let file = case.dir.join("pid");
    let flag = if case.layout.is_v2() { "below" } else { "pids:below" };
    let exec = case.ketch().args(["exec", "--cgroup", flag, "--detach", "--pid-file"]).arg(&file);
    let _ = exec.args([&container.id, "/bin/sleep", "1000"]).run().ok();
    assert_eq!(probe::read(below.join("cgroup.procs")), probe::read(&file));
    container.stop();
}

fn a_missing_command_is_named(case: &Case) {
    let container = case.bundle().sleeper().start();
    let out = container.exec(&["/no/such"]).exits(255);
    assert!(out.stderr.contains("/no/such") && out.stderr.contains("no such file"), "{out}");
    let out = container.exec(&["no-such"]).exits(255);
    assert!(out.stderr.contains("no-such") && out.stderr.contains("executable file not found in $PATH"), "{out}");
}

fn of_an_unknown_container(case: &Case) {
    let out = case.ketch().args(["exec", "no-such", "/bin/true"]).run().exits(255);
    assert!(out.stderr.contains("container does not exist"), "{out}");
}

fn of_a_stopped_container(case: &Case) {
    let container = case.bundle().start();
    container.wait_status("stopped");
    let out = container.exec(&["/bin/true"]).exits(255);
    assert!(out.stderr.contains("cannot exec in a stopped container"), "{out}");
}

fn of_a_created_container(case: &Case) {
    let container = case.bundle().sleeper().create();
    assert_eq!(container.exec(&["/bin/echo", "works before start"]).ok().text(), "works before start");
    assert_eq!(container.status(), "created");
}

fn of_a_paused_container(case: &Case) {
    case.needs_own_cgroup();
    let container = case.bundle().sleeper().start();
    let _ = container.command("pause", &[]).run().ok();
    let out = container.exec(&["/bin/true"]).exits(255);
    assert!(out.stderr.contains("cannot exec in a paused container"), "{out}");
    let _ = container.command("resume", &[]).run().ok();
    let _ = container.exec(&["/bin/true"]).ok();
}

fn options_end_at_the_first_argument(case: &Case) {
    let container = case.bundle().sleeper().start();
    assert_eq!(container.exec(&["/bin/echo", "--cwd", "-e", "--", "-t"]).ok().text(), "--cwd -e -- -t");
}

fn stdin_reaches_the_command(case: &Case) {
    let container = case.bundle().sleeper().start();
    let out = container.command("exec", &["/bin/cat"]).stdin("some input").run().ok();
    assert_eq!(out.stdout, "some input");
}

fn rlimits_of_the_container_hold(case: &Case) {
    case.needs_runc(1, 2, "its Go runtime sometimes raises the soft limit again");
    let limit = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    let container = case.bundle().sleeper().set("/process/rlimits", limit).start();
    assert_eq!(container.sh("ulimit -Sn; ulimit -Hn"), "100\n200");
}

fn apparmor_label_is_refused_without_apparmor(case: &Case) {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|s| s.starts_with('Y'));
    case.needs(!enabled, "the kernel has AppArmor");
    let container = case.bundle().sleeper().start();
    let out = container.exec_with(&["--apparmor", "some-profile"], &["/bin/true"]).exits(255);
    assert!(out.stderr.to_lowercase().contains("apparmor"), "{out}");
}

fn many_at_once(case: &Case) {
    let container = case.bundle().sleeper().start();
    let running: Vec<_> = (0..8)
        .map(|n| container.command("exec", &["/bin/sh", "-c", &format!("exit {n}")]).spawn())
        .collect();
    for (code, running) in running.into_iter().enumerate() {
        let _ = running.wait().exits(i32::try_from(code).expect("a small number"));
    }
}
