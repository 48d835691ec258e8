//! The cgroup layouts that a suite runs on, and where a cgroup's files are in each.
//!
//! `Native` is whatever the machine has (v1 or hybrid here); `V2` is a pure cgroup v2 tree in a private mount
//! namespace, entered by starting the suite again under `unshare -m`. Called by `suite` and `case`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Which cgroup tree `/sys/fs/cgroup` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// What the machine booted with.
    Native,
    /// cgroup v2 alone, in a private mount namespace.
    V2,
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "native" => Ok(Self::Native),
            "v2" => Ok(Self::V2),
            other => Err(format!("unknown layout {other:?}: native or v2")),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::V2 => "v2",
        })
    }
}

impl Layout {
    /// Whether `/sys/fs/cgroup` is a v2 tree (a native one may be, too).
    #[must_use]
    pub fn is_v2(self) -> bool {
        Path::new(CGROUP_ROOT).join("cgroup.controllers").exists()
    }

    /// The folder of the cgroup `path` (absolute, as in cgroupsPath) for `controller`.
    #[must_use]
    pub fn cgroup_dir(self, controller: &str, path: &str) -> PathBuf {
        let tree = Path::new(CGROUP_ROOT);
        let tree = if self.is_v2() { tree.to_path_buf() } else { tree.join(controller) };
        tree.join(path.trim_start_matches('/'))
    }

    /// Whether a limit of `controller` can be set here at all.
    #[must_use]
    pub fn has_controller(self, controller: &str) -> bool {
        if self.is_v2() {
            fs::read_to_string(Path::new(CGROUP_ROOT).join("cgroup.controllers"))
                .is_ok_and(|all| all.split_whitespace().any(|name| name == controller))
        } else {
            // Folders without a hierarchy mounted on them are no controllers.
            Path::new(CGROUP_ROOT).join(controller).join("cgroup.procs").exists()
        }
    }

    /// Replaces `/sys/fs/cgroup` by a v2 tree. Only inside a mount namespace of its own: the caller was started by
    /// `unshare -m --propagation private`.
    ///
    /// # Panics
    /// When a mount cannot be taken away or made.
    pub fn enter_v2() {
        for point in mount_points_below(CGROUP_ROOT).iter().rev() {
            unmount(point.as_str(), UnmountFlags::DETACH).unwrap_or_else(|e| panic!("umount {point}: {e}"));
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("cgroup2", CGROUP_ROOT, "cgroup2", flags, None)
            .unwrap_or_else(|e| panic!("mount cgroup2: {e}"));
    }
}

fn mount_points_below(folder: &str) -> Vec<String> {
    let below = format!("{folder}/");
    fs::read_to_string("/proc/self/mountinfo")
        .expect("read mountinfo")
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| *point == folder || point.starts_with(&below))
        .map(str::to_owned)
        .collect()
}
