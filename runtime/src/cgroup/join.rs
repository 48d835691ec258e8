//! How a process gets into a container's cgroups: at creation, and for `exec`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use ketch_sys::process::Pid;
use ketch_sys::{SyscallError, cgroupfs};

use super::{Cgroup, CgroupError, Group};
use crate::plan::cgroup::{CgroupMode, Join};

/// A v1 hierarchy's `tasks` file, opened by the parent for the child.
#[derive(Debug)]
pub struct JoinFile {
    file: OwnedFd,
    join: Join,
}

impl JoinFile {
    /// Moves the calling thread, which must be its process's only one, into the cgroup. Allocates nothing.
    pub fn join(&self) -> Result<(), SyscallError> {
        match cgroupfs::write(&self.file, b"0") {
            Err(error) if self.join == Join::Required => Err(error),
            _ => Ok(()),
        }
    }

    /// The file itself, for callers that keep a list of the descriptors that a child may hold.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A cgroup2 directory to be born in.
#[derive(Debug)]
pub struct CgroupDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl CgroupDir {
    fn open(path: PathBuf) -> Result<Self, CgroupError> {
        match cgroupfs::open_dir(&path) {
            Ok((dir, _)) => Ok(Self { path, dir }),
            Err(source) => Err(CgroupError::Open { path, source }),
        }
    }

    /// What it means that clone3 refused it.
    #[must_use]
    pub fn refused(&self, source: SyscallError) -> CgroupError {
        CgroupError::Join { path: self.path.clone(), source }
    }
}

impl AsFd for CgroupDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// How a process that is executed in a running container enters its cgroups.
#[derive(Debug)]
pub struct ExecJoin {
    /// For clone3's CLONE_INTO_CGROUP. If clone3 refuses with EBUSY and no sub-cgroup was asked for, the container has
    /// enabled domain controllers below, and [`Cgroup::init_dir`] is the place to be born in.
    pub clone_into: Option<CgroupDir>,
    /// For the child to join by itself, in order.
    pub files: Vec<JoinFile>,
}

impl ExecJoin {
    /// No cgroup: what is left to a rootless container that has none, or may not put a process in it.
    #[must_use]
    pub fn none() -> Self {
        Self { clone_into: None, files: Vec::new() }
    }
}

/// The sub-cgroups of `exec --cgroup`: controller -> path below the container's cgroup; the empty name stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubCgroups(BTreeMap<String, String>);

/// A `--cgroup` argument that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubCgroupsError {
    #[error("invalid --cgroup argument: {argument} (empty <controller> prefix)")]
    EmptyController { argument: String },
    #[error("invalid --cgroup argument(s): controller {controller} specified multiple times")]
    RepeatedController { controller: String },
    #[error("invalid --cgroup argument: {argument} (missing <controller>: prefix)")]
    MissingController { argument: String },
}

impl SubCgroups {
    /// Reads the arguments: one path, or any number of `controller[,controller...]:path`.
    pub fn parse(arguments: &[impl AsRef<str>]) -> Result<SubCgroups, SubCgroupsError> {
        let mut paths = BTreeMap::new();
        for argument in arguments {
            let argument = argument.as_ref();
            let Some((controllers, path)) = argument.split_once(':') else {
                if arguments.len() != 1 {
                    return Err(SubCgroupsError::MissingController { argument: argument.to_owned() });
                }
                paths.insert(String::new(), argument.to_owned());
                continue;
            };
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return Err(SubCgroupsError::EmptyController { argument: argument.to_owned() });
                }
                if paths.insert(controller.to_owned(), path.to_owned()).is_some() {
                    return Err(SubCgroupsError::RepeatedController { controller: controller.to_owned() });
                }
            }
        }
        Ok(SubCgroups(paths))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sub-cgroup for a hierarchy, if one is asked for.
    fn of(&self, group: &Group) -> Option<&str> {
        let named = group.controllers.iter().find_map(|controller| self.0.get(controller));
        named.or_else(|| self.0.get("")).map(String::as_str)
    }
}

impl Cgroup {
    /// The cgroup2 directory for clone3's CLONE_INTO_CGROUP: the container's cgroup on a unified host, the one beside
    /// v1 on a hybrid host, where a refusal is no error: then the child is born without.
    #[must_use]
    pub fn clone_into_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2_group().filter(|_| !self.is_planned()).and_then(|group| group.dir().ok())
    }

    /// What it means that clone3 refused the cgroup: an error on a unified host, nothing beside v1.
    #[must_use]
    pub fn refused(&self, source: SyscallError) -> Option<CgroupError> {
        let group = self.v2_group().filter(|_| self.mode == CgroupMode::Unified)?;
        Some(CgroupError::Join { path: group.path.clone(), source })
    }

    /// What the child writes itself into, in order; nothing on a unified host, nor where systemd moves it.
    pub fn child_join(&self) -> Result<Vec<JoinFile>, CgroupError> {
        if self.is_planned() {
            return Ok(Vec::new());
        }
        self.join_files(&SubCgroups::default())
    }

    /// Opens what a process needs to enter the cgroups of a running container. `init_cgroup` gives the text of
    /// `/proc/<init>/cgroup`; it is asked for on a unified host where the configured cgroup is gone because init moved
    /// itself elsewhere.
    pub fn exec_join(
        &self,
        sub: &SubCgroups,
        init_cgroup: impl FnOnce() -> Option<String>,
    ) -> Result<ExecJoin, CgroupError> {
        let Some(group) = self.groups.first().filter(|_| self.mode == CgroupMode::Unified) else {
            for controller in sub.0.keys().filter(|controller| !controller.is_empty()) {
                if self.group(controller).is_none() {
                    return Err(CgroupError::UnknownController { controller: controller.clone() });
                }
            }
            let beside = self.v2_group().map(|group| below(group, sub.of(group))).transpose()?;
            let clone_into = beside.and_then(|path| CgroupDir::open(path).ok());
            return Ok(ExecJoin { clone_into, files: self.join_files(sub)? });
        };
        if let Some(controller) = sub.0.keys().find(|controller| !controller.is_empty()) {
            return Err(CgroupError::UnknownController { controller: controller.clone() });
        }
        let wanted = sub.of(group);
        let clone_into = match CgroupDir::open(below(group, wanted)?) {
            Ok(dir) => dir,
            Err(error) => {
                let elsewhere = wanted.is_none() && error.is_absence();
                match elsewhere.then(init_cgroup).flatten().and_then(|text| init_path(&text)) {
                    Some(path) => CgroupDir::open(path)?,
                    None => return Err(CgroupError::OpenForExec { source: Box::new(error) }),
                }
            }
        };
        Ok(ExecJoin { clone_into: Some(clone_into), files: Vec::new() })
    }

    /// Whether a process that could not be born in the cgroup can be moved there by [`Cgroup::adopt`].
    #[must_use]
    pub fn can_adopt(&self) -> bool {
        self.unit.is_some() && self.mode == CgroupMode::Unified
    }

    /// Has systemd move a process into the unit that it made: a user may have the right to do so in the whole of the way
    /// between two cgroups only together with it.
    pub fn adopt(&self, sub: &SubCgroups, pid: Pid) -> Result<(), CgroupError> {
        let group = self.v2_group().ok_or(CgroupError::NotExist)?;
        let place = below(group, sub.of(group))?;
        let place = place.strip_prefix(&group.path).unwrap_or(&place);
        self.attach_to_unit(&format!("/{}", place.display()), pid)
    }

    /// The cgroup2 directory that a container's init is in now, by the text of its `/proc/<pid>/cgroup`. Only on a
    /// unified host.
    pub fn init_dir(&self, proc_cgroup: &str) -> Option<Result<CgroupDir, CgroupError>> {
        let path = init_path(proc_cgroup).filter(|_| self.mode == CgroupMode::Unified)?;
        Some(CgroupDir::open(path))
    }

    fn join_files(&self, sub: &SubCgroups) -> Result<Vec<JoinFile>, CgroupError> {
        let mut files = Vec::with_capacity(self.groups.len());
        for group in self.groups.iter().filter(|group| !group.has("")) {
            let tasks = below(group, sub.of(group))?.join("tasks");
            match cgroupfs::open_file_to_write(&tasks) {
                Ok(file) => files.push(JoinFile { file, join: group.join }),
                Err(_) if group.join == Join::IfPossible => {}
                Err(source) => return Err(CgroupError::Join { path: tasks, source }),
            }
        }
        Ok(files)
    }
}

/// The directory at `sub` below the group's own. Components are counted, so that a sibling whose name merely starts
/// alike (`/a/b` and `/a/bc`) is no way out; there are no symlinks in a cgroup file system.
fn below(group: &Group, sub: Option<&str>) -> Result<PathBuf, CgroupError> {
    let sub = sub.unwrap_or_default();
    let mut parts: Vec<&str> = Vec::new();
    for part in sub.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return Err(CgroupError::BadSubCgroup { path: sub.to_owned() }),
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.iter().fold(group.path.clone(), |path, part| path.join(part)))
}

fn init_path(proc_cgroup: &str) -> Option<PathBuf> {
    let own = proc_cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(PathBuf::from(format!("/sys/fs/cgroup{}", own.trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Vec<(String, String)>, String> {
        let sub = SubCgroups::parse(arguments).map_err(|error| error.to_string())?;
        Ok(sub.0.into_iter().collect())
    }

    #[test]
    fn arguments_of_exec() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(parse(&[]), Ok(vec![]));
        assert_eq!(parse(&["sub"]), Ok(vec![pair("", "sub")]));
        assert_eq!(
            parse(&["cpu,cpuacct:x", "memory:y:z"]),
            Ok(vec![pair("cpu", "x"), pair("cpuacct", "x"), pair("memory", "y:z")])
        );
        assert_eq!(parse(&[":x"]).unwrap_err(), "invalid --cgroup argument: :x (empty <controller> prefix)");
        assert_eq!(
            parse(&["cpu:x", "cpu:y"]).unwrap_err(),
            "invalid --cgroup argument(s): controller cpu specified multiple times"
        );
        assert_eq!(
            parse(&["cpu:x", "y"]).unwrap_err(),
            "invalid --cgroup argument: y (missing <controller>: prefix)"
        );
    }

    #[test]
    fn no_way_out_of_the_container() {
        let group = Group::new(vec!["cpu".to_owned()], "/nonexistent/a/b", Join::Required);
        for path in ["..", "../bc", "x/../../bc", "/..", "./../b"] {
            assert!(matches!(below(&group, Some(path)), Err(CgroupError::BadSubCgroup { .. })), "{path}");
        }
        for (path, expected) in [("/", ""), ("x/../y", "/y"), ("..x", "/..x"), ("/x//./z/", "/x/z")] {
            let found = below(&group, Some(path)).unwrap();
            assert_eq!(found, Path::new(&format!("/nonexistent/a/b{expected}")), "{path}");
        }
    }

    #[test]
    fn where_init_is() {
        assert_eq!(init_path("1:cpu:/x\n0::/a/b\n"), Some(PathBuf::from("/sys/fs/cgroup/a/b")));
        assert_eq!(init_path("0::/\n"), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(init_path("1:cpu:/x\n"), None);
    }
}
