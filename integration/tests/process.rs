//! What a process is before execve: ids, capabilities, limits, no_new_privs, scores, scheduling, keyring.

use ketch_integration::probe::field_of;
use ketch_integration::{Bundle, Case, tests};
use serde_json::json;

tests![
    user_and_group,
    additional_groups,
    umask,
    capabilities_are_the_specs,
    ambient_capabilities,
    no_capabilities_at_all,
    an_unknown_capability_is_warned_about,
    a_user_keeps_no_capability_without_ambient,
    rlimits_are_lowered,
    a_limit_that_cannot_be_raised_is_named,
    an_unknown_rlimit_is_refused,
    a_rlimit_twice_is_refused,
    no_new_privileges,
    oom_score_adj,
    a_lower_oom_score_is_named_when_refused,
    scheduler,
    io_priority,
    session_keyring_is_new,
    no_new_keyring_keeps_the_callers,
    personality,
    home_is_the_users,
    user_ids_without_a_passwd_entry,
    process_dies_with_no_zombie_runtime,
];

const STATUS: &[&str] = &["/bin/cat", "/proc/self/status"];

fn status(bundle: Bundle<'_>) -> impl Fn(&str) -> String {
    let text = bundle.command(STATUS).prints();
    move |field| field_of(&text, field).unwrap_or_else(|| panic!("no {field} in {text}"))
}

fn user_and_group(case: &Case) {
    let bundle = case.bundle().several_ids().command(&["/bin/id"]);
    let bundle = bundle.set("/process/user", json!({ "uid": 33, "gid": 44 }));
    assert_eq!(bundle.prints(), "uid=33(www) gid=44");
}

fn additional_groups(case: &Case) {
    case.root_only("a user's container gets no additional groups");
    let user = json!({ "uid": 0, "gid": 0, "additionalGids": [5, 6] });
    assert_eq!(case.bundle().command(&["/bin/id", "-G"]).set("/process/user", user).prints(), "0 5 6");
}

fn umask(case: &Case) {
    let user = json!({ "uid": 0, "gid": 0, "umask": 0o027 });
    assert_eq!(case.bundle().script("umask").set("/process/user", user).prints(), "0027");
    assert_eq!(case.bundle().script("umask").prints(), "0022");
}

fn capabilities_are_the_specs(case: &Case) {
    let field = status(case.bundle());
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "0000000020000420", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
}

fn ambient_capabilities(case: &Case) {
    let names = json!(["CAP_NET_BIND_SERVICE"]);
    let bundle = case.bundle().several_ids().set("/process/user", json!({ "uid": 33, "gid": 33 })).edit(|spec| {
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            spec["process"]["capabilities"][set] = names.clone();
        }
    });
    let field = status(bundle);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000400", "{set}");
    }
}

fn no_capabilities_at_all(case: &Case) {
    let field = status(case.bundle().set("/process/capabilities", json!({})));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
}

fn an_unknown_capability_is_warned_about(case: &Case) {
    let out = case.bundle().capabilities(&["CAP_KILL", "CAP_NO_SUCH"]).run().ok();
    assert!(out.stderr.contains("CAP_NO_SUCH") && out.stderr.contains("warn"), "{out}");
}

fn a_user_keeps_no_capability_without_ambient(case: &Case) {
    let field = status(case.bundle().several_ids().set("/process/user", json!({ "uid": 33, "gid": 33 })));
    assert_eq!(field("CapEff"), "0000000000000000");
    assert_eq!(field("CapBnd"), "0000000020000420");
}

fn rlimits_are_lowered(case: &Case) {
    let bundle = case.bundle().script("ulimit -Sn; ulimit -Hn; ulimit -Hc; ulimit -Hs");
    let bundle = bundle.set(
        "/process/rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608 }
        ]),
    );
    assert_eq!(bundle.prints(), "100\n200\n0\n8192");
}

fn a_limit_that_cannot_be_raised_is_named(case: &Case) {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("read the limits");
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).expect("the limit");
    case.needs(!line.contains("unlimited"), "the limit on locked memory is unlimited already");
    let capabilities = std::fs::read_to_string("/proc/self/status").expect("read the status");
    let effective = field_of(&capabilities, "CapEff").expect("CapEff");
    let effective = u64::from_str_radix(&effective, 16).expect("a hexadecimal set");
    case.needs(effective & (1 << 24) == 0, "CAP_SYS_RESOURCE is there, so limits can be raised");
    let limit = json!([{ "type": "RLIMIT_MEMLOCK", "soft": 1u64 << 50, "hard": 1u64 << 50 }]);
    case.bundle().set("/process/rlimits", limit).run().refuses(&["rlimit", "operation not permitted"]);
}

fn an_unknown_rlimit_is_refused(case: &Case) {
    let limit = json!([{ "type": "RLIMIT_NO_SUCH", "soft": 1, "hard": 1 }]);
    case.bundle().set("/process/rlimits", limit).run().refuses(&["RLIMIT_NO_SUCH"]);
}

fn a_rlimit_twice_is_refused(case: &Case) {
    case.not_on_runc("takes the last of several limits of one type without a word");
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 });
    let out = case.bundle().set("/process/rlimits", json!([limit, limit])).run();
    // Either is allowed by the specification ("SHOULD generate an error"); ketch does as runc does when it can.
    assert!(out.code == 0 || out.stderr.contains("RLIMIT_NOFILE"), "{out}");
}

fn no_new_privileges(case: &Case) {
    assert_eq!(status(case.bundle())("NoNewPrivs"), "1");
    assert_eq!(status(case.bundle().set("/process/noNewPrivileges", json!(false)))("NoNewPrivs"), "0");
}

fn oom_score_adj(case: &Case) {
    let bundle = case.bundle().command(&["/bin/cat", "/proc/self/oom_score_adj"]);
    assert_eq!(bundle.set("/process/oomScoreAdj", json!(321)).prints(), "321");
}

fn a_lower_oom_score_is_named_when_refused(case: &Case) {
    let out = case.bundle().command(&["/bin/cat", "/proc/self/oom_score_adj"]);
    let out = out.set("/process/oomScoreAdj", json!(-999)).run();
    // With CAP_SYS_RESOURCE it may be lowered; without, the kernel refuses and the error must say what.
    assert!(out.text() == "-999" || out.stderr.contains("oom"), "{out}");
}

fn scheduler(case: &Case) {
    case.needs_runc(1, 2, "no scheduler");
    let bundle = case.bundle().script("sed -n 's/^policy *: *//p; s/^prio *: *//p' /proc/self/sched");
    case.needs(std::path::Path::new("/proc/self/sched").exists(), "no /proc/self/sched in this kernel");
    let seen = bundle.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 })).prints();
    assert_eq!(seen, "3\n125");
}

fn io_priority(case: &Case) {
    case.needs_runc(1, 2, "no ioPriority");
    let bundle = case.bundle().command(&["/bin/ionice", "-p", "1"]);
    let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 });
    assert_eq!(bundle.set("/process/ioPriority", priority).prints(), "best-effort: prio 4");
}

fn keyring_bundle(case: &Case) -> Bundle<'_> {
    case.bundle().command(&["/probe", "keyring"]).set("/linux/maskedPaths", json!([])).mount(json!({
        "destination": "/probe", "type": "bind", "source": env!("CARGO_BIN_EXE_container_probe"), "options": ["bind", "ro"]
    }))
}

fn session_keyring_is_new(case: &Case) {
    case.needs(std::path::Path::new("/proc/keys").exists(), "no /proc/keys in this kernel");
    let bundle = keyring_bundle(case);
    let seen = bundle.prints();
    assert!(seen.contains(&format!("_ses.{}", bundle.id)), "{seen}");
}

fn no_new_keyring_keeps_the_callers(case: &Case) {
    case.needs(std::path::Path::new("/proc/keys").exists(), "no /proc/keys in this kernel");
    let bundle = keyring_bundle(case);
    let out = bundle.run_command().arg("--no-new-keyring").arg(&bundle.id).run().ok();
    assert!(!out.stdout.contains(&format!("_ses.{}", bundle.id)), "{out}");
}

fn personality(case: &Case) {
    case.needs_runc(1, 2, "no personality");
    let bundle = case.bundle().command(&["/bin/uname", "-m"]);
    assert_eq!(bundle.set("/linux/personality", json!({ "domain": "LINUX32" })).prints(), "i686");
}

fn home_is_the_users(case: &Case) {
    let bundle = case.bundle().several_ids().script("echo $HOME").set("/process/user", json!({ "uid": 33, "gid": 33 }));
    assert_eq!(bundle.prints(), "/tmp");
}

fn user_ids_without_a_passwd_entry(case: &Case) {
    let bundle = case.bundle().several_ids().script("id -u; echo $HOME").set("/process/user", json!({ "uid": 4711, "gid": 4711 }));
    assert_eq!(bundle.prints(), "4711\n/");
}

fn process_dies_with_no_zombie_runtime(case: &Case) {
    let container = case.bundle().sleeper().start();
    let pid = container.pid();
    container.stop();
    assert!(ketch_integration::probe::is_dead(pid));
}
