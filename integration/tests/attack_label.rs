//! Attacks on the way of a label: the runtime is made to write it elsewhere, so that the process runs without.
//!
//! CVE-2019-16884 and CVE-2019-19921 (something else than procfs at /proc), CVE-2025-52881 (attr/exec redirected). A
//! refusal is as good as a confined process; a process without its label is the fall.

use std::fs;
use std::path::Path;

use ketch_integration::apparmor::Profile;
use ketch_integration::{Bundle, Case, Container, Race, tests, wait_until};
use serde_json::json;

tests![
    a_folder_in_place_of_proc,
    a_tmpfs_in_place_of_proc,
    a_link_in_place_of_proc,
    a_mount_over_attr,
    a_mount_over_attr_through_a_link,
    attr_redirected_during_an_exec,
    proc_replaced_before_an_exec,
];

/// The files that a runtime would write a label to, as plain files below `folder`.
fn fake_proc(folder: &Path) {
    for process in ["self", "thread-self", "1"] {
        for attr in ["attr", "attr/apparmor"] {
            let attr = folder.join(process).join(attr);
            fs::create_dir_all(&attr).expect("make the fake");
            fs::write(attr.join("exec"), "").expect("make the fake");
            fs::write(attr.join("current"), "").expect("make the fake");
        }
    }
}

fn confined<'a>(case: &'a Case, profile: &Profile) -> Bundle<'a> {
    case.bundle().sleeper().set("/process/apparmorProfile", json!(profile.name)).edit(|spec| {
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    })
}

fn label_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap_or_default().trim().to_owned()
}

/// Refused, or started with the label.
fn stands(bundle: &Bundle<'_>, profile: &Profile) {
    let out = bundle.create_command().arg(&bundle.id).run();
    let container = Container::adopt(bundle.case, &bundle.id);
    if out.code != 0 {
        return;
    }
    if container.start().code == 0 && container.status() == "running" {
        let pid = container.pid();
        wait_until("the program's own label", || {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if program.ends_with("bin/busybox") { Ok(()) } else { Err(program.display().to_string()) }
        });
        assert_eq!(label_of(pid), profile.label(), "the container runs without its profile");
    }
}

fn in_place_of_proc(bundle: Bundle<'_>, mount: serde_json::Value) -> Bundle<'_> {
    bundle.edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/proc");
        mounts.push(mount);
    })
}

pub(crate) fn a_folder_in_place_of_proc(case: &Case) {
    let profile = Profile::load(case, "");
    let fake = case.folder("fake");
    fake_proc(&fake);
    let mount = json!({ "destination": "/proc", "type": "bind", "source": fake, "options": ["rbind", "rw"] });
    stands(&in_place_of_proc(confined(case, &profile), mount), &profile);
    // The volume comes after the procfs, as in the advisory.
    let mount = json!({ "destination": "/proc", "type": "bind", "source": fake, "options": ["rbind", "rw"] });
    stands(&confined(case, &profile).mount(mount), &profile);
}

pub(crate) fn a_tmpfs_in_place_of_proc(case: &Case) {
    let profile = Profile::load(case, "");
    let mount = json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] });
    let bundle = in_place_of_proc(confined(case, &profile), mount);
    fake_proc(&bundle.rootfs().join("proc"));
    stands(&bundle, &profile);
}

pub(crate) fn a_link_in_place_of_proc(case: &Case) {
    let profile = Profile::load(case, "");
    // On the host an empty folder, in the image the fake: whoever mounts by path mounts elsewhere than he writes.
    let host = case.folder("elsewhere");
    for target in [Path::new("evil/level"), &host] {
        let bundle = confined(case, &profile);
        fake_proc(&bundle.rootfs().join(target.strip_prefix("/").unwrap_or(Path::new("evil"))));
        fs::remove_dir(bundle.rootfs().join("proc")).expect("take the folder away");
        std::os::unix::fs::symlink(target, bundle.rootfs().join("proc")).expect("link");
        stands(&bundle, &profile);
    }
}

pub(crate) fn a_mount_over_attr(case: &Case) {
    let profile = Profile::load(case, "");
    let fake = case.folder("fake");
    fake_proc(&fake);
    for process in ["self", "thread-self", "1"] {
        for (file, kind) in [("attr", "attr"), ("attr/exec", "attr/exec"), ("attr/apparmor/exec", "attr/exec")] {
            let mount = json!({ "destination": format!("/proc/{process}/{file}"), "type": "bind",
                "source": fake.join("self").join(kind), "options": ["rbind", "rw"] });
            stands(&confined(case, &profile).mount(mount), &profile);
        }
    }
}

pub(crate) fn a_mount_over_attr_through_a_link(case: &Case) {
    let profile = Profile::load(case, "");
    let fake = case.folder("fake");
    fake_proc(&fake);
    for target in ["/proc/self", "proc/self"] {
        let bundle = confined(case, &profile).mount(json!({ "destination": "/way/attr", "type": "bind",
            "source": fake.join("self/attr"), "options": ["rbind", "rw"] }));
        std::os::unix::fs::symlink(target, bundle.rootfs().join("way")).expect("link");
        stands(&bundle, &profile);
    }
}

/// A container whose root may mount, as a privileged one's may, running `script` with the fake at /fake.
fn mounting<'a>(case: &'a Case, script: &str) -> Container<'a> {
    // Without a profile of its own, so that it can do what it likes; the one who enters is to be confined.
    let bundle = case.bundle().script(script).capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).edit(|spec| {
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    fake_proc(&bundle.rootfs().join("fake"));
    let container = bundle.start();
    container.wait_stdout("mounting");
    container
}

/// Whoever writes by path, and not before the attacker had a moment, is redirected: the real file refuses what is no
/// profile's name.
fn the_attack_works(container: &Container<'_>) {
    let naive = container.exec(&["/bin/sh", "-c", "sleep 2; echo x >/proc/self/attr/exec"]);
    assert_eq!(naive.code, 0, "whoever writes by path is not redirected: {naive}");
}

/// Enters with a profile: refused, or confined.
fn entering_stands(container: &Container<'_>, profile: &Profile) {
    let pid_file = container.case.dir.join("pid");
    let flags = ["--detach", "--apparmor", &profile.name, "--pid-file", pid_file.to_str().expect("a path")];
    if container.exec_with(&flags, &["/bin/sleep", "1000"]).code != 0 {
        return;
    }
    let pid = fs::read_to_string(&pid_file).expect("the pid").trim().parse().expect("a pid");
    wait_until("the program that entered", || {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if program.ends_with("bin/busybox") { Ok(()) } else { Err(program.display().to_string()) }
    });
    assert_eq!(label_of(pid), profile.label(), "the entering process runs without its profile");
}

/// Each process that appears gets a folder of the attacker's over its attr, as fast as a shell can.
pub(crate) fn attr_redirected_during_an_exec(case: &Case) {
    let profile = Profile::load(case, "");
    let container = mounting(
        case,
        "echo mounting; while :; do for p in /proc/[0-9]*; do
            [ -e $p/attr/taken ] || { touch /fake/self/attr/taken; mount -o bind /fake/self/attr $p/attr; }
         done; done 2>/dev/null",
    );
    the_attack_works(&container);
    for _ in Race::of(case, 10) {
        entering_stands(&container, &profile);
    }
    container.stop();
}

pub(crate) fn proc_replaced_before_an_exec(case: &Case) {
    let profile = Profile::load(case, "");
    let wait = "echo mounting; exec sleep 1000";
    for change in ["mount -t tmpfs none /proc && cp -r /fake/. /proc/", "mount -o bind /fake /proc"] {
        let container = mounting(case, &format!("{change} && {wait}"));
        the_attack_works(&container);
        entering_stands(&container, &profile);
        container.stop();
    }
}
