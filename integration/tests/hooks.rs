//! Hooks: each kind, their order, the state on their standard input, their environment, and what a failure does.

use std::fs;

use ketch_integration::{Bundle, Case, tests, wait_until};
use serde_json::{Value, json};

tests![
    each_kind_runs_in_order,
    each_kind_gets_the_state,
    hooks_of_one_kind_run_in_their_order,
    create_container_hook_sees_the_mounts_before_pivot,
    create_container_hook_finds_the_limits_set,
    create_runtime_hook_is_outside_of_the_new_network_namespace,
    start_container_hook_runs_inside,
    a_hook_gets_only_its_own_environment,
    a_failing_prestart_hook_fails_create,
    a_failing_create_runtime_hook_fails_create,
    a_failing_create_container_hook_fails_create,
    a_failing_start_container_hook_fails_start,
    a_failing_poststop_hook_does_not_stop_delete,
    a_hook_that_times_out_is_killed,
    a_missing_hook_program_is_named,
    what_the_caller_ignores_is_ignored_by_nobody_else,
    a_start_container_hook_need_not_read_a_large_state,
];

const ON_HOST: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
}

/// Every kind of hook on the host writes the state it gets to `<log>/<kind>` and its name to `<log>/order`.
fn with_recorders<'a>(bundle: Bundle<'a>, log: &std::path::Path) -> Bundle<'a> {
    let log = log.display();
    ON_HOST.iter().fold(bundle, |bundle, kind| {
        bundle.set(&format!("/hooks/{kind}"), hook(&format!("cat > {log}/{kind}; echo {kind} >> {log}/order")))
    })
}

/// runc ran poststart hooks when the container was created, not when it was started, up to 1.5 (its issue 4347).
fn poststart_runs_in_create(case: &Case) -> bool {
    case.is_runc_before(1, 6)
}

fn each_kind_runs_in_order(case: &Case) {
    let log = case.folder("log");
    let order = || fs::read_to_string(log.join("order")).unwrap_or_default().replace('\n', " ");
    let bundle = with_recorders(case.bundle().sleeper(), &log);
    let container = bundle.create();
    if !poststart_runs_in_create(case) {
        assert_eq!(order(), "prestart createRuntime createContainer ");
    }
    let _ = container.start().ok();
    assert_eq!(order(), "prestart createRuntime createContainer poststart ");
    container.stop();
    let _ = container.delete().ok();
    assert_eq!(order(), "prestart createRuntime createContainer poststart poststop ");
}

fn each_kind_gets_the_state(case: &Case) {
    let log = case.folder("log");
    let bundle = with_recorders(case.bundle().sleeper(), &log)
        .set("/annotations", json!({ "key": "value" }))
        .set("/hooks/startContainer", hook("cat > /start-state"));
    let container = bundle.start();
    let pid = container.pid();
    let read = |path| -> Value {
        serde_json::from_str(&fs::read_to_string(path).expect("the hook wrote its state")).expect("state is JSON")
    };
    // `start` does not wait for this hook.
    wait_until("the startContainer hook", || {
        let written = fs::read_to_string(bundle.rootfs().join("start-state")).unwrap_or_default();
        serde_json::from_str::<Value>(&written).map(drop).map_err(|_| written)
    });
    container.stop();
    let _ = container.delete().ok();
    let expected = [
        (log.join("prestart"), "creating"),
        (log.join("createRuntime"), "creating"),
        (log.join("createContainer"), "creating"),
        (bundle.rootfs().join("start-state"), "created"),
        (log.join("poststart"), if poststart_runs_in_create(case) { "created" } else { "running" }),
        (log.join("poststop"), "stopped"),
    ];
    for (path, status) in expected {
        let state = read(path.clone());
        assert_eq!(state["id"], json!(bundle.id), "{}", path.display());
        assert_eq!(state["bundle"], json!(bundle.dir), "{}", path.display());
        assert_eq!(state["status"], status, "{}", path.display());
        assert_eq!(state["annotations"]["key"], "value", "{}", path.display());
        assert!(state["ociVersion"].is_string(), "{}", path.display());
        match status {
            // A hook inside the container is told the pid that the container has in its own namespace.
            "created" if path.ends_with("start-state") => assert_eq!(state["pid"], 1, "{}", path.display()),
            "stopped" => assert!(matches!(state["pid"].as_i64(), None | Some(0)), "{state}"),
            _ if path.ends_with("createContainer") => {}
            _ => assert_eq!(state["pid"], pid, "{}", path.display()),
        }
    }
}

fn hooks_of_one_kind_run_in_their_order(case: &Case) {
    let log = case.dir.join("order");
    let entry = |n: u32| {
        json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {n} >> {}", log.display())] })
    };
    let _ = case.bundle().set("/hooks/createRuntime", json!([entry(1), entry(2), entry(3)])).run().ok();
    assert_eq!(fs::read_to_string(&log).expect("the hooks ran"), "1\n2\n3\n");
}

fn create_container_hook_finds_the_limits_set(case: &Case) {
    case.native_only("no controller to see it with");
    case.root_only("a user has no such limit here");
    let seen = case.folder("log").join("seen");
    for turn in 0..20 {
        let bundle = case.bundle().set("/linux/resources/pids", json!({ "limit": 77 }));
        let file = bundle.cgroup("pids").join("pids.max");
        let script = format!("cat {} >{}", file.display(), seen.display());
        let bundle = bundle.set("/hooks/createContainer", hook(&script));
        let _ = bundle.run().ok();
        assert_eq!(fs::read_to_string(&seen).expect("the hook ran"), "77\n", "turn {turn}");
    }
}

/// A network is set up by this hook: from the runtime's namespace, into the one that the process with the state's pid is in.
fn create_runtime_hook_is_outside_of_the_new_network_namespace(case: &Case) {
    case.root_only("a user's container has the network namespace of its caller");
    let log = case.folder("log");
    let names = r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/'); readlink /proc/self/ns/net /proc/$pid/ns/net"#;
    let bundle = case.bundle().sleeper();
    let bundle = bundle.set("/hooks/createRuntime", hook(&format!("{names} > {}/seen", log.display())));
    let container = bundle.create();
    let seen = fs::read_to_string(log.join("seen")).expect("the hook ran");
    let link = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).expect("a namespace").display().to_string();
    let own = i32::try_from(std::process::id()).expect("a pid");
    assert_eq!(seen.lines().collect::<Vec<_>>(), [link(own), link(container.pid())]);
    assert_ne!(link(own), link(container.pid()));
}

fn create_container_hook_sees_the_mounts_before_pivot(case: &Case) {
    let bundle = case.bundle();
    let log = case.dir.join("mountinfo");
    let script = format!("cat /proc/self/mountinfo > {}", log.display());
    let _ = bundle.set("/hooks/createContainer", hook(&script)).run().ok();
    let table = fs::read_to_string(&log).expect("the hook ran");
    assert!(table.contains("rootfs/dev/mqueue"), "the container's mounts are not there yet: {table}");
    assert!(!fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains(&case.tag));
}

fn start_container_hook_runs_inside(case: &Case) {
    let bundle = case.bundle().script("cat /hook").set("/hooks/startContainer", hook("hostname > /hook"));
    assert_eq!(bundle.prints(), "ketch");
}

fn a_hook_gets_only_its_own_environment(case: &Case) {
    let log = case.dir.join("env");
    let script = format!("/usr/bin/env > {}", log.display());
    let entry = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["ONE=1"] }]);
    let _ = case.bundle().set("/hooks/createRuntime", entry).run().ok();
    let seen = fs::read_to_string(&log).expect("the hook ran");
    assert!(seen.contains("ONE=1\n") && !seen.contains("HOME="), "{seen}");
    assert!(!seen.contains("KETCH_INTEGRATION_TAG"), "the runtime's environment leaked: {seen}");
}

fn failing_create(case: &Case, kind: &str) {
    let bundle = case.bundle().sleeper().set(&format!("/hooks/{kind}"), hook("echo it went wrong >&2; exit 3"));
    let out = bundle.create_command().arg(&bundle.id).run();
    out.refuses(&["hook #0", "exit status 3", "it went wrong"]);
    assert!(!case.state_root().join(&bundle.id).exists());
}

fn a_failing_prestart_hook_fails_create(case: &Case) {
    failing_create(case, "prestart");
}

fn a_failing_create_runtime_hook_fails_create(case: &Case) {
    failing_create(case, "createRuntime");
}

fn a_failing_create_container_hook_fails_create(case: &Case) {
    failing_create(case, "createContainer");
}

fn a_failing_start_container_hook_fails_start(case: &Case) {
    let bundle = case.bundle().script("echo ran > /mark").set("/hooks/startContainer", hook("exit 3"));
    let container = bundle.create();
    // The failure is reported where the init process can: start itself may already have returned.
    let _ = container.start();
    container.wait_status("stopped");
    assert!(!bundle.rootfs().join("mark").exists());
}

fn a_failing_poststop_hook_does_not_stop_delete(case: &Case) {
    let bundle = case.bundle().set("/hooks/poststop", hook("exit 3"));
    let container = bundle.start();
    container.wait_status("stopped");
    let _ = container.delete();
    assert_eq!(container.status(), "gone");
}

fn a_hook_that_times_out_is_killed(case: &Case) {
    let mut entry = json!([{ "path": "/bin/sleep", "args": ["sleep", "300"] }]);
    entry[0]["timeout"] = json!(1);
    let bundle = case.bundle().set("/hooks/createRuntime", entry);
    let started = std::time::Instant::now();
    bundle.run().refuses(&["hook ran past specified timeout of 1"]);
    assert!(started.elapsed().as_secs() < 60);
}

fn a_missing_hook_program_is_named(case: &Case) {
    let entry = json!([{ "path": "/no/such/hook" }]);
    case.bundle().set("/hooks/createRuntime", entry).run().refuses(&["/no/such/hook", "no such file"]);
}

/// A SIGCHLD that is ignored makes the kernel reap children by itself: a runtime that leaves it so waits for ever.
fn what_the_caller_ignores_is_ignored_by_nobody_else(case: &Case) {
    // But for signal 32, the C library's, which runc does not reset. The shell must not execute the last grep in its own
    // place: busybox's ignores SIGQUIT there.
    let fresh = "grep -q 'SigBlk:.0*$' /proc/self/status && grep -q 'SigIgn:.0*[08]0000000$' /proc/self/status \
        || { grep Sig /proc/self/status; exit 1; }";
    let bundle = case
        .bundle()
        .script(&format!("{fresh} && exit 7"))
        .set("/hooks/prestart", hook(fresh))
        .set("/hooks/startContainer", hook(fresh));
    let run = bundle.run_command().arg(&bundle.id).through_shell("trap '' CHLD HUP USR1 PIPE; exec \"$@\"");
    let _ = run.run().exits(7);
}

fn a_start_container_hook_need_not_read_a_large_state(case: &Case) {
    let bundle = case
        .bundle()
        .script("grep -q 'SigIgn:.0*[08]0000000$' /proc/self/status && exit 7")
        .set("/annotations", json!({ "large": "x".repeat(200_000) }))
        .set("/hooks/createContainer", hook("exit 0"))
        .set("/hooks/startContainer", hook("exit 0"));
    let _ = bundle.run().exits(7);
}
