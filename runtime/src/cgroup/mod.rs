//! A container's cgroups: makes, joins, limits, freezes, reads, kills and removes them.
//!
//! The executor of [`crate::plan::cgroup`]: what to write where is decided there. Works by directory descriptors that
//! are checked to be cgroups, opened when first needed. Called by `container`; nothing here knows a container's state.
//!
//! A process enters by being born there: `clone3` with [`Cgroup::clone_into_fd`] for cgroup2, and for v1 the
//! single-threaded child writes itself into each hierarchy ([`Cgroup::child_join`]). Neither pays the RCU grace period
//! that a write to `cgroup.procs` waits for. Where systemd makes the cgroups ([`systemd`]), it moves the process in.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::{Errno, SyscallError, cgroupfs};

use crate::plan::cgroup::{CgroupMode, Join};
use systemd::unit::Unit;

mod create;
mod devices;
mod error;
mod freezer;
mod join;
mod limits;
mod oom;
mod pressure;
mod processes;
mod remove;
pub mod stats;
pub mod systemd;

pub use error::CgroupError;
pub use freezer::FreezerState;
pub use join::{CgroupDir, ExecJoin, JoinFile, SubCgroups, SubCgroupsError};
pub use oom::{OomEvent, OomWatch};
pub use pressure::PressureWatch;
pub(crate) use processes::kill;

/// Who makes a container's cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The runtime.
    Cgroupfs,
    /// systemd: `--systemd-cgroup`.
    Systemd,
}

/// The cgroups of one container.
#[derive(Debug)]
pub struct Cgroup {
    mode: CgroupMode,
    groups: Vec<Group>,
    /// Where systemd makes them.
    unit: Option<Unit>,
}

/// One directory in one hierarchy.
#[derive(Debug)]
struct Group {
    controllers: Vec<String>,
    path: PathBuf,
    join: Join,
    dir: OnceCell<OwnedFd>,
}

impl Group {
    fn new(controllers: Vec<String>, path: impl Into<PathBuf>, join: Join) -> Group {
        Group { controllers, path: path.into(), join, dir: OnceCell::new() }
    }

    /// The directory, opened now if it was not before.
    fn dir(&self) -> Result<BorrowedFd<'_>, CgroupError> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir.as_fd());
        }
        let (dir, _) = cgroupfs::open_dir(&self.path)
            .map_err(|source| CgroupError::Open { path: self.path.clone(), source })?;
        Ok(self.dir.get_or_init(|| dir).as_fd())
    }

    fn read(&self, file: &str) -> Result<String, CgroupError> {
        let failed = |source| CgroupError::Read { path: self.path.join(file), source };
        cgroupfs::read_value(self.dir()?, file).map_err(failed)
    }

    /// [`Group::read`], with nothing for a file that the kernel doesn't have.
    fn read_if_present(&self, file: &str) -> Result<Option<String>, CgroupError> {
        match self.read(file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        cgroupfs::write_value(self.dir()?, file, value).map_err(|source| CgroupError::Write {
            path: self.path.join(file),
            value: value.to_owned(),
            source,
        })
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

impl Cgroup {
    /// The cgroups of a container that exists, by the paths of [`Cgroup::paths`]. Opens nothing yet: a directory that
    /// has vanished shows when it is needed.
    #[must_use]
    pub fn open(paths: &BTreeMap<String, String>) -> Cgroup {
        let has_v2 = paths.contains_key("");
        let mode = match (has_v2, paths.len()) {
            (true, 1) => CgroupMode::Unified,
            (true, _) => CgroupMode::Hybrid,
            (false, _) => CgroupMode::Legacy,
        };
        let mut groups: Vec<Group> = Vec::new();
        for (controller, path) in paths {
            match groups.iter_mut().find(|group| group.path == Path::new(path)) {
                Some(group) => group.controllers.push(controller.clone()),
                None => {
                    let named = controller == "misc" || controller.starts_with("name=");
                    let beside = controller.is_empty() && mode == CgroupMode::Hybrid;
                    let join = if named || beside { Join::IfPossible } else { Join::Required };
                    groups.push(Group::new(vec![controller.clone()], path, join));
                }
            }
        }
        Cgroup { mode, groups, unit: None }
    }

    /// How the host mounts its cgroups, as far as these paths show it.
    #[must_use]
    pub fn mode(&self) -> CgroupMode {
        self.mode
    }

    /// Controller name -> directory, for state.json; cgroup2 has the empty name.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, String> {
        let entries = self.groups.iter().flat_map(|group| {
            group.controllers.iter().map(|name| (name.clone(), group.path.to_string_lossy().into_owned()))
        });
        entries.collect()
    }

    /// The directory of a v1 controller; on a unified host always the one that there is.
    #[must_use]
    pub fn path(&self, controller: &str) -> Option<&Path> {
        self.group(controller).map(|group| group.path.as_path())
    }

    /// Whether the directory that processes are counted by still exists.
    pub fn exists(&self) -> Result<bool, CgroupError> {
        let Some(group) = self.processes_group() else { return Ok(false) };
        match cgroupfs::open_dir(&group.path) {
            Ok(_) => Ok(true),
            // EINVAL: there is something else by now.
            Err(source) if is_gone(&source) || source.errno == Errno::EINVAL => Ok(false),
            Err(source) => Err(CgroupError::Open { path: group.path.clone(), source }),
        }
    }

    fn group(&self, controller: &str) -> Option<&Group> {
        match self.mode {
            CgroupMode::Unified => self.groups.first(),
            CgroupMode::Legacy | CgroupMode::Hybrid => self.groups.iter().find(|group| group.has(controller)),
        }
    }

    /// The group whose processes stand for the container's: on v1 that of the device controller, as in runc.
    fn processes_group(&self) -> Option<&Group> {
        self.group("devices").filter(|_| !self.is_planned())
    }

    /// Whether the cgroups are still to be made, by [`Cgroup::enter`].
    fn is_planned(&self) -> bool {
        self.unit.as_ref().is_some_and(Unit::is_planned)
    }

    /// cgroup2, on a unified or hybrid host.
    fn v2_group(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.has(""))
    }
}

/// What a removed cgroup looks like: its path is gone, or its files answer ENODEV.
fn is_gone(error: &SyscallError) -> bool {
    matches!(error.errno, Errno::ENOENT | Errno::ENODEV)
}
