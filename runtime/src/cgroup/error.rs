//! What can go wrong with a container's cgroups.
//!
//! The texts that runc's callers or tests match are those of runc.

use std::path::PathBuf;

use ketch_sys::{Errno, SyscallError};

use super::systemd::SystemdError;
use crate::plan::cgroup::DeviceRuleError;

/// A failure of [`super::Cgroup`].
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("container's cgroup is not empty: {count} process(es) found")]
    NotEmpty { count: usize },
    #[error("container's cgroup unexpectedly frozen")]
    Frozen,
    #[error("cgroup not exist")]
    NotExist,
    #[error("cannot make cgroup {}", path.display())]
    Make { path: PathBuf, source: SyscallError },
    #[error("rootless needs no limits + no cgrouppath when no permission is granted for cgroups")]
    RootlessLimits { source: Box<CgroupError> },
    #[error("cannot enter cgroupv2 {path:?} with domain controllers -- it is in {state} mode")]
    Threaded { path: PathBuf, state: String },
    #[error("cannot open cgroup {}", path.display())]
    Open { path: PathBuf, source: SyscallError },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: SyscallError },
    #[error("failed to write {value:?} to {}", path.display())]
    Write { path: PathBuf, value: String, source: SyscallError },
    #[error("{} holds {content:?}", path.display())]
    Unexpected { path: PathBuf, content: String },
    #[error("cannot list cgroup {}", path.display())]
    List { path: PathBuf, source: SyscallError },
    #[error("unable to remove container's cgroup {}", path.display())]
    Remove { path: PathBuf, source: SyscallError },

    #[error("cannot set {controller} limit: container could not join or create cgroup")]
    NoGroup { controller: String },
    #[error("cannot set {controller} limit")]
    Limit { controller: String, source: Box<CgroupError> },
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse { limit: String, usage: String, peak: String },
    #[error("rejecting memory limit {limit} <= usage {usage}")]
    MemoryBelowUsage { limit: u64, usage: u64 },
    #[error("rejecting memory+swap limit {limit} <= usage {usage}")]
    SwapBelowUsage { limit: u64, usage: u64 },
    #[error("unified resource {file:?} must be in the form CONTROLLER.PARAMETER")]
    UnifiedForm { file: String },
    #[error("unified resource {file:?} can't be set: controller {controller:?} not available")]
    UnifiedController { file: String, controller: String },
    #[error("unable to set unified resource {file:?}")]
    Unified { file: String, source: Box<CgroupError> },
    #[error("can't load program")]
    LoadProgram { source: SyscallError },
    #[error("cannot {action} device program of cgroup {}", path.display())]
    DeviceProgram { action: &'static str, path: PathBuf, source: SyscallError },
    #[error(transparent)]
    Systemd(Box<SystemdError>),
    #[error("cannot give {} to user {owner}", path.display())]
    Give { path: PathBuf, owner: u32, source: std::io::Error },
    #[error(transparent)]
    DeviceRules(#[from] DeviceRuleError),

    #[error("bad sub cgroup path: {path}")]
    BadSubCgroup { path: String },
    #[error("unknown controller {controller} in SubCgroupPaths")]
    UnknownController { controller: String },
    /// Pid 0 is what a process writes to join by itself.
    #[error("error adding pid 0 to cgroups: {}", path.display())]
    Join { path: PathBuf, source: SyscallError },
    #[error("can't open cgroup")]
    OpenForExec { source: Box<CgroupError> },

    #[error("cannot toggle freezer: cgroups not configured for container")]
    NoFreezer,
    #[error("freezer not supported")]
    FreezerUnsupported { source: Box<CgroupError> },
    #[error("unable to freeze")]
    Freeze,
    #[error("timeout of {seconds}s reached waiting for the cgroup to freeze")]
    FreezeTimeout { seconds: u64 },
    #[error("cannot wait for {} to change", path.display())]
    Wait { path: PathBuf, source: SyscallError },
    #[error("cannot kill process {pid}")]
    Kill { pid: i32, source: SyscallError },
    #[error("memory controller missing")]
    NoMemoryController,
    #[error("cannot watch {} for OOM events", path.display())]
    WatchOom { path: PathBuf, source: SyscallError },
    #[error("unable to parse {}: malformed line: {line}", path.display())]
    Malformed { path: PathBuf, line: String },
}

impl From<SystemdError> for CgroupError {
    fn from(error: SystemdError) -> Self {
        CgroupError::Systemd(Box::new(error))
    }
}

impl CgroupError {
    /// The kernel's answer at the end of the chain.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        let mut error: &(dyn std::error::Error + 'static) = self;
        loop {
            if let Some(syscall) = error.downcast_ref::<SyscallError>() {
                return Some(syscall.errno);
            }
            error = error.source()?;
        }
    }

    /// Whether a file or directory is not there (any more).
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV))
    }

    /// Whether the caller lacks the right.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES | Errno::EROFS))
    }
}
