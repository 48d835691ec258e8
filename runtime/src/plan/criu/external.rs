//! Which mounts of a container are the host's, and the names under which the images know them.
//!
//! criu calls them external: at a checkpoint it notes a name in place of the mount, and a restore tells it what to bind
//! for each name. The names are made of what config.json calls the destination, never of a path that the image led to by
//! its symlinks, and hold nothing that criu's own syntax gives a meaning; the sources come from config.json alone. So
//! neither an image nor a container can choose what is bound (CVE-2026-119101, CVE-2026-115520, CVE-2026-119614).

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mount_table::restrictions;
use crate::plan::cgroup::{CgroupMode, CgroupPlan};
use crate::plan::mount_flags::MountFlags;
use crate::plan::rootfs::{DeviceKind, MountKind, RootfsPlan};

/// The name of every file that a mask covers, and what covers it.
pub const MASK: (&str, &str) = ("ketch-mask", "/dev/null");

/// A mount whose source is the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The destination below the root, as config.json has it: absolute and cleaned, symlinks not followed.
    pub target: PathBuf,
    /// A path of the host.
    pub source: PathBuf,
    /// What the container must not get by it: `ro`, `nosuid`, `nodev`, `noexec`.
    pub restrictions: MountFlags,
}

/// What a checkpoint has to know of the container's mounts; kept in state.json.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForeignMounts {
    /// Targets of mounts whose source is the host's.
    pub external: Vec<PathBuf>,
    /// Paths that are hidden, each by a mount.
    pub masked: Vec<PathBuf>,
}

impl ForeignMounts {
    /// Those of a container with these plans.
    #[must_use]
    pub fn of(rootfs: &RootfsPlan, cgroup: &CgroupPlan) -> Self {
        Self {
            external: externals(rootfs, cgroup).into_iter().map(|external| external.target).collect(),
            masked: rootfs.masked_paths.clone(),
        }
    }
}

impl External {
    /// Its name in the images: `ketch=` and the destination, each byte that is not one of `A-Za-z0-9/._-` as `%` and two
    /// digits. No two destinations have the same.
    #[must_use]
    pub fn key(target: &Path) -> String {
        target.as_os_str().as_bytes().iter().fold(String::from("ketch="), |mut key, byte| {
            if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
                key.push(char::from(*byte));
            } else {
                let _infallible = write!(key, "%{byte:02x}");
            }
            key
        })
    }
}

/// Every external mount of a container, in order; of several with one destination the last, which covers the others.
#[must_use]
pub fn externals(rootfs: &RootfsPlan, cgroup: &CgroupPlan) -> Vec<External> {
    let mut found: Vec<External> = Vec::new();
    let mut add = |external: External| {
        found.retain(|earlier| earlier.target != external.target);
        found.push(external);
    };
    for step in &rootfs.mounts {
        match step.kind {
            MountKind::Bind => add(External {
                target: step.target.clone(),
                source: PathBuf::from(&step.source),
                restrictions: restrictions(step.flags),
            }),
            // Without a namespace of its own the container is shown its place in each hierarchy by a bind.
            MountKind::Cgroup if cgroup.mode != CgroupMode::Unified && !rootfs.cgroup_namespace => {
                for group in cgroup.groups.iter().filter(|group| !group.controllers.contains(&String::new()))
                {
                    let Some(name) = Path::new(&group.mountpoint).file_name() else { continue };
                    add(External {
                        target: step.target.join(name),
                        source: PathBuf::from(&group.path),
                        restrictions: restrictions(step.flags),
                    });
                }
            }
            _ => {}
        }
    }
    // A user namespace may not make devices: they are those of the host.
    for node in rootfs.dev.iter().flat_map(|dev| &dev.nodes).filter(|_| rootfs.user_namespace) {
        if node.kind != DeviceKind::Fifo {
            add(External {
                target: node.path.clone(),
                source: node.path.clone(),
                restrictions: MountFlags::NONE,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cgroup::CgroupPlan;
    use crate::plan::rootfs::{self, RootEntry, RootfsOptions};
    use crate::spec::Spec;

    fn plan(json: &str) -> RootfsPlan {
        let spec = Spec::from_slice(json.as_bytes()).unwrap();
        rootfs::plan(&spec, &RootfsOptions { bundle: Path::new("/b"), entry: RootEntry::PivotRoot }).unwrap()
    }

    fn cgroup(mode: &str, controller: &str) -> CgroupPlan {
        serde_json::from_value(serde_json::json!({
            "mode": mode, "limits": { "writes": [] }, "privilege": "root", "path": "asked",
            "groups": [{
                "controllers": [controller], "mountpoint": "/sys/fs/cgroup/pids",
                "path": "/sys/fs/cgroup/pids/x", "join": "required"
            }]
        }))
        .unwrap()
    }

    #[test]
    fn names_hold_nothing_that_criu_gives_a_meaning() {
        let key = |target: &str| External::key(Path::new(target));
        assert_eq!(key("/etc/resolv.conf"), "ketch=/etc/resolv.conf");
        assert_eq!(key("/x]:/host"), "ketch=/x%5d%3a/host");
        assert_eq!(key("/a b%"), "ketch=/a%20b%25");
        assert_ne!(key("/a%20b"), key("/a b"));
    }

    #[test]
    fn binds_are_external_and_the_last_of_one_place_counts() {
        let rootfs = plan(
            r#"{"root":{"path":"r"},"mounts":[
                {"destination":"/proc","type":"proc","source":"proc"},
                {"destination":"/data","source":"/one","options":["rbind","ro","nosuid","noatime"]},
                {"destination":"/data/","source":"two","options":["bind"]},
                {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro"]}],
               "linux":{"namespaces":[{"type":"mount"}],"maskedPaths":["/proc/kcore"]}}"#,
        );
        let found = externals(&rootfs, &cgroup("unified", ""));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].source.as_path(), found[0].restrictions),
            (Path::new("/b/two"), MountFlags::NONE)
        );
        let foreign = ForeignMounts::of(&rootfs, &cgroup("hybrid", "pids"));
        assert_eq!(foreign.external, [Path::new("/data"), Path::new("/sys/fs/cgroup/pids")]);
        assert_eq!(foreign.masked, [Path::new("/proc/kcore")]);
    }

    #[test]
    fn devices_are_external_in_a_user_namespace_only() {
        let json = |user: &str| {
            format!(r#"{{"root":{{"path":"r"}},"linux":{{"namespaces":[{{"type":"mount"}}{user}]}}}}"#)
        };
        assert!(externals(&plan(&json("")), &cgroup("unified", "")).is_empty());
        let found = externals(&plan(&json(r#",{"type":"user"}"#)), &cgroup("unified", ""));
        assert!(found.iter().any(|external| external.source == Path::new("/dev/null")));
    }
}
