//! Where a container's cgroups are. They are the runtime's; the shim reads them for statistics and OOM kills.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::error::ShimError;

const ROOT: &str = "/sys/fs/cgroup";
/// Only where cgroup v2 is the whole hierarchy.
const UNIFIED_MARK: &str = "/sys/fs/cgroup/cgroup.controllers";

/// A process's cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// v2: one folder.
    Unified(PathBuf),
    /// v1: a folder for each controller.
    Legacy(BTreeMap<String, PathBuf>),
}

impl Cgroup {
    /// The cgroups of a process that is there.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn of(pid: i32) -> Result<Self, ShimError> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = std::fs::read_to_string(&path).map_err(ShimError::file("read", &path))?;
        if Path::new(UNIFIED_MARK).exists() {
            return Ok(Self::parse(&text, true, &BTreeMap::new()));
        }
        Ok(Self::parse(&text, false, &mounted_controllers(Some(&controllers_of(&text)))))
    }

    /// The cgroups of a path, in every hierarchy there is.
    pub(crate) fn at(path: &str) -> Self {
        let path = path.trim_start_matches('/');
        if Path::new(UNIFIED_MARK).exists() {
            return Self::Unified(Path::new(ROOT).join(path));
        }
        let mounts = mounted_controllers(None).into_iter();
        Self::Legacy(mounts.map(|(controller, mount)| (controller, mount.join(path))).collect())
    }

    /// Whether `other` is this one or below it, in any hierarchy.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unified(own), Self::Unified(theirs)) => theirs.starts_with(own),
            (Self::Legacy(own), Self::Legacy(theirs)) => own.iter().any(|(controller, folder)| {
                theirs.get(controller).is_some_and(|theirs| theirs.starts_with(folder))
            }),
            _ => false,
        }
    }

    fn parse(text: &str, unified: bool, mounts: &BTreeMap<String, PathBuf>) -> Self {
        let mut folders = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_number), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if unified && controllers.is_empty() {
                return Self::Unified(Path::new(ROOT).join(path));
            }
            for controller in controllers.split(',') {
                if let Some(mount) = mounts.get(controller) {
                    folders.insert(controller.to_owned(), mount.join(path));
                }
            }
        }
        Self::Legacy(folders)
    }
}

/// The controllers that a process's cgroups name.
fn controllers_of(text: &str) -> BTreeSet<&str> {
    let named = text.lines().filter_map(|line| line.split(':').nth(1));
    named.flat_map(|controllers| controllers.split(',')).filter(|name| !name.is_empty()).collect()
}

/// Where each controller of v1 is mounted; the search ends with the last of `wanted`, if these are all that counts.
fn mounted_controllers(wanted: Option<&BTreeSet<&str>>) -> BTreeMap<String, PathBuf> {
    let Ok(table) = std::fs::File::open("/proc/self/mountinfo") else { return BTreeMap::new() };
    controllers_in(std::io::BufReader::with_capacity(4096, table), wanted)
}

fn controllers_in(mut mountinfo: impl BufRead, wanted: Option<&BTreeSet<&str>>) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut line = Vec::new();
    // The kernel writes no more of the table than is read: these come early, and the mounts of other containers last.
    while wanted.is_none_or(|wanted| !wanted.iter().all(|one| found.contains_key(*one)))
        && mountinfo.read_until(b'\n', &mut line).is_ok_and(|count| count > 0)
    {
        // Another's mount point may have a name that is no text.
        let text = String::from_utf8_lossy(&line);
        if let Some((before, after)) = text.trim_end().split_once(" - ")
            && after.starts_with("cgroup ")
            && let (Some(point), Some(options)) = (before.split(' ').nth(4), after.split(' ').nth(2))
        {
            for option in options.split(',') {
                found.entry(option.to_owned()).or_insert_with(|| point.into());
            }
        }
        line.clear();
    }
    found
}

/// Moves a process to a cgroup of that path, in every hierarchy there is.
///
/// # Errors
/// There is none, or the kernel refuses.
pub(crate) fn join(path: &str, pid: u32) -> Result<(), ShimError> {
    let mut folders: Vec<PathBuf> = match Cgroup::at(path) {
        Cgroup::Unified(folder) => vec![folder],
        Cgroup::Legacy(folders) => folders.into_values().collect(),
    };
    folders.sort();
    folders.dedup();
    folders.retain(|folder| folder.is_dir());
    if folders.is_empty() {
        return Err(ShimError::NotFound(format!("no cgroup has the path {path}")));
    }
    for folder in folders {
        let file = folder.join("cgroup.procs");
        std::fs::write(&file, pid.to_string()).map_err(ShimError::file("join the cgroup", &file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn v1_has_a_folder_for_each_controller() {
        let text = "5:memory:/a/b\n4:cpu,cpuacct:/a/b\n1:name=systemd:/x\n0::/u\n";
        let Cgroup::Legacy(folders) = Cgroup::parse(text, false, &controllers_in(MOUNTS.as_bytes(), None))
        else {
            panic!("v1")
        };
        assert_eq!(folders["memory"], Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(folders["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(folders.len(), 3);
    }

    #[test]
    fn the_search_ends_with_what_is_wanted() {
        let wanted = controllers_of("5:memory:/a/b\n0::/u\n");
        assert_eq!(wanted, BTreeSet::from(["memory"]));
        let found = controllers_in(MOUNTS.as_bytes(), Some(&wanted));
        assert!(found.contains_key("memory") && !found.contains_key("cpu"));
    }

    #[test]
    fn v2_has_one() {
        let cgroup = Cgroup::parse("0::/a/b\n", true, &BTreeMap::new());
        assert_eq!(cgroup, Cgroup::Unified("/sys/fs/cgroup/a/b".into()));
    }

    #[test]
    fn a_cgroup_holds_what_is_below_it() {
        let of = |path: &str| Cgroup::Unified(path.into());
        assert!(of("/c/a").holds(&of("/c/a")) && of("/c/a").holds(&of("/c/a/b")));
        assert!(!of("/c/a").holds(&of("/c/ab")) && !of("/c/a/b").holds(&of("/c/a")));
    }

    #[test]
    fn nonsense_is_no_cgroup() {
        assert_eq!(Cgroup::parse("x\n\n1:2", false, &BTreeMap::new()), Cgroup::Legacy(BTreeMap::new()));
    }
}
