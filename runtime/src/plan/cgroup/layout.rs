//! Where the cgroup hierarchies are mounted, and where in them a container's cgroup goes.
//!
//! Pure: reads the texts of `/proc/self/mountinfo` and `/proc/self/cgroup` (proc_pid_mountinfo(5), cgroups(7)), which
//! `host` fetches. The rules for paths are those of runc's cgroupfs driver.

use serde::{Deserialize, Serialize};

use super::CgroupPlanError;
use crate::mountinfo::unescape;

/// The mount point that makes a system "unified" when a cgroup2 file system is on it.
const DEFAULT_ROOT: &str = "/sys/fs/cgroup";
/// Where systemd puts cgroup2 beside the v1 hierarchies, which makes a system "hybrid".
const HYBRID_MOUNTPOINT: &str = "/sys/fs/cgroup/unified";

/// How a host mounts its cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// v1 hierarchies only.
    Legacy,
    /// v1 hierarchies, and cgroup2 at `/sys/fs/cgroup/unified`.
    Hybrid,
    /// cgroup2 at `/sys/fs/cgroup`.
    Unified,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// v1: what is mounted together, as in the mount options (`cpu`, `name=systemd`). cgroup2: one empty name.
    pub controllers: Vec<String>,
    pub mountpoint: String,
    /// The part of the hierarchy that is mounted; not `/` in a container without a cgroup namespace.
    pub root: String,
    /// The runtime's own cgroup in this hierarchy.
    pub own: String,
}

/// What the planner knows of a host's cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLayout {
    pub mode: CgroupMode,
    /// In the order of mountinfo, cgroup2 last; of several mounts of one hierarchy the first.
    pub hierarchies: Vec<Hierarchy>,
}

impl CgroupLayout {
    /// Reads the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`. Lines that make no sense are skipped.
    #[must_use]
    pub fn parse(mountinfo: &str, self_cgroup: &str) -> CgroupLayout {
        let own: Vec<(Vec<&str>, &str)> = self_cgroup
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                Some((fields.next()?.split(',').collect(), fields.next()?))
            })
            .collect();
        let own_of = |controller: &str| {
            let found = own.iter().find(|(names, _)| names.contains(&controller));
            found.map_or_else(String::new, |(_, path)| (*path).to_owned())
        };

        let mut mode = CgroupMode::Legacy;
        let mut legacy: Vec<Hierarchy> = Vec::new();
        let mut cgroup2: Option<Hierarchy> = None;
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            // A later mount on the same point hides an earlier one.
            if mount.mountpoint == DEFAULT_ROOT {
                mode = if mount.kind == "cgroup2" { CgroupMode::Unified } else { CgroupMode::Legacy };
                cgroup2 = None;
                legacy.clear();
            }
            match mount.kind {
                "cgroup2" if mount.mountpoint == DEFAULT_ROOT || mount.mountpoint == HYBRID_MOUNTPOINT => {
                    if mode == CgroupMode::Legacy {
                        mode = CgroupMode::Hybrid;
                    }
                    cgroup2 = Some(Hierarchy {
                        controllers: vec![String::new()],
                        own: own_of(""),
                        mountpoint: mount.mountpoint,
                        root: mount.root,
                    });
                }
                "cgroup" => {
                    let known = |option: &&str| own.iter().any(|(names, _)| names.contains(option));
                    let controllers: Vec<String> =
                        mount.super_options.split(',').filter(known).map(str::to_owned).collect();
                    legacy.retain(|other| other.mountpoint != mount.mountpoint);
                    if controllers.is_empty() || legacy.iter().any(|other| other.controllers == controllers) {
                        continue;
                    }
                    let own = own_of(&controllers[0]);
                    legacy.push(Hierarchy {
                        controllers,
                        mountpoint: mount.mountpoint,
                        root: mount.root,
                        own,
                    });
                }
                _ => {}
            }
        }
        if mode == CgroupMode::Unified {
            legacy.clear();
        }
        let hierarchies = legacy.into_iter().chain(cgroup2).collect();
        CgroupLayout { mode, hierarchies }
    }

    /// The hierarchy of a v1 controller, or cgroup2's for the empty name. A named hierarchy can be asked for without
    /// its `name=`.
    #[must_use]
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| {
            hierarchy.controllers.iter().any(|name| {
                name == controller
                    || (!controller.is_empty() && name.strip_prefix("name=") == Some(controller))
            })
        })
    }
}

/// The fields of a mountinfo line that count here.
struct Mount<'a> {
    root: String,
    mountpoint: String,
    kind: &'a str,
    super_options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Mount {
            root: unescape(before.next()?),
            mountpoint: unescape(before.next()?),
            kind: after.next()?,
            super_options: after.nth(1)?,
        })
    }
}

/// The path of a container's cgroup relative to something: with a leading `/`, to the mount point; without, to the
/// runtime's own cgroup. No `..` survives in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InnerPath(String);

impl InnerPath {
    /// An absent or empty cgroupsPath stands for the id, relative to the runtime's own cgroup.
    pub(super) fn new(cgroups_path: Option<&str>, id: &str) -> InnerPath {
        let path = cgroups_path.filter(|path| !path.is_empty()).map_or(String::new(), clean);
        InnerPath(if path.is_empty() { clean(id) } else { path })
    }

    /// The absolute path of the container's cgroup in a hierarchy.
    pub(super) fn place(&self, hierarchy: &Hierarchy) -> Result<String, CgroupPlanError> {
        let base = &hierarchy.mountpoint;
        if self.0.starts_with('/') {
            return Ok(clean(&format!("{base}{}", self.0)));
        }
        if hierarchy.mountpoint == HYBRID_MOUNTPOINT {
            return Ok(clean(&format!("{base}/{}", self.0)));
        }
        if hierarchy.own.is_empty() {
            return Err(CgroupPlanError::OwnCgroupUnknown);
        }
        if hierarchy.controllers == [""] {
            // The runtime's own cgroup has processes, so no controller can be enabled below it.
            // Cleaned by itself first: it must not climb out of the mount.
            let beside = clean(&format!("/{}/../{}", hierarchy.own, self.0));
            return Ok(clean(&format!("{base}{beside}")));
        }
        Ok(clean(&format!("{base}/{}/{}", relative(&hierarchy.root, &hierarchy.own), self.0)))
    }
}

/// Lexically: an absolute path without `.` and `..`; a relative one is first taken as below `/`, so that it can't
/// climb, and stays relative.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let lead = if path.starts_with('/') { "/" } else { "" };
    format!("{lead}{}", parts.join("/"))
}

/// How to get from `base` to `target`, both absolute.
fn relative(base: &str, target: &str) -> String {
    let parts = |path: &str| {
        clean(path).split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (base, target) = (parts(base), parts(target));
    let shared = base.iter().zip(&target).take_while(|(a, b)| a == b).count();
    let up = base[shared..].iter().map(|_| "..".to_owned());
    up.chain(target[shared..].iter().cloned()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const HYBRID_MOUNTINFO: &str = "\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    pub(in super::super) const HYBRID_SELF: &str = "\
9:name=systemd:/
8:pids:/
7:blkio:/
6:freezer:/
5:devices:/
4:memory:/process_api/352049
3:cpuset:/
1:cpu,cpuacct:/
0::/
";
    pub(in super::super) const UNIFIED_MOUNTINFO: &str =
        "41 31 0:38 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_hybrid_host() {
        let layout = CgroupLayout::parse(HYBRID_MOUNTINFO, HYBRID_SELF);
        assert_eq!(layout.mode, CgroupMode::Hybrid);
        assert_eq!(layout.hierarchies.len(), 9);
        assert_eq!(layout.hierarchy("cpuacct").unwrap().mountpoint, "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(layout.hierarchy("cpu").unwrap().controllers, ["cpu", "cpuacct"]);
        assert_eq!(layout.hierarchy("memory").unwrap().own, "/process_api/352049");
        assert_eq!(layout.hierarchy("systemd").unwrap().controllers, ["name=systemd"]);
        assert_eq!(layout.hierarchy("").unwrap().mountpoint, "/sys/fs/cgroup/unified");
        assert!(layout.hierarchy("hugetlb").is_none());
    }

    #[test]
    fn a_unified_host_and_what_hides_what() {
        let unified = CgroupLayout::parse(UNIFIED_MOUNTINFO, "0::/user.slice\n");
        assert_eq!(unified.mode, CgroupMode::Unified);
        assert_eq!(unified.hierarchies.len(), 1);
        let over = CgroupLayout::parse(&format!("{HYBRID_MOUNTINFO}{UNIFIED_MOUNTINFO}"), HYBRID_SELF);
        assert_eq!((over.mode, over.hierarchies.len()), (CgroupMode::Unified, 1));
        let under = CgroupLayout::parse(&format!("{UNIFIED_MOUNTINFO}{HYBRID_MOUNTINFO}"), HYBRID_SELF);
        assert_eq!((under.mode, under.hierarchies.len()), (CgroupMode::Hybrid, 9));
        let none = CgroupLayout::parse("", "0::/\n");
        assert_eq!((none.mode, none.hierarchies.len()), (CgroupMode::Legacy, 0));
    }

    #[test]
    fn paths_as_runc_places_them() {
        let layout = CgroupLayout::parse(HYBRID_MOUNTINFO, HYBRID_SELF);
        let place = |path: Option<&str>, controller: &str| {
            InnerPath::new(path, "id1").place(layout.hierarchy(controller).unwrap()).unwrap()
        };
        assert_eq!(place(Some("/a/../../b/id1"), "memory"), "/sys/fs/cgroup/memory/b/id1");
        assert_eq!(place(Some("../../x"), "memory"), "/sys/fs/cgroup/memory/process_api/352049/x");
        assert_eq!(place(None, "memory"), "/sys/fs/cgroup/memory/process_api/352049/id1");
        assert_eq!(place(Some(""), "pids"), "/sys/fs/cgroup/pids/id1");
        assert_eq!(place(Some("/"), "pids"), "/sys/fs/cgroup/pids");
        assert_eq!(place(None, ""), "/sys/fs/cgroup/unified/id1");

        let unified = CgroupLayout::parse(UNIFIED_MOUNTINFO, "0::/user.slice/session-1.scope\n");
        let place = |path| InnerPath::new(path, "id1").place(&unified.hierarchies[0]).unwrap();
        assert_eq!(place(None), "/sys/fs/cgroup/user.slice/id1");
        assert_eq!(place(Some("/x")), "/sys/fs/cgroup/x");
    }

    #[test]
    fn a_mount_of_a_part_of_the_hierarchy() {
        let hierarchy = Hierarchy {
            controllers: vec!["pids".to_owned()],
            mountpoint: "/sys/fs/cgroup/pids".to_owned(),
            root: "/docker/abc".to_owned(),
            own: "/docker/abc/sub".to_owned(),
        };
        assert_eq!(InnerPath::new(None, "x").place(&hierarchy).unwrap(), "/sys/fs/cgroup/pids/sub/x");
        let root = Hierarchy {
            controllers: vec![String::new()],
            mountpoint: "/sys/fs/cgroup".to_owned(),
            root: "/".to_owned(),
            own: "/".to_owned(),
        };
        assert_eq!(InnerPath::new(None, "a").place(&root).unwrap(), "/sys/fs/cgroup/a");
        let outside = Hierarchy { own: "/docker".to_owned(), ..hierarchy };
        assert_eq!(InnerPath::new(None, "x").place(&outside).unwrap(), "/sys/fs/cgroup/x");
    }
}
