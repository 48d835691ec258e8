//! Containers in another one's pid namespace: what they see, what is told of them, and that nothing else is different.

use std::fs;

use ketch_integration::console::Terminal;
use ketch_integration::probe::{namespace_of, status_field};
use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::{Value, json};

use crate::attack_pid::dockers_filter;

tests![
    its_procfs_shows_the_others,
    its_procfs_has_its_options,
    it_leads_its_session,
    its_first_process_is_the_one_that_is_told,
    it_ends_when_it_is_asked_before_its_start,
    its_terminal_is_the_controlling_one,
    exec_sees_the_others,
    hooks_run_in_their_order,
    failures_are_told_as_ever,
    rlimits_are_set,
    paths_of_its_own_are_found,
    a_deadline_is_kept,
    a_filter_is_on,
    in_the_same_user_namespace,
    with_a_new_user_namespace,
    with_a_new_time_namespace,
    a_namespace_whose_first_process_has_ended,
    a_namespace_that_is_the_callers,
];

const CROSS_USER: &str = "joins what another container's user namespace owns";

fn holder(case: &Case) -> Container<'_> {
    case.root_only(CROSS_USER);
    case.needs_runc(1, 2, "delete --force kills the first process only, and the cgroup stays");
    case.bundle().sleeper().start()
}

fn of(holder: &Container<'_>, file: &str) -> String {
    format!("/proc/{}/ns/{file}", holder.pid())
}

fn joining<'a>(holder: &Container<'a>) -> Bundle<'a> {
    holder.case.bundle().sleeper().namespace("pid", Some(&of(holder, "pid")))
}

fn its_procfs_shows_the_others(case: &Case) {
    let holder = holder(case);
    let script = "readlink /proc/self/ns/pid; [ /proc/self/ns/pid -ef /proc/1/ns/pid ] && echo same; tr '\\0' ' ' < /proc/1/cmdline; echo; ls -d /proc/[0-9]* | wc -l";
    let printed = joining(&holder).script(script).prints();
    let lines: Vec<_> = printed.lines().collect();
    let namespace = namespace_of(holder.pid(), "pid");
    assert_eq!(lines[..2], [namespace.as_str(), "same"], "{printed}");
    assert!(printed.contains("trap 'exit 0' TERM"), "the holder is not seen: {printed}");
    // The holder's shell and its sleep, its own shell, and the pipe's two.
    let processes: usize = lines.last().expect("a number").trim().parse().expect("a number");
    assert!((3..=6).contains(&processes), "{printed}");
}

fn its_procfs_has_its_options(case: &Case) {
    let holder = holder(case);
    let bundle = joining(&holder).command(&["/bin/grep", " /proc proc ", "/proc/mounts"]).edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        let proc = mounts.iter_mut().find(|mount| mount["destination"] == "/proc").expect("a procfs");
        proc["options"] = json!(["nosuid", "noexec", "nodev", "hidepid=invisible"]);
    });
    let printed = bundle.prints();
    assert!(printed.contains("nosuid,nodev,noexec") && printed.contains("hidepid=invisible"), "{printed}");
}

fn it_leads_its_session(case: &Case) {
    let holder = holder(case);
    let script =
        "read pid comm state ppid group session rest < /proc/self/stat; echo $ppid $session; echo $$";
    let printed = joining(&holder).script(script).prints();
    let words: Vec<_> = printed.split_whitespace().collect();
    assert_eq!(words[..2], ["0", words[2]], "its parent is outside, its session its own: {printed}");
}

fn its_first_process_is_the_one_that_is_told(case: &Case) {
    let holder = holder(case);
    let bundle = joining(&holder);
    let file = case.dir.join("pid");
    let _ = bundle.create_command().arg("--pid-file").arg(&file).arg(&bundle.id).run().ok();
    let container = Container::adopt(case, &bundle.id);
    assert_eq!(container.status(), "created");
    let pid = container.pid();
    assert_eq!(fs::read_to_string(&file).expect("the file"), pid.to_string());
    assert_eq!(namespace_of(pid, "pid"), namespace_of(holder.pid(), "pid"));
    let _ = container.start().ok();
    assert_eq!(container.pid(), pid);
    assert_eq!(container.status(), "running");
    let listed = case.ketch().args(["ps", "--format", "json", &bundle.id]).run().ok().json();
    assert!(listed.as_array().expect("a list").contains(&json!(pid)), "{listed}");
    container.stop();
    let _ = container.delete().ok();
    assert_eq!(holder.status(), "running");
}

fn it_ends_when_it_is_asked_before_its_start(case: &Case) {
    let holder = holder(case);
    let container = joining(&holder).create();
    let _ = container.kill("TERM").ok();
    container.wait_status("stopped");
    assert_eq!(holder.status(), "running");
}

fn its_terminal_is_the_controlling_one(case: &Case) {
    let holder = holder(case);
    let script = "exec 3<>/dev/tty && echo it has one; trap 'echo interrupted; exit 5' INT; echo up; while :; do sleep 1; done";
    let bundle = joining(&holder).script(script).set("/process/terminal", json!(true));
    let (mut terminal, slave) = Terminal::open();
    let running = bundle.run_command().arg(&bundle.id).terminal(slave).spawn();
    terminal.expect("it has one");
    terminal.expect("up");
    terminal.send("\u{3}");
    terminal.expect("interrupted");
    let _ = running.wait().exits(5);
}

fn exec_sees_the_others(case: &Case) {
    let holder = holder(case);
    let container = joining(&holder).start();
    let seen = container.sh("readlink /proc/self/ns/pid; tr '\\0' ' ' < /proc/1/cmdline");
    assert!(seen.starts_with(&namespace_of(holder.pid(), "pid")), "{seen}");
    assert!(seen.contains("trap 'exit 0' TERM"), "{seen}");
}

fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
}

fn hooks_run_in_their_order(case: &Case) {
    let holder = holder(case);
    let order = case.dir.join("order");
    // Those before the start find what the container has by the number in their state.
    let script = |kind: &str| {
        let number = r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/')"#;
        format!("{number}; echo {kind} $(readlink /proc/$pid/ns/net) >> {}", order.display())
    };
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart"];
    let bundle = kinds
        .iter()
        .fold(joining(&holder), |bundle, kind| bundle.set(&format!("/hooks/{kind}"), hook(&script(kind))));
    let bundle = bundle.set("/hooks/startContainer", hook("readlink /proc/self/ns/pid > /hook"));
    let container = bundle.start();
    let network = namespace_of(container.pid(), "net");
    let expected = kinds.map(|kind| format!("{kind} {network}\n")).concat();
    assert_eq!(fs::read_to_string(&order).expect("the hooks ran"), expected);
    assert_ne!(network, namespace_of(holder.pid(), "net"));
    container.stop();
    let seen = fs::read_to_string(bundle.rootfs().join("hook")).expect("the hook ran");
    assert_eq!(seen.trim(), namespace_of(holder.pid(), "pid"));
}

/// Each with the pid namespace joined and without: what is said must be the same, but for names.
fn failures_are_told_as_ever(case: &Case) {
    let holder = holder(case);
    type Change = fn(Bundle<'_>) -> Bundle<'_>;
    let failures: [(&str, Change); 12] = [
        ("a mount source", |bundle| {
            bundle.mount(
                json!({ "destination": "/m", "type": "bind", "source": "/no/such", "options": ["bind"] }),
            )
        }),
        ("a file system", |bundle| {
            bundle.mount(json!({ "destination": "/m", "type": "nosuchfs", "source": "x" }))
        }),
        ("prestart", |bundle| bundle.set("/hooks/prestart", hook("echo wrong >&2; exit 3"))),
        ("createRuntime", |bundle| bundle.set("/hooks/createRuntime", hook("echo wrong >&2; exit 3"))),
        ("createContainer", |bundle| bundle.set("/hooks/createContainer", hook("echo wrong >&2; exit 3"))),
        ("a hook's program", |bundle| {
            bundle.set("/hooks/createContainer", json!([{ "path": "/no/such/hook" }]))
        }),
        ("the program", |bundle| bundle.command(&["/no/such/program"])),
        ("the program on PATH", |bundle| bundle.command(&["no-such-program"])),
        ("the working directory", |bundle| bundle.set("/process/cwd", json!("/bin/busybox"))),
        ("a sysctl", |bundle| bundle.set("/linux/sysctl", json!({ "net.no.such": "1" }))),
        ("an rlimit", |bundle| {
            bundle.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 2, "hard": 1 }]))
        }),
        ("a terminal without a devpts", |bundle| {
            bundle.set("/process/terminal", json!(true)).edit(|spec| {
                spec["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["type"] != "devpts");
            })
        }),
    ];
    for (what, change) in failures {
        let said = |bundle: Bundle<'_>| {
            let bundle = change(bundle);
            let (_terminal, slave) = Terminal::open();
            let out = bundle.run_command().arg(&bundle.id).terminal(slave).run();
            drop(Container::adopt(case, &bundle.id));
            assert!(out.code != 0, "{what}: {out}");
            // Times and names of this very container are its own.
            let said = out.stderr.replace(&bundle.id, "ID").replace(&bundle.dir.display().to_string(), "DIR");
            let time = said.find("time=\"").map_or(0..0, |at| at..at + 31);
            (out.code, format!("{}{}", &said[..time.start], &said[time.end..]))
        };
        assert_eq!(said(joining(&holder)), said(case.bundle().sleeper()), "{what}");
    }
}

fn rlimits_are_set(case: &Case) {
    let holder = holder(case);
    let nofile = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 });
    // Of an id that runs nothing else here.
    let limits = json!([nofile, { "type": "RLIMIT_NPROC", "soft": 1, "hard": 1 }]);
    let limited = |bundle: Bundle<'_>| {
        let bundle = bundle
            .script("ulimit -n; ulimit -Hn; exec grep -c 'Max processes  *1  *1 ' /proc/self/limits")
            .set("/process/rlimits", limits.clone());
        let bundle = bundle.set("/process/user", json!({ "uid": 4321, "gid": 4321 }));
        assert_eq!(bundle.set("/process/capabilities", json!({})).prints(), "100\n200\n1");
    };
    limited(joining(&holder));
    let holder = case.bundle().sleeper().user_namespace(100_000).start();
    limited(joining(&holder).user_namespace(100_000).namespace("user", Some(&of(&holder, "user"))));
}

/// `/proc/self` is of the process that looks.
fn paths_of_its_own_are_found(case: &Case) {
    let holder = holder(case);
    let bundle = joining(&holder).command(&["/proc/self/root/bin/pwd"]);
    assert_eq!(bundle.prints(), "/");
    assert!(bundle.set("/process/cwd", json!("/proc/self")).prints().starts_with("/proc/"));
    let container = joining(&holder).start();
    assert_eq!(container.exec(&["/proc/self/root/bin/pwd"]).ok().text(), "/");
    let out = container.exec_with(&["--cwd", "/proc/self"], &["/bin/pwd"]).ok();
    assert!(out.text().starts_with("/proc/"), "{out}");
    container.exec(&["/proc/self/root/no/such"]).refuses(&["/proc/self/root/no/such", "no such file or directory"]);
}

/// A process under it can't make another one.
fn a_deadline_is_kept(case: &Case) {
    let holder = holder(case);
    let deadline = json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 10_000_000 });
    let bundle = joining(&holder).command(&["/bin/grep", "^policy", "/proc/self/sched"]);
    let printed = bundle.set("/process/scheduler", deadline).prints();
    assert!(printed.split_whitespace().last() == Some("6"), "{printed}");
}

fn a_filter_is_on(case: &Case) {
    let holder = holder(case);
    let refusing = |names: &[&str]| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO" }] });
    let profiles = [
        dockers_filter(),
        refusing(&["mkdir", "mkdirat"]),
        // Under these the process can't be born.
        refusing(&["mkdir", "mkdirat", "clone", "clone3", "fork", "vfork"]),
        refusing(&["mkdir", "mkdirat", "setsid"]),
    ];
    for profile in profiles {
        for no_new_privileges in [true, false] {
            let bundle = joining(&holder)
                .command(&["/bin/grep", "^Seccomp:", "/proc/self/status"])
                .set("/process/noNewPrivileges", json!(no_new_privileges))
                .set("/linux/seccomp", profile.clone());
            assert_eq!(bundle.prints(), "Seccomp:\t2", "{no_new_privileges} {profile}");
        }
    }
}

fn in_the_same_user_namespace(case: &Case) {
    case.root_only(CROSS_USER);
    let holder = case.bundle().sleeper().user_namespace(100_000).start();
    let log = case.folder("log");
    fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let seen = log.join("seen");
    let bundle = joining(&holder).user_namespace(100_000).namespace("user", Some(&of(&holder, "user")));
    // Not where the others may look at it.
    let bundle = bundle
        .set("/hooks/createContainer", hook(&format!("readlink /proc/self/ns/pid > {}", seen.display())));
    let container = bundle.start();
    for file in ["pid", "user"] {
        assert_eq!(namespace_of(container.pid(), file), namespace_of(holder.pid(), file), "{file}");
    }
    let own = i32::try_from(std::process::id()).expect("a pid");
    assert_eq!(fs::read_to_string(seen).expect("the hook ran").trim(), namespace_of(own, "pid"));
    let shown = container.sh("id -u; tr '\\0' ' ' < /proc/1/cmdline; echo; cut -d' ' -f1 /proc/self/stat");
    assert!(shown.starts_with("0\n") && shown.contains("trap 'exit 0' TERM"), "{shown}");
    container.stop();
    assert_eq!(holder.status(), "running");
}

/// It has no say in the pid namespace, so that it can't mount a procfs of that.
fn with_a_new_user_namespace(case: &Case) {
    let holder = holder(case);
    let procfs = |spec: &mut Value, with: Option<Value>| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/proc");
        mounts.extend(with);
    };
    let refused = joining(&holder).user_namespace(100_000);
    refused.run().refuses(&["proc", "operation not permitted"]);
    let bound = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
    let container = joining(&holder).user_namespace(100_000).edit(|spec| procfs(spec, Some(bound))).start();
    assert_eq!(namespace_of(container.pid(), "pid"), namespace_of(holder.pid(), "pid"));
    assert_ne!(namespace_of(container.pid(), "user"), namespace_of(holder.pid(), "user"));
    assert!(status_field(container.pid(), "Uid").starts_with("100000\t"));
}

fn with_a_new_time_namespace(case: &Case) {
    let holder = holder(case);
    let bundle = joining(&holder).command(&["/bin/cat", "/proc/self/timens_offsets"]).namespace("time", None);
    let printed = bundle.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1337 } })).prints();
    assert!(printed.contains("1337"), "{printed}");
}

fn a_namespace_whose_first_process_has_ended(case: &Case) {
    let holder = holder(case);
    let bundle = joining(&holder);
    let kept = fs::File::open(of(&holder, "pid")).expect("open the namespace");
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&kept));
    let bundle = bundle.namespace("pid", Some(&path));
    holder.stop();
    bundle.run().refuses(&["clone", "cannot allocate memory"]);
}

fn a_namespace_that_is_the_callers(case: &Case) {
    case.root_only(CROSS_USER);
    let own = i32::try_from(std::process::id()).expect("a pid");
    let bundle =
        case.bundle().script("readlink /proc/self/ns/pid").namespace("pid", Some("/proc/self/ns/pid"));
    assert_eq!(bundle.prints(), namespace_of(own, "pid"));
}
