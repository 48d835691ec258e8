//! Attacks by a hostile image or bundle, one for each vulnerability of the record that create and run can meet.
//!
//! Every attack aims at a canary in the case's own folder. Which of Debian's runc 1.1.5 and crun 1.8.1 falls is noted
//! beside each: a fall proves that the attack works, and `attack_proof` sees each of them fall on a runtime without
//! protection. CVE-2023-25809 needs a rootless runtime (`rootless`); CVE-2025-52881 has files of its own, one for sysctls and
//! one for labels (`attack_sysctl`, `attack_label`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ketch_integration::runtime::Kind;
use ketch_integration::{Bundle, Caller, Case, Output, Race, tests};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

tests![
    dev_as_a_link_to_the_host,
    proc_as_a_link,
    sys_as_a_link,
    a_volume_over_proc,
    a_mount_target_behind_a_link_to_the_host,
    a_mount_target_that_is_swapped,
    a_false_null_under_a_mask,
    a_false_null_as_standard_input,
    a_standard_stream_on_the_host,
    a_read_only_volume_and_a_false_procfs,
    a_console_behind_a_link_to_the_host,
    a_false_ptmx,
    a_false_slave,
    a_working_directory_by_descriptor,
    a_device_behind_a_link_to_the_host,
];

/// An empty folder of the host that nothing may write to.
fn canary(case: &Case) -> PathBuf {
    case.folder("canary")
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("read").next().is_none()
}

#[track_caller]
fn canary_is_empty(case: &Case, out: &Output) {
    let found: Vec<_> =
        fs::read_dir(canary(case)).expect("read").flatten().map(|entry| entry.file_name()).collect();
    assert!(found.is_empty(), "the host's folder holds {found:?} after {out}");
}

/// Without the mount that hides the image's own folder.
fn without_mount<'a>(bundle: Bundle<'a>, destination: &str) -> Bundle<'a> {
    bundle.edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts is a list");
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with(destination)));
    })
}

/// Puts a link in the place of a folder of the image.
fn replace_by_link(bundle: &Bundle<'_>, name: &str, target: &Path) {
    let place = bundle.rootfs().join(name);
    let _ = fs::remove_dir(&place);
    symlink(target, place).expect("link");
}

/// CVE-2026-41579 (runc), CVE-2026-47766 (crun). Both fall: runc makes its links in the host's folder, crun its devices,
/// too.
pub(crate) fn dev_as_a_link_to_the_host(case: &Case) {
    case.falls(&[("runc version 1.1", "links are made on the host"), ("runc version 1.3", "links are made on the host"), ("crun version 1.8", "devices and links are made on the host")]);
    let bundle = without_mount(case.bundle().command(&["/bin/true"]), "/dev");
    replace_by_link(&bundle, "dev", &canary(case));
    let out = bundle.run();
    canary_is_empty(case, &out);
}

/// CVE-2023-27561, CVE-2023-28642; CVE-2025-54867 (youki). Neither falls; crun's words are others.
pub(crate) fn proc_as_a_link(case: &Case) {
    let bundle = case.bundle().command(&["/bin/true"]);
    replace_by_link(&bundle, "proc", &canary(case));
    let text = if matches!(case.runtime.kind, Kind::Crun { .. }) { "invalid" } else { "ordinary directory" };
    bundle.run().refuses(&[text]);
}

/// The same for sysfs.
pub(crate) fn sys_as_a_link(case: &Case) {
    case.root_only("a bind of /sys follows the link inside the root");
    let bundle = case.bundle().command(&["/bin/true"]);
    replace_by_link(&bundle, "sys", &canary(case));
    bundle.run().refuses(&[]);
}

/// CVE-2019-16884, CVE-2019-19921. runc falls to the volume behind a link, crun to every one.
pub(crate) fn a_volume_over_proc(case: &Case) {
    case.falls(&[("runc version 1.1", "a link leads the volume over /proc"), ("runc version 1.3", "a link leads the volume over /proc"), ("crun version 1.8", "it mounts a volume over /proc")]);
    let volume = case.folder("volume");
    fs::create_dir_all(volume.join("self/attr")).expect("mkdir");
    fs::write(volume.join("self/attr/exec"), "").expect("write");
    let over = json!({ "destination": "/proc", "type": "bind", "source": volume, "options": ["rbind"] });
    case.bundle().mount(over).run().refuses(&["cannot be mounted because it is not of type proc"]);
    let link = json!({ "destination": "/alias", "type": "bind", "source": volume, "options": ["rbind"] });
    let bundle = case.bundle().mount(link);
    symlink("/proc", bundle.rootfs().join("alias")).expect("link");
    bundle.run().refuses(&["cannot be mounted because it is not of type proc"]);
    let inside = json!({ "destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs" });
    case.bundle().mount(inside).run().refuses(&["cannot be mounted because it is inside /proc"]);
    assert_eq!(fs::read(volume.join("self/attr/exec")).expect("read"), b"");
}

/// CVE-2019-18837 (crun) and the class that it began: mount targets, and what is made on the way to them.
/// Neither falls; crun refuses what lies behind such a link.
pub(crate) fn a_mount_target_behind_a_link_to_the_host(case: &Case) {
    case.not_on_crun("1.8.1 refuses a link that dangles inside of the rootfs");
    let inside = format!("{}/made/here", canary(case).display());
    let bundle = case
        .bundle()
        .command(&["/bin/ls", "-d", &inside])
        .mount(json!({ "destination": "/link/made/here", "type": "tmpfs", "source": "tmpfs" }));
    symlink(canary(case), bundle.rootfs().join("link")).expect("link");
    let out = bundle.run();
    canary_is_empty(case, &out);
    assert_eq!(out.ok().text(), inside, "the link is resolved inside of the rootfs");

    let up = json!({ "destination": "/up/../made", "type": "tmpfs", "source": "tmpfs" });
    let bundle = case.bundle().command(&["/bin/true"]).mount(up);
    symlink("../../../../../../../../..", bundle.rootfs().join("up")).expect("link");
    let out = bundle.run();
    canary_is_empty(case, &out);
    let _ = out.ok();
}

/// CVE-2021-30465, CVE-2024-45310: a container that shares the volume swaps a folder and a link to the host while
/// another one is made. runc 1.1 falls within some ten rounds, by the second of the two.
pub(crate) fn a_mount_target_that_is_swapped(case: &Case) {
    if case.caller == Caller::User {
        case.needs_runc(1, 2, "it falls: makes folders outside, as a folder of the user's is no obstacle to it");
    }
    case.falls(&[("runc version 1.1", "it makes folders outside, in one of some ten rounds")]);
    let volume = case.folder("volume");
    let (folder, link) = (volume.join("a"), volume.join("b"));
    fs::create_dir(&folder).expect("mkdir");
    symlink(canary(case), &link).expect("link");
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).expect("swap");
            }
        }
    });
    let mut last = None;
    let mut bundle = case
        .bundle()
        .command(&["/bin/true"])
        .mount(json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["bind"] }));
    let usual = bundle.spec["mounts"].clone();
    for round in Race::of(case, 20) {
        bundle.spec["mounts"] = usual.clone();
        for place in 0..8 {
            let target = format!("/volume/a/{round}/{place}");
            bundle =
                bundle.mount(json!({ "destination": target, "type": "tmpfs", "source": "tmpfs" }));
        }
        // It may fail, as the folder may be gone between two steps.
        last = Some(bundle.run());
        if !is_empty(&canary(case)) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the swapper");
    canary_is_empty(case, &last.expect("a round"));
}

/// CVE-2025-31133, CVE-2025-62161 (youki): runc before 1.2.8 binds whatever `/dev/null` leads to over what it hides,
/// and makes it the container's standard output, too. Both peers fall.
pub(crate) fn a_false_null_under_a_mask(case: &Case) {
    case.falls(&[("runc version 1.1", "the image's file lies over the masked one"), ("runc version 1.3", "the image's file lies over the masked one"), ("crun version 1.8", "the image's file becomes a standard stream")]);
    let script = "stat -c %t:%T /secret; timeout 1 head -c 64 /secret";
    let bundle = without_mount(case.bundle().script(script), "/dev").set("/linux/maskedPaths", json!(["/secret"]));
    fs::write(bundle.rootfs().join("secret"), "secret").expect("write");
    fs::write(bundle.rootfs().join("attackers"), "attackers").expect("write");
    symlink("/attackers", bundle.rootfs().join("dev/null")).expect("link");
    let out = bundle.run();
    // runc 1.1 even makes it the container's standard output.
    let attackers = fs::read_to_string(bundle.rootfs().join("attackers")).expect("read");
    assert_eq!(attackers, "attackers", "the image's file is a standard stream: {out}");
    assert!(!out.stdout.contains("secret") && !out.stdout.contains("attackers"), "{out}");
    assert!(out.code != 0 || out.stdout.starts_with("1:3"), "{out}");
}

/// CVE-2026-88265 (crun): a writable descriptor of a file of the host. Neither falls in this form, in which the link is
/// resolved inside.
pub(crate) fn a_false_null_as_standard_input(case: &Case) {
    let file = canary(case).join("file");
    fs::write(&file, "untouched").expect("write");
    let bundle = without_mount(case.bundle().script("echo written >&0; echo written > /proc/self/fd/0"), "/dev");
    let bundle = bundle.set("/linux/maskedPaths", json!([]));
    symlink(&file, bundle.rootfs().join("dev/null")).expect("link");
    let out = bundle.run();
    assert_eq!(fs::read_to_string(&file).expect("read"), "untouched", "{out}");
}

/// A link to a file or folder of the host that is right even inside of a root, for whoever follows it with the rights to:
/// the kernel's own, through a process of the host. For a container in the host's pid namespace.
pub(crate) fn through_a_process_of_the_host(path: &Path) -> PathBuf {
    Path::new("/proc").join(std::process::id().to_string()).join("root").join(path.strip_prefix("/").expect("absolute"))
}

/// The same in the form of the advisory: the runtime opens the link with rights that the container's program lacks, and a
/// stream that is a plain file is as little a device as what it finds.
pub(crate) fn a_standard_stream_on_the_host(case: &Case) {
    case.root_only("a user's runtime has no more rights than its container");
    let stream = "the host's file becomes a standard stream";
    case.falls(&[("runc version 1.1", stream), ("crun version 1.8", stream), ("crun version 1.28", stream)]);
    let file = canary(case).join("file");
    fs::write(&file, "untouched").expect("write");
    let script = "echo written; echo written >&2; echo written >&0";
    let bundle = without_mount(case.bundle().script(script), "/dev").without_namespace("pid");
    let bundle = bundle.set("/linux/maskedPaths", json!([]));
    symlink(through_a_process_of_the_host(&file), bundle.rootfs().join("dev/null")).expect("link");
    let out = bundle.run();
    assert_eq!(fs::read_to_string(&file).expect("read"), "untouched", "the host's file after {out}");
}

/// CVE-2026-115521 (crun): the read-only flag is set last, by the name of a descriptor in what the container has for a
/// procfs, and so on something else.
pub(crate) fn a_read_only_volume_and_a_false_procfs(case: &Case) {
    let volume = case.folder("volume");
    let bundle = without_mount(case.bundle().script("echo written > /data/file"), "/proc")
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .mount(json!({ "destination": "/decoy", "type": "tmpfs", "source": "tmpfs" }))
        .mount(json!({ "destination": "/data", "type": "bind", "source": volume, "options": ["bind", "ro"] }));
    for process in ["self", "thread-self"] {
        let folder = bundle.rootfs().join("proc").join(process).join("fd");
        fs::create_dir_all(&folder).expect("mkdir");
        for number in 0..64 {
            symlink("/decoy", folder.join(number.to_string())).expect("link");
        }
    }
    let out = bundle.run();
    let found = fs::read_dir(&volume).expect("read").count();
    assert_eq!(found, 0, "the volume was written to after {out}");
}

/// CVE-2026-88264 (crun): a file of the host, made by root. crun falls.
pub(crate) fn a_console_behind_a_link_to_the_host(case: &Case) {
    case.falls(&[("crun version 1.8", "it makes the file on the host")]);
    let socket = ketch_integration::console::FdSocket::bind(&case.dir, "console.sock");
    let bundle = case.bundle().command(&["/bin/true"]).set("/process/terminal", json!(true));
    // Only /dev itself is the image's; the devpts stays.
    let bundle = bundle.edit(|spec| {
        spec["mounts"].as_array_mut().expect("a list").retain(|mount| mount["destination"] != "/dev");
    });
    symlink(canary(case).join("made"), bundle.rootfs().join("dev/console")).expect("link");
    let out = bundle.create_command().arg("--console-socket").arg(&socket.path).arg(&bundle.id).run();
    drop(ketch_integration::Container::adopt(case, &bundle.id));
    canary_is_empty(case, &out);
}

/// CVE-2025-52565: what the terminal is made from is the image's own file.
pub(crate) fn a_false_ptmx(case: &Case) {
    let socket = ketch_integration::console::FdSocket::bind(&case.dir, "console.sock");
    let bundle = without_mount(case.bundle().command(&["/bin/true"]), "/dev/pts");
    let bundle = bundle.set("/process/terminal", json!(true));
    let tmpfs = json!({ "destination": "/dev/pts", "type": "tmpfs", "source": "tmpfs" });
    let bundle = bundle.mount(tmpfs);
    let out = bundle.create_command().arg("--console-socket").arg(&socket.path).arg(&bundle.id).run();
    drop(ketch_integration::Container::adopt(case, &bundle.id));
    out.refuses(&[]);
}

/// The same, and what would be the terminal's slave by its number is a link of the image: the container's console shows
/// what is hidden a moment later.
pub(crate) fn a_false_slave(case: &Case) {
    let script = "if [ -f /dev/console ]; then cat /dev/console; else echo no file; fi > /tmp/seen";
    let bundle = without_mount(case.bundle().script(script), "/dev")
        .set("/process/terminal", json!(true))
        .set("/linux/maskedPaths", json!(["/secret"]))
        .mount(json!({ "destination": "/real", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] }));
    fs::write(bundle.rootfs().join("secret"), "secret").expect("write");
    let pts = bundle.rootfs().join("dev/pts");
    fs::create_dir(&pts).expect("mkdir");
    symlink("/real/ptmx", pts.join("ptmx")).expect("link");
    for number in 0..4 {
        symlink("/secret", pts.join(number.to_string())).expect("link");
    }
    let socket = ketch_integration::console::FdSocket::bind(&case.dir, "console.sock");
    let out = bundle.create_command().arg("--console-socket").arg(&socket.path).arg(&bundle.id).run();
    let container = ketch_integration::Container::adopt(case, &bundle.id);
    if out.code != 0 {
        return;
    }
    let _ = container.start();
    container.wait_status("stopped");
    let seen = fs::read_to_string(bundle.rootfs().join("tmp/seen")).unwrap_or_default();
    assert!(!seen.contains("secret"), "the console shows {seen:?} after {out}");
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime's.
pub(crate) fn a_working_directory_by_descriptor(case: &Case) {
    let file = canary(case).join("secret");
    fs::write(&file, "secret of the host").expect("write");
    let up = format!("../../../../../../../../..{}", file.display());
    for number in 3..16 {
        for below in ["", "/../../../.."] {
            let out = case
                .bundle()
                .command(&["/bin/cat", &up])
                .set("/process/cwd", json!(format!("/proc/self/fd/{number}{below}")))
                .run();
            assert!(!out.stdout.contains("secret"), "a file of the host is read: {out}");
        }
    }
    // The same by a link of the image, which no check of the text would see.
    let bundle = case.bundle().command(&["/bin/cat", &up]).set("/process/cwd", json!("/link"));
    symlink("/proc/self/fd/7", bundle.rootfs().join("link")).expect("link");
    let out = bundle.run();
    assert!(!out.stdout.contains("secret"), "a file of the host is read: {out}");
}

/// A device of the bundle, whose parent is a link to the host.
pub(crate) fn a_device_behind_a_link_to_the_host(case: &Case) {
    let bundle = case.bundle().command(&["/bin/true"]).edit(|spec| {
        spec["linux"]["devices"] =
            json!([{ "path": "/link/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }]);
    });
    symlink(canary(case), bundle.rootfs().join("link")).expect("link");
    let out = bundle.run();
    canary_is_empty(case, &out);
    let made = bundle.rootfs().join(canary(case).strip_prefix("/").expect("absolute")).join("null");
    if out.code == 0 {
        assert!(fs::metadata(made).expect("the node inside").file_type().is_char_device());
    }
}
