//! The container's root, all of it by path: mounts, devices, and what hides files of it. Called by `init`.

use std::fs::{self, File};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::OFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

const NONE: Option<&str> = None;

/// The mounts of the configuration, each to where its destination leads from the host's root (CVE-2019-18837,
/// CVE-2021-30465, CVE-2023-27561, CVE-2024-45310). Gives those that are to be read-only at the end.
pub(crate) fn mounts(root: &Path, list: &Value) -> Vec<File> {
    let mut deferred = Vec::new();
    for entry in list.as_array().into_iter().flatten() {
        let target = root.join(entry["destination"].as_str().unwrap().trim_start_matches('/'));
        let (mut flags, mut data, mut copied) = (MsFlags::empty(), Vec::new(), false);
        for option in entry["options"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            match option {
                "bind" => flags |= MsFlags::MS_BIND,
                "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
                "ro" => flags |= MsFlags::MS_RDONLY,
                "nosuid" => flags |= MsFlags::MS_NOSUID,
                "nodev" => flags |= MsFlags::MS_NODEV,
                "noexec" => flags |= MsFlags::MS_NOEXEC,
                "tmpcopyup" => copied = true,
                "rw" | "relatime" | "strictatime" => {}
                other => data.push(other),
            }
        }
        let mut source = entry["source"].as_str().unwrap_or("none");
        if entry["type"] == "cgroup" {
            (source, flags) = ("/sys/fs/cgroup", MsFlags::MS_BIND | MsFlags::MS_REC);
        }
        if flags.contains(MsFlags::MS_BIND) && Path::new(source).is_file() {
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            File::create(&target).unwrap();
        } else {
            fs::create_dir_all(&target).unwrap();
        }
        let kept = copied.then(|| File::open(&target).unwrap());
        kept.iter().for_each(crate::leak);
        let data = data.join(",");
        mount(Some(source), &target, entry["type"].as_str(), flags, Some(data.as_str())).unwrap();
        if let Some(kept) = kept {
            let below = format!("/proc/self/fd/{}/.", kept.as_raw_fd());
            assert!(
                std::process::Command::new("cp")
                    .args(["-a", &below])
                    .arg(&target)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
            deferred.push(
                File::options()
                    .read(true)
                    .custom_flags(OFlags::PATH.bits().cast_signed())
                    .open(&target)
                    .unwrap(),
            );
        }
    }
    deferred
}

/// Whatever the container shows as its procfs, and whatever lies over it (CVE-2025-52881).
pub(crate) fn sysctls(spec: &Value) {
    for (name, value) in spec["linux"]["sysctl"].as_object().into_iter().flatten() {
        fs::write(Path::new("/proc/sys").join(name.replace('.', "/")), value.as_str().unwrap()).unwrap();
    }
}

/// By descriptors, whose names are looked up in the container's own procfs (CVE-2026-115521).
pub(crate) fn make_read_only(deferred: &[File]) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    for place in deferred {
        let name = format!("/proc/self/fd/{}", place.as_raw_fd());
        mount(NONE, name.as_str(), NONE, flags, NONE).unwrap();
    }
}

/// Devices and links, whatever /dev is (CVE-2026-41579, CVE-2026-47766), and the file for a console, whatever it leads to
/// (CVE-2026-88264).
pub(crate) fn devices(root: &Path, spec: &Value) {
    let dev = root.join("dev");
    let usual =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    let usual = usual.map(|(name, major, minor)| (dev.join(name), makedev(major, minor)));
    let named = spec["linux"]["devices"].as_array().into_iter().flatten().map(|device| {
        let number = |name: &str| device[name].as_u64().unwrap();
        (
            root.join(device["path"].as_str().unwrap().trim_start_matches('/')),
            makedev(number("major"), number("minor")),
        )
    });
    for (path, device) in usual.into_iter().chain(named) {
        // It is the image's when it is there (CVE-2025-31133).
        let _ = mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), device);
    }
    for (name, target) in [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")] {
        let _ = symlink(target, dev.join(name));
    }
    if spec["process"]["terminal"] == true {
        File::create(dev.join("console")).unwrap();
    }
}

/// A terminal by the image's own names: the multiplexer, and the number below /dev/pts (CVE-2025-52565).
pub(crate) fn console(socket: &UnixStream) {
    let master = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    mount(Some(slave.as_c_str()), "/dev/console", NONE, MsFlags::MS_BIND, NONE).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(socket, &[IoSlice::new(b"/dev/pts")], &mut control, SendFlags::empty()).unwrap();
}

/// Hides files under whatever /dev/null is (CVE-2025-31133, CVE-2025-62161), and makes others read-only.
pub(crate) fn mask(spec: &Value) {
    let all = |list: &'static str| {
        let paths = spec["linux"][list].as_array().into_iter().flatten().filter_map(Value::as_str);
        paths.filter(|path| Path::new(path).exists()).collect::<Vec<_>>()
    };
    for path in all("maskedPaths") {
        if Path::new(path).is_dir() {
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, NONE).unwrap();
        } else {
            mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE).unwrap();
        }
    }
    for path in all("readonlyPaths") {
        mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).unwrap();
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NONE, path, NONE, flags, NONE).unwrap();
    }
}

/// Standard streams that are like /dev/null, whatever that is, become it (CVE-2026-88265).
pub(crate) fn reopen_null() {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    let device = null.metadata().unwrap().rdev();
    let is_like = |stream: &str| fs::metadata(stream).is_ok_and(|data| data.rdev() == device);
    if is_like("/proc/self/fd/0") {
        nix::unistd::dup2_stdin(&null).unwrap();
    }
    if is_like("/proc/self/fd/1") {
        nix::unistd::dup2_stdout(&null).unwrap();
    }
}
