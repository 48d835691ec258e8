//! The container's first process, from its namespaces to its program. Called by `main`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{pivot_root, sethostname};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use serde_json::Value;

use crate::{process, root};

const NONE: Option<&str> = None;

/// Those that the configuration wants new.
pub(crate) fn new_namespaces(spec: &Value) -> CloneFlags {
    let kinds = spec["linux"]["namespaces"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["path"].is_null())
        .filter_map(|entry| entry["type"].as_str());
    kinds.fold(CloneFlags::empty(), |flags, kind| {
        flags
            | match kind {
                "pid" => CloneFlags::CLONE_NEWPID,
                "network" => CloneFlags::CLONE_NEWNET,
                "ipc" => CloneFlags::CLONE_NEWIPC,
                "uts" => CloneFlags::CLONE_NEWUTS,
                "mount" => CloneFlags::CLONE_NEWNS,
                _ => CloneFlags::empty(),
            }
    })
}

pub(crate) fn init(folder: &Path, ready: &str, console_socket: Option<&str>) {
    let bundle = fs::read_to_string(folder.join("bundle")).unwrap();
    let spec = fs::read(Path::new(&bundle).join("config.json")).unwrap();
    let spec: Value = serde_json::from_slice(&spec).unwrap();
    let root = Path::new(&bundle).join(spec["root"]["path"].as_str().unwrap());
    let mut started = File::options().read(true).write(true).open(folder.join("start")).unwrap();
    let mut told = File::options().write(true).open(format!("/proc/self/fd/{ready}")).unwrap();
    let console_socket = console_socket.map(|path| UnixStream::connect(path).unwrap());
    let notify = std::env::var("NOTIFY_SOCKET").ok();
    let notify = notify.map(|path| (path, notify_tree(folder)));

    let namespaces = new_namespaces(&spec);
    unshare(namespaces - CloneFlags::CLONE_NEWPID).unwrap();
    if namespaces.contains(CloneFlags::CLONE_NEWUTS) {
        sethostname(spec["hostname"].as_str().unwrap_or("naive")).unwrap();
    }
    // In the host's own namespace, too, where the configuration has none (runc before 1.5.3).
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
    mount(Some(&root), &root, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).unwrap();
    let deferred = root::mounts(&root, &spec["mounts"]);
    root::devices(&root, &spec);
    std::env::set_current_dir(&root).unwrap();
    if namespaces.contains(CloneFlags::CLONE_NEWNS) {
        pivot_root(".", ".").unwrap();
        umount2(".", MntFlags::MNT_DETACH).unwrap();
    } else {
        std::os::unix::fs::chroot(".").unwrap();
    }
    std::env::set_current_dir("/").unwrap();

    if let Some(socket) = console_socket {
        root::console(&socket);
    }
    if let Some((path, tree)) = notify {
        // The caller's path, made in the container through whatever links it has.
        let place = Path::new(&path).parent().unwrap();
        fs::create_dir_all(place).unwrap();
        let _ = move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    }
    root::sysctls(&spec);
    root::make_read_only(&deferred);
    root::mask(&spec);
    root::reopen_null();

    told.write_all(b"1").unwrap();
    started.read_exact(&mut [0]).unwrap();
    process::execute(&spec["process"]);
}

/// A mount of the host's that goes on sharing what happens in it with the host (crun before 1.31).
fn notify_tree(folder: &Path) -> OwnedFd {
    let own = folder.join("notify");
    fs::create_dir(&own).unwrap();
    open_tree(CWD, &own, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE).unwrap()
}
