//! A user without rights, who drives the runtime in place of root: its ids, what it may map, and how a command becomes it.
//!
//! The machine's own files stay as they are: the suite runs in a mount namespace of its own, where `/etc/passwd`, `group`,
//! `subuid` and `subgid` are copies with this user in them. Called by `suite`, `case` and `bundle`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};
use rustix::mount::mount_bind;
use serde_json::{Value, json};

/// Who runs the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The suite's own user.
    Root,
    /// The user of this file.
    User,
}

impl FromStr for Caller {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "root" => Ok(Self::Root),
            "user" => Ok(Self::User),
            other => Err(format!("unknown caller {other:?}: root or user")),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::User => "user",
        })
    }
}

/// The user's name.
pub const NAME: &str = "ketchtest";
/// The user's id, and its group's.
pub const ID: u32 = 4711;
/// Its first subordinate user id.
pub const FIRST_UID: u32 = 1_300_000;
/// Its first subordinate group id.
pub const FIRST_GID: u32 = 1_400_000;
/// How many it has of each.
pub const COUNT: u32 = 65_536;

/// Adds the user to the user database that this mount namespace shows. Only in one of its own.
///
/// # Panics
/// When a file cannot be replaced.
pub fn enter(folder: &Path) {
    fs::create_dir_all(folder).expect("make the user's folder");
    let lines = [
        ("passwd", format!("{NAME}:x:{ID}:{ID}::/nonexistent:/bin/sh\n")),
        ("group", format!("{NAME}:x:{ID}:\n")),
        ("subuid", format!("{NAME}:{FIRST_UID}:{COUNT}\n")),
        ("subgid", format!("{NAME}:{FIRST_GID}:{COUNT}\n")),
    ];
    for (name, line) in lines {
        let place = Path::new("/etc").join(name);
        let text = fs::read_to_string(&place)
            .unwrap_or_else(|e| panic!("{}: {e} (package uidmap)", place.display()));
        let copy = folder.join(name);
        fs::write(&copy, format!("{}\n{line}", text.trim_end())).expect("write the copy");
        mount_bind(&copy, &place).unwrap_or_else(|e| panic!("mount over {}: {e}", place.display()));
    }
}

/// Lets everybody use the devices that a distribution lets everybody use, and a bare machine may not: tun and fuse.
///
/// # Panics
/// When one that the machine has cannot be shown.
pub fn open_devices(folder: &Path) {
    for (name, minor) in [("net/tun", 200), ("fuse", 229)] {
        let place = Path::new("/dev").join(name);
        let node = folder.join(name.replace('/', "-"));
        if !place.exists() {
            continue;
        }
        mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(10, minor))
            .and_then(|()| chmod(&node, Mode::from_raw_mode(0o666)))
            .and_then(|()| mount_bind(&node, &place))
            .unwrap_or_else(|e| panic!("{} for everybody: {e}", place.display()));
    }
}

/// A copy of the runtime that the user can reach, wherever the checkout is.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn reachable(runtime: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join(runtime.file_name().expect("a program has a name"));
    fs::copy(runtime, &copy).expect("copy the runtime");
    copy
}

/// The start of a command line that makes whatever follows run as the user, with none of root's groups or capabilities.
#[must_use]
pub fn become_user() -> Vec<String> {
    ["--reuid", "--regid"]
        .map(|flag| format!("{flag}={ID}"))
        .into_iter()
        .chain(["--clear-groups", "--inh-caps=-all", "--"].map(str::to_owned))
        .collect()
}

/// Gives a file or folder to the user.
///
/// # Panics
/// When it cannot be given away.
pub fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(ID), Some(ID))
        .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
}

/// What `spec --rootless` does to a spec of root's: a user namespace that maps the user alone, the host's network and
/// /sys, no cgroup and no limits.
pub(crate) fn rootless(spec: &mut Value) {
    let linux = spec["linux"].as_object_mut().expect("linux is an object");
    linux.remove("resources");
    linux.remove("cgroupsPath");
    let own = json!([{ "containerID": 0, "hostID": ID, "size": 1 }]);
    linux.insert("uidMappings".into(), own.clone());
    linux.insert("gidMappings".into(), own);
    let namespaces = linux["namespaces"].as_array_mut().expect("namespaces is a list");
    namespaces.retain(|entry| entry["type"] != "network");
    namespaces.push(json!({ "type": "user" }));
    for mount in spec["mounts"].as_array_mut().expect("mounts is a list") {
        if mount["destination"] == "/sys" {
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                             "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| !option.as_str().is_some_and(|option| option.starts_with("gid=")));
        }
    }
}
