//! Attacks on what is beside the container: its sibling cgroups, and the mounts of a host whose namespace it shares.
//!
//! Confined as in `attack_image`: a cgroup of the case's own, and a mount namespace of the case's own in the place of the
//! host's.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;

use ketch_integration::runtime::{Invocation, Kind};
use ketch_integration::{Case, Output, tests};
use serde_json::json;

use crate::attack_image::through_a_process_of_the_host;

tests![
    a_sibling_cgroup_whose_name_begins_alike,
    the_propagation_of_a_mount_namespace_that_is_shared,
    the_folder_of_a_notification_socket_behind_a_link,
    a_mount_over_the_notification_socket,
];

/// runc before 1.5.2, crun before 1.29: `exec --cgroup ../<id>x` passed for a sub-cgroup of `<id>`.
fn a_sibling_cgroup_whose_name_begins_alike(case: &Case) {
    case.needs(!matches!(case.runtime.kind, Kind::Naive | Kind::Other), "no exec --cgroup");
    let beside = "it runs beside the container";
    case.falls(&[
        ("runc version 1.1", beside),
        ("runc version 1.3", beside),
        ("crun version 1.8", beside),
        ("crun version 1.28", beside),
    ]);
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
pub(crate) fn the_propagation_of_a_mount_namespace_that_is_shared(case: &Case) {
    let changed = "the host's root is not shared any more";
    case.falls(&[("runc version 1.1", changed), ("runc version 1.3", changed)]);
    let bundle = case
        .bundle()
        .command(&["/bin/true"])
        .without_namespace("mount")
        .set("/mounts", json!([]))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set("/linux/rootfsPropagation", json!("private"));
    let command = bundle.run_command().arg(&bundle.id);
    // The container joins it by not having its own.
    let out = on_a_sharing_host(case, command, "grep ' / / ' /proc/self/mountinfo");
    drop(ketch_integration::Container::adopt(case, &bundle.id));
    assert!(out.stdout.lines().next().is_some_and(|root| root.contains("shared:")), "the host's root is not shared any more: {out}");
}

/// Runs a command where every mount is shared, as systemd leaves a host, and then `look`, whose output is the outcome's.
/// With nobody else: the mounts are private before they are shared anew.
fn on_a_sharing_host(case: &Case, command: Invocation, look: &str) -> Output {
    let script = format!(r#"mount --make-rshared / && "$@" >&2; {look}"#);
    let mut whole = case
        .program("/usr/bin/unshare")
        .args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c", &script, "sh"])
        .arg(&command.program)
        .args(command.args);
    whole.env = command.env;
    whole.run()
}

/// Of crun before 1.31, as all that is made by a path after the root was entered: the folder that the socket is mounted
/// on, whose parents are the image's links.
pub(crate) fn the_folder_of_a_notification_socket_behind_a_link(case: &Case) {
    let made = "it makes the folder on the host";
    case.falls(&[("crun version 1.8", made), ("crun version 1.28", made)]);
    let canary = case.folder("canary");
    let socket = case.dir.join("notify.sock");
    let _listening = UnixDatagram::bind(&socket).expect("bind");
    let bundle = case.bundle().command(&["/bin/true"]).without_namespace("pid");
    // The runtimes differ: /run/notify, or the path that the caller has.
    for name in ["run", "tmp"] {
        let place = bundle.rootfs().join(name);
        fs::remove_dir(&place).expect("take the folder away");
        symlink(through_a_process_of_the_host(&canary), place).expect("link");
    }
    let out = bundle.run_command().env("NOTIFY_SOCKET", &socket).arg(&bundle.id).run();
    drop(ketch_integration::Container::adopt(case, &bundle.id));
    let found: Vec<_> = fs::read_dir(&canary).expect("read").flatten().map(|entry| entry.file_name()).collect();
    assert!(found.is_empty(), "the host's folder holds {found:?} after {out}");
}

/// crun before 1.31: the mount of the socket's folder shares what is mounted on it with the host.
pub(crate) fn a_mount_over_the_notification_socket(case: &Case) {
    case.not_on_runc("its run waits for a readiness that does not come");
    let socket = case.dir.join("notify.sock");
    let _listening = UnixDatagram::bind(&socket).expect("bind");
    let script = "mount -t tmpfs escaped ${NOTIFY_SOCKET%/*} && echo mounted || { mount; echo $NOTIFY_SOCKET; }";
    let bundle = case.bundle().script(script).capabilities(&["CAP_SYS_ADMIN"]);
    let command = bundle.run_command().env("NOTIFY_SOCKET", &socket).arg(&bundle.id);
    let out = on_a_sharing_host(case, command, "cat /proc/self/mountinfo");
    drop(ketch_integration::Container::adopt(case, &bundle.id));
    assert!(out.stderr.contains("mounted"), "the attack could not mount: {out}");
    assert!(!out.stdout.contains("escaped"), "the host has the container's mount: {out}");
}
