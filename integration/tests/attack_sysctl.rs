//! Attacks on the way of a sysctl: the runtime is made to write it elsewhere (CVE-2025-52881, whose target on a host would be
//! `sysrq-trigger` or `core_pattern`).
//!
//! A canary in the case's own folder is all that is written to. A refusal is as good as a sysctl that is set.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ketch_integration::{Bundle, Case, Output, Race, tests};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

tests![a_false_procfs, a_mount_that_is_led_over_the_file];

const NAME: &str = "net.ipv4.ip_default_ttl";
const FOLDER: &str = "proc/sys/net/ipv4";
const FILE: &str = "ip_default_ttl";

/// A folder of the host's with a file of the sysctl's name, which the container gets as a volume.
fn volume(case: &Case) -> (PathBuf, PathBuf) {
    let folder = case.folder("volume");
    let canary = folder.join("fake").join(FILE);
    fs::create_dir_all(folder.join("fake")).expect("mkdir");
    fs::write(&canary, "untouched").expect("write");
    (folder, canary)
}

fn with_sysctl<'a>(bundle: Bundle<'a>, volume: &Path) -> Bundle<'a> {
    let volume = json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "rw"] });
    bundle
        .namespace("network", None)
        .set("/linux/sysctl", json!({ NAME: "77" }))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .mount(volume)
}

#[track_caller]
fn stands(out: &Output, canary: &Path) {
    assert_eq!(fs::read_to_string(canary).expect("read"), "untouched", "the sysctl was written to a file of the host: {out}");
    assert!(out.code != 0 || out.text() == "77", "the sysctl is not set: {out}");
}

/// The image has a folder of its own for a procfs, in which the sysctl is a link. runc 1.1 falls.
pub(crate) fn a_false_procfs(case: &Case) {
    case.falls(&[("runc version 1.1", "it writes to the file of the host")]);
    let (folder, canary) = volume(case);
    let proc = json!({ "destination": "/real", "type": "proc", "source": "proc" });
    let bundle = case.bundle().command(&["/bin/cat", &format!("/real/sys/net/ipv4/{FILE}")]).edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != "/proc");
        mounts.push(proc);
    });
    let bundle = with_sysctl(bundle, &folder);
    let place = bundle.rootfs().join(FOLDER);
    fs::create_dir_all(&place).expect("mkdir");
    symlink(format!("/volume/fake/{FILE}"), place.join(FILE)).expect("link");
    let out = bundle.run();
    stands(&out, &canary);
}

/// A second volume is mounted over the sysctl's folder, by a link in the first: a container that shares that swaps the link
/// and a plain folder all the while, so that no look at the path beforehand helps. crun mounts it there.
pub(crate) fn a_mount_that_is_led_over_the_file(case: &Case) {
    case.falls(&[
        ("crun version 1", "the volume lies over the sysctl's folder"),
        ("runc version 1.1", "it writes to the file of the host when it loses the race"),
    ]);
    let (folder, canary) = volume(case);
    let (plain, link) = (folder.join("a"), folder.join("b"));
    fs::create_dir(&plain).expect("mkdir");
    symlink(format!("../{FOLDER}"), &link).expect("link");
    let over = json!({
        "destination": "/volume/a", "type": "bind", "source": folder.join("fake"), "options": ["bind", "rw"]
    });
    let bundle = case.bundle().command(&["/bin/cat", &format!("/{FOLDER}/{FILE}")]);
    let bundle = with_sysctl(bundle, &folder).mount(over);

    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &plain, CWD, &link, RenameFlags::EXCHANGE).expect("swap");
            }
        }
    });
    let mut last = None;
    for _ in Race::of(case, 20) {
        let out = bundle.run();
        let stands = fs::read_to_string(&canary).expect("read") == "untouched" && (out.code != 0 || out.text() == "77");
        last = Some(out);
        if !stands {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the swapper");
    stands(&last.expect("a round"), &canary);
}
