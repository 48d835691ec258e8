//! Attacks on what is beside the container: its sibling cgroups, and the mounts of a host whose namespace it shares.
//!
//! Confined as in `attack_image`: a cgroup of the case's own, and a mount namespace of the case's own in the place of the
//! host's.

use std::fs;

use ketch_integration::runtime::Kind;
use ketch_integration::{Case, tests};
use serde_json::json;

tests![
    a_sibling_cgroup_whose_name_begins_alike,
    the_propagation_of_a_mount_namespace_that_is_shared,
];

/// runc before 1.5.2, crun before 1.29: `exec --cgroup ../<id>x` passed for a sub-cgroup of `<id>`.
fn a_sibling_cgroup_whose_name_begins_alike(case: &Case) {
    case.needs(!matches!(case.runtime.kind, Kind::Other), "no exec --cgroup");
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let own = bundle.cgroup("pids");
    let name = format!("{}beside", bundle.id);
    let sibling = own.parent().expect("a parent").join(&name);
    fs::create_dir(&sibling).expect("make the sibling");
    let controller = if case.layout.is_v2() { String::new() } else { "pids:".to_owned() };
    let out = container.exec_with(&["--cgroup", &format!("{controller}../{name}")], &["/bin/cat", "/proc/self/cgroup"]);
    container.stop();
    fs::remove_dir(&sibling).expect("remove the sibling");
    assert!(out.code != 0 && !out.stdout.contains(&name), "it runs beside the container: {out}");
}

/// runc before 1.5.3: a container without a mount namespace of its own made the host's `/` private or slave.
fn the_propagation_of_a_mount_namespace_that_is_shared(case: &Case) {
    let bundle = case
        .bundle()
        .command(&["/bin/true"])
        .without_namespace("mount")
        .set("/mounts", json!([]))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set("/linux/rootfsPropagation", json!("private"));
    let command = bundle.run_command().arg(&bundle.id);
    // A namespace like the host's: its root is shared, and the container joins it by not having its own.
    let script = r#""$@" >&2; grep ' / / ' /proc/self/mountinfo"#;
    let out = case
        .program("/usr/bin/unshare")
        .args(["--mount", "--propagation", "shared", "--", "/bin/sh", "-c", script, "sh"])
        .arg(&command.program)
        .args(command.args)
        .run();
    drop(ketch_integration::Container::adopt(case, &bundle.id));
    assert!(out.stdout.lines().next().is_some_and(|root| root.contains("shared:")), "the host's root is not shared any more: {out}");
}
