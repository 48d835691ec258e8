//! Landlock rules from the annotation `org.ketch.landlock`, tried from inside of the container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ketch_integration::runtime::Kind;
use ketch_integration::{Bundle, Case, tests};
use serde_json::{Value, json};

tests![
    what_no_rule_allows_is_denied,
    all_denies_every_change_outside_of_the_rules,
    all_on_a_kernel_that_lacks_accesses,
    a_process_of_exec_is_bound_as_well,
    ports_are_denied_and_allowed,
    root_with_every_capability_is_bound,
    rules_without_the_right_are_an_error,
    a_rule_that_is_not_understood_is_refused,
    features_name_the_annotation,
];

fn needs_landlock(case: &Case, abi: u32) {
    case.needs(case.runtime.kind == Kind::Ketch, "only ketch has Landlock rules");
    // The syscall, asked for by a container that wants what every ABI has, best effort off.
    let wants = match abi {
        5.. => json!({ "handledAccessFS": ["ioctl_dev"] }),
        4 => json!({ "handledAccessNetwork": ["bind_tcp"] }),
        _ => json!({ "handledAccessFS": ["make_block"] }),
    };
    let out = with_rules(case.bundle().command(&["/bin/true"]), &json!({ "ruleset": wants })).run();
    case.needs(out.code == 0 || !out.stderr.contains("does not know"), &format!("no Landlock ABI {abi} in the kernel"));
    let _ = out.ok();
}

fn with_rules<'a>(bundle: Bundle<'a>, rules: &Value) -> Bundle<'a> {
    bundle.set("/annotations", json!({ "org.ketch.landlock": rules.to_string() }))
}

/// Everything may be read and executed; writes go to /tmp only.
fn read_only_but_tmp() -> Value {
    json!({
        "ruleset": { "handledAccessFS": ["write_file", "make_reg", "make_sym", "remove_file", "read_file", "execute"] },
        "rules": { "pathBeneath": [
            { "allowedAccess": ["execute", "read_file"], "paths": ["/bin", "/proc"] },
            { "allowedAccess": ["read_file", "write_file"], "paths": ["/dev/null"] },
            { "allowedAccess": ["read_file", "write_file", "make_reg", "remove_file"], "paths": ["/tmp"] },
        ] },
    })
}

/// Ways out of the rules that a process may try; each must fail, and say `denied` once.
const ATTACK: &str = "
    echo x > /tmp/mine && cat /tmp/mine && rm /tmp/mine && echo allowed
    echo x 2>/dev/null > /root/file || echo denied
    cat /etc/passwd 2>/dev/null || echo denied
    cat /proc/self/root/etc/passwd 2>/dev/null || echo denied
    cat /proc/1/root/etc/passwd 2>/dev/null || echo denied
    ln -s /etc /tmp/link 2>/dev/null || echo denied
    ln /etc/passwd /tmp/hard 2>/dev/null || echo denied
    cp /bin/busybox /tmp/true && /tmp/true 2>/dev/null || echo denied
    sh -c 'cat /etc/passwd' 2>/dev/null || echo denied
";

fn outcomes(text: &str) -> Vec<&str> {
    text.lines().filter(|line| matches!(*line, "allowed" | "denied") || line.contains("root:")).collect()
}

fn expected() -> Vec<&'static str> {
    let mut all = vec!["denied"; 9];
    all[0] = "allowed";
    all
}

fn what_no_rule_allows_is_denied(case: &Case) {
    needs_landlock(case, 1);
    let out = with_rules(case.bundle().script(ATTACK), &read_only_but_tmp()).run();
    assert_eq!(outcomes(&out.stdout), expected(), "{out}");
}

fn a_process_of_exec_is_bound_as_well(case: &Case) {
    needs_landlock(case, 1);
    let container = with_rules(case.bundle().sleeper(), &read_only_but_tmp()).start();
    let out = container.exec(&["/bin/sh", "-c", ATTACK]);
    assert_eq!(outcomes(&out.stdout), expected(), "{out}");
}

/// What README shows: everything is denied, and some accesses are given back below folders, and to a device and a port.
fn everything_but_data() -> Value {
    json!({
        "ruleset": { "handledAccessFS": ["all"], "handledAccessNetwork": ["all"] },
        "rules": {
            "pathBeneath": [
                { "allowedAccess": ["execute", "read_file", "read_dir"], "paths": ["/bin"] },
                { "allowedAccess": ["read_file", "write_file"], "paths": ["/dev/null"] },
                { "allowedAccess": [
                    "read_file", "read_dir", "write_file", "truncate", "make_reg", "make_dir", "remove_file", "remove_dir", "refer",
                ], "paths": ["/data"] },
            ],
            "netPort": [{ "allowedAccess": ["connect_tcp"], "ports": [443] }],
        },
    })
}

/// Each line changes something or looks at it, by the tool that people have for it: `<tried> done` when it was let. The first
/// folder is what it is about, the second another one beside it.
const CHANGES: &str = r#"
    try() { what=$1; shift; "$@" 2>/dev/null && echo "$what done" || echo "$what refused"; }
    cd / ; at=$1 ; beside=$2
    try list ls $at
    try read cat $at/file
    try write sh -c "echo more >> $at/file"
    try truncate truncate -s 0 $at/long
    try open-truncate sh -c ": > $at/longer"
    try make touch $at/new
    try mkdir mkdir $at/folder
    try rename busybox mv $at/moved $at/renamed
    try replace busybox mv -f $at/winner $at/loser
    try rmdir rmdir $at/empty
    try rm rm -f $at/doomed
    try link ln $at/file $at/hard
    try move-out busybox mv $at/leaving $beside/left
"#;
/// What no rule of README's allows anywhere.
const NEVER: &str = r#"
    try symlink ln -s file $at/soft
    try fifo mkfifo $at/fifo
    try execute $at/program
"#;

fn folder_to_change(bundle: &Bundle<'_>, name: &str) -> PathBuf {
    let folder = bundle.rootfs().join(name);
    fs::create_dir_all(folder.join("empty")).expect("mkdir");
    for file in ["file", "long", "longer", "moved", "winner", "loser", "doomed", "leaving"] {
        fs::write(folder.join(file), file).expect("write");
    }
    let program = folder.join("program");
    fs::write(&program, "#!/bin/sh\n").expect("write");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("chmod");
    folder
}

fn tried(case: &Case, rules: Option<&Value>, at: &str, script: &str) -> (PathBuf, Vec<String>) {
    let bundle = case.bundle();
    let folder = folder_to_change(&bundle, at);
    let beside = if at == "data" { "elsewhere" } else { "data" };
    let _ = folder_to_change(&bundle, beside);
    let script = format!("set -- /{at} /{beside}\n{script}");
    let bundle = bundle.script(&script);
    let out = match rules {
        Some(rules) => with_rules(bundle, rules).run(),
        None => bundle.run(),
    };
    (folder, out.stdout.lines().filter(|line| line.ends_with("done") || line.ends_with("refused")).map(str::to_owned).collect())
}

fn outcome(lines: &[String], of: &str) -> usize {
    lines.iter().filter(|line| line.ends_with(of)).count()
}

/// A look and every kind of change outside of the rules; the same without rules, where each is let; and inside of them.
fn all_denies_every_change_outside_of_the_rules(case: &Case) {
    needs_landlock(case, 5);
    let rules = everything_but_data();
    let (_, lines) = tried(case, None, "elsewhere", CHANGES);
    assert_eq!((lines.len(), outcome(&lines, "done")), (13, 13), "the attacks without rules: {lines:?}");
    let (folder, lines) = tried(case, Some(&rules), "elsewhere", CHANGES);
    assert_eq!((lines.len(), outcome(&lines, "refused")), (13, 13), "{lines:?}");
    for file in ["file", "long", "longer", "moved", "winner", "loser", "doomed", "leaving"] {
        assert_eq!(fs::read(folder.join(file)).expect("read"), file.as_bytes(), "{file} was changed");
    }
    // Inside, all but what would leave.
    let (_, lines) = tried(case, Some(&rules), "data", CHANGES);
    assert_eq!(lines.len(), 13, "{lines:?}");
    let refused: Vec<&str> = lines.iter().filter_map(|line| line.strip_suffix(" refused")).collect();
    assert_eq!(refused, ["move-out"], "{lines:?}");
    let never = format!("{}\n{NEVER}", CHANGES.lines().take(3).collect::<Vec<_>>().join("\n"));
    for (rules, end) in [(None, "done"), (Some(&rules), "refused")] {
        let (_, lines) = tried(case, rules, "data", &never);
        assert_eq!((lines.len(), outcome(&lines, end)), (3, 3), "{lines:?}");
    }
}

/// By name what is missing, or without it where that was asked for.
fn all_on_a_kernel_that_lacks_accesses(case: &Case) {
    needs_landlock(case, 1);
    let mut rules = json!({ "ruleset": { "handledAccessFS": ["all"], "handledAccessNetwork": ["all"] },
                            "rules": { "pathBeneath": [{ "allowedAccess": ["all"], "paths": ["/"] }] } });
    let out = with_rules(case.bundle(), &rules).run();
    case.needs(out.code != 0, "the kernel has every access");
    out.refuses(&["Landlock", "does not know", "ioctl_dev"]);
    rules["bestEffort"] = json!(true);
    let _ = with_rules(case.bundle(), &rules).run().ok();
}

/// Without no_new_privs the rules come while there is CAP_SYS_ADMIN; with it, mounts are denied all the same.
fn root_with_every_capability_is_bound(case: &Case) {
    needs_landlock(case, 1);
    let all = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT", "CAP_MKNOD"];
    let script = format!("{ATTACK}\nmkdir -p /mnt 2>/dev/null; mount -t tmpfs x /mnt 2>/dev/null || echo denied");
    let bundle = case.bundle().script(&script).capabilities(&all).set("/process/noNewPrivileges", json!(false));
    let out = with_rules(bundle, &read_only_but_tmp()).run();
    let mut wanted = expected();
    wanted.push("denied");
    assert_eq!(outcomes(&out.stdout), wanted, "{out}");
}

fn ports_are_denied_and_allowed(case: &Case) {
    needs_landlock(case, 4);
    let rules = json!({
        "ruleset": { "handledAccessNetwork": ["bind_tcp", "connect_tcp"] },
        "rules": { "netPort": [{ "allowedAccess": ["bind_tcp", "connect_tcp"], "ports": [8080] }] },
    });
    let script = "
        nc -l -p 8080 -e /bin/echo hello & sleep 0.2
        nc 127.0.0.1 8080 </dev/null
        timeout 2 nc -l -p 8081 </dev/null 2>&1 | grep -qi 'permission denied' && echo denied
        nc 127.0.0.1 8081 </dev/null 2>&1 | grep -qi 'permission denied' && echo denied
        wait";
    let out = with_rules(case.bundle().script(script), &rules).run();
    assert_eq!(out.stdout.lines().collect::<Vec<_>>(), ["hello", "denied", "denied"], "{out}");
}

fn rules_without_the_right_are_an_error(case: &Case) {
    needs_landlock(case, 1);
    let missing = json!({
        "ruleset": { "handledAccessFS": ["execute"] },
        "rules": { "pathBeneath": [{ "allowedAccess": ["execute"], "paths": ["/no/such/path"] }] },
    });
    with_rules(case.bundle(), &missing).run().refuses(&["Landlock", "/no/such/path: no such file or directory"]);
}

fn a_rule_that_is_not_understood_is_refused(case: &Case) {
    case.needs(case.runtime.kind == Kind::Ketch, "only ketch has Landlock rules");
    let rules = json!({ "ruleset": { "handledAccessFS": ["everything"] } });
    with_rules(case.bundle(), &rules).run().refuses(&["org.ketch.landlock", "unknown access \"everything\""]);
}

fn features_name_the_annotation(case: &Case) {
    case.needs(case.runtime.kind == Kind::Ketch, "only ketch has Landlock rules");
    let features = case.bare().arg("features").run().ok().json();
    assert!(features["annotations"].get("org.ketch.landlock").is_some());
}
