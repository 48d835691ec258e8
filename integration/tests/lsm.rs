//! Labels of the security modules: AppArmor profiles, SELinux process and mount labels.
//!
//! A kernel runs one of the two, so half of these are skipped on any machine; `make vm-test` boots both.

use std::fs;
use std::path::Path;

use ketch_integration::apparmor::Profile;
use ketch_integration::{Bundle, Case, tests};
use serde_json::json;

tests![
    apparmor_profile_of_the_process,
    apparmor_profile_confines,
    apparmor_profile_of_an_exec_is_the_containers,
    apparmor_profile_of_an_exec_by_flag,
    apparmor_profile_with_no_new_privileges,
    apparmor_unknown_profile_is_refused,
    apparmor_profile_without_proc_in_the_container,
    selinux_label_of_the_process,
    selinux_label_of_an_exec_is_the_containers,
    selinux_label_of_an_exec_by_flag,
    selinux_label_of_mounts,
    selinux_unknown_label_is_refused,
    selinux_confines,
];

const LABEL: &str = "cat /proc/self/attr/current";

fn apparmor_profile_of_the_process(case: &Case) {
    let profile = Profile::load(case, "");
    let bundle = case.bundle().script(LABEL).set("/process/apparmorProfile", json!(profile.name));
    assert_eq!(bundle.prints(), profile.label());
}

fn apparmor_profile_confines(case: &Case) {
    let profile = Profile::load(case, "deny /forbidden w,");
    let bundle = case.bundle().script("echo x >/allowed && echo x >/forbidden");
    let out = bundle.set("/process/apparmorProfile", json!(profile.name)).run();
    out.refuses(&["/forbidden: Permission denied"]);
    let free = case.bundle().script("echo x >/allowed && echo x >/forbidden && echo both");
    assert_eq!(free.prints(), "both");
}

fn apparmor_profile_of_an_exec_is_the_containers(case: &Case) {
    let profile = Profile::load(case, "");
    let container = case.bundle().sleeper().set("/process/apparmorProfile", json!(profile.name)).start();
    assert_eq!(container.sh(LABEL), profile.label());
}

fn apparmor_profile_of_an_exec_by_flag(case: &Case) {
    let (first, second) = (Profile::load(case, ""), Profile::load(case, "deny /forbidden w,"));
    let container = case.bundle().sleeper().set("/process/apparmorProfile", json!(first.name)).start();
    let out = container.exec_with(&["--apparmor", &second.name], &["/bin/sh", "-c", LABEL]).ok();
    assert_eq!(out.text(), second.label());
    container
        .exec_with(&["--apparmor", &second.name], &["/bin/sh", "-c", "echo x >/forbidden"])
        .refuses(&["Permission denied"]);
}

/// The kernel lets a process under no_new_privs change to a profile only before it is set or where that takes nothing
/// back: an unconfined process may.
fn apparmor_profile_with_no_new_privileges(case: &Case) {
    let profile = Profile::load(case, "");
    for value in [true, false] {
        let bundle = case.bundle().script(LABEL).set("/process/noNewPrivileges", json!(value));
        assert_eq!(bundle.set("/process/apparmorProfile", json!(profile.name)).prints(), profile.label());
    }
}

fn apparmor_unknown_profile_is_refused(case: &Case) {
    drop(Profile::load(case, ""));
    let bundle = case.bundle().script("echo reached");
    let out = bundle.set("/process/apparmorProfile", json!("no-such-profile")).run();
    assert!(!out.stdout.contains("reached"), "{out}");
    out.refuses(&["apparmor"]);
    let container = case.bundle().sleeper().start();
    let out = container.exec_with(&["--apparmor", "no-such-profile"], &["/bin/echo", "reached"]);
    assert!(!out.stdout.contains("reached"), "{out}");
    out.refuses(&["apparmor"]);
}

/// The label is written through a procfs of the runtime's own, so the container need not have one.
fn apparmor_profile_without_proc_in_the_container(case: &Case) {
    case.not_on_runc("the container must have a /proc to have a label");
    case.not_on_crun("the container must have a /proc to have a label");
    let profile = Profile::load(case, "");
    let bundle = case.bundle().sleeper().set("/process/apparmorProfile", json!(profile.name)).edit(|spec| {
        spec["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["destination"] != "/proc");
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    let container = bundle.start();
    assert_eq!(fs::read_to_string(container.proc("attr/current")).expect("the label").trim(), profile.label());
}

// Types of `integration/vm/selinux.cil`; Debian's policy has none for containers.
const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const OTHER: &str = "system_u:system_r:container_t:s0:c3,c4";
const FILE: &str = "system_u:object_r:container_file_t:s0:c1,c2";

/// A bundle whose process has `label`, with files and output that it may use.
fn labelled<'a>(case: &'a Case, label: &str, script: &str) -> Bundle<'a> {
    case.needs(fs::exists("/sys/fs/selinux/enforce").unwrap_or(false), "the kernel runs without SELinux");
    let bundle = case.bundle().script(script).set("/process/selinuxLabel", json!(label));
    chcon(case, "system_u:object_r:container_file_t:s0", &case.dir);
    bundle.set("/linux/mountLabel", json!(FILE))
}

fn chcon(case: &Case, label: &str, path: &Path) {
    let _ = case.program("chcon").args(["--recursive", label]).arg(path).run().ok();
}

/// A label ends in a zero byte.
fn without_zero(text: &str) -> &str {
    text.trim_end_matches(['\0', '\n'])
}

const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

fn selinux_label_of_the_process(case: &Case) {
    assert_eq!(without_zero(&labelled(case, PROCESS, LABEL).prints()), PROCESS);
}

fn selinux_label_of_an_exec_is_the_containers(case: &Case) {
    let container = labelled(case, PROCESS, SLEEP).start();
    assert_eq!(without_zero(&container.sh(LABEL)), PROCESS);
}

fn selinux_label_of_an_exec_by_flag(case: &Case) {
    let container = labelled(case, PROCESS, SLEEP).start();
    let out = container.exec_with(&["--process-label", OTHER], &["/bin/sh", "-c", LABEL]).ok();
    assert_eq!(without_zero(out.text()), OTHER);
}

fn selinux_label_of_mounts(case: &Case) {
    let seen = labelled(case, PROCESS, "cat /proc/self/mountinfo").prints();
    for place in [" /dev ", " /dev/shm "] {
        let line = seen.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("no {place}: {seen}"));
        assert!(line.contains("container_file_t:s0:c1,c2"), "{line}");
    }
}

fn selinux_unknown_label_is_refused(case: &Case) {
    let out = labelled(case, "system_u:system_r:no_such_t:s0", "echo reached").run();
    assert!(!out.stdout.contains("reached"), "{out}");
    assert_ne!(out.code, 0, "{out}");
}

/// Another container's files are closed to it where the policy is enforced.
fn selinux_confines(case: &Case) {
    let enforced = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "1");
    let bundle = labelled(case, PROCESS, "cat /mine; cat /others");
    case.needs(enforced, "SELinux is permissive");
    for (name, label) in [("mine", FILE), ("others", "system_u:object_r:container_file_t:s0:c8,c9")] {
        let path = bundle.rootfs().join(name);
        fs::write(&path, format!("{name}\n")).expect("write a file");
        chcon(case, label, &path);
    }
    let out = bundle.run();
    assert_eq!(out.stdout, "mine\n", "{out}");
    assert!(out.stderr.contains("Permission denied"), "{out}");
}
