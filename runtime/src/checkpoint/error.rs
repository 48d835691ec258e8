//! Why a checkpoint or a restore failed.

use std::io;
use std::path::PathBuf;

use ketch_sys::SyscallError;
use thiserror::Error;

use super::images::Folder;
use super::message::Kind;
use super::wire::WireError;
use crate::cgroup::CgroupError;
use crate::plan::criu::CriuFlagError;
use crate::plan::criu::bounds::Excess;
use crate::plan::criu::verdict::Violation;
use crate::process::environment::LookupError;

/// What went wrong, from the search for criu to its last word.
#[derive(Debug, Error)]
pub enum CriuError {
    /// It is not installed.
    #[error("checkpoint and restore need the program criu")]
    Missing(#[source] LookupError),
    /// It is older than what is relied on.
    #[error("CRIU version {found} must be {least} or higher")]
    TooOld {
        /// As it says.
        found: String,
        /// As needed.
        least: String,
    },
    /// It, or the kernel, can't do what is asked for.
    #[error("criu is missing features: {0}")]
    MissingFeatures(String),
    /// A flag.
    #[error(transparent)]
    Flag(#[from] CriuFlagError),
    /// A system call on the way.
    #[error("{step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A file or folder.
    #[error("{action} {path}", path = path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A folder of images that nobody's checkpoint has made so.
    #[error("{path} is no usable checkpoint: {reason}", path = path.display())]
    Images {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// `--parent-path`.
    #[error("{}", .0.as_deref().map_or_else(
        || "--parent-path must be relative".to_owned(),
        |reason| format!("invalid --parent-path: {reason}")
    ))]
    ParentPath(Option<String>),
    /// `--status-fd`.
    #[error("invalid --status-fd argument {number}: {reason}")]
    StatusFd {
        /// As given.
        number: i32,
        /// What is wrong.
        reason: String,
    },
    /// A mount point whose name criu could not take apart again.
    #[error("the mount point {0:?} has a name that criu can't be told")]
    MountPoint(PathBuf),
    /// The process that becomes criu could not be made ready.
    #[error("preparing the restore: {0}")]
    Preparation(String),
    /// criu says something that makes no sense.
    #[error("unable to parse criu's answer")]
    Answer(#[from] WireError),
    /// criu answers another question.
    #[error("unexpected answer of criu: type {0}")]
    Unexpected(Kind),
    /// criu is gone without an answer.
    #[error("criu ended before it was done ({status})")]
    Ended {
        /// How it ended.
        status: String,
    },
    /// criu could not do it. The first words are matched by callers.
    #[error("criu failed: type {kind} errno {errno}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })]
    Failed {
        /// What it was at.
        kind: Kind,
        /// Its error number, 0 for none.
        errno: i32,
        /// Its first error.
        message: String,
    },
    /// The same, with what criu's log says.
    #[error("{failure}\nlog file: {log}{}", lines.iter().map(|line| format!("\n{line}")).collect::<String>(),
        failure = crate::error::chain(failure.as_ref()), log = log.display())]
    Logged {
        /// What criu said.
        failure: Box<CriuError>,
        /// The log.
        log: PathBuf,
        /// Its last errors.
        lines: Vec<String>,
    },
    /// The restored container is not the configured one.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// A restored process has more rights than the configured ones.
    #[error("process {pid} of the restored container {excess}")]
    Excess {
        /// The process, as the host numbers it.
        pid: i32,
        /// What it has.
        excess: Excess,
    },
    /// criu would have let the processes run before they were looked at.
    #[error("criu says nothing before it lets the restored processes run")]
    Unseen,
    /// Cgroups.
    #[error("unable to apply cgroup configuration")]
    Cgroup(#[from] CgroupError),
    /// A step of the caller's in between.
    #[error(transparent)]
    Caller(Box<dyn std::error::Error + Send + Sync>),
}

impl CriuError {
    /// A file's error.
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// The same, with what criu's log in `folder` says, where criu is who failed.
    pub(super) fn with_log(self, folder: &Folder, name: &str) -> Self {
        let of_criu =
            matches!(self, Self::Failed { .. } | Self::Ended { .. } | Self::Answer(_) | Self::Unexpected(_));
        if !of_criu {
            return self;
        }
        Self::Logged { failure: Box::new(self), log: folder.log_path(name), lines: folder.last_errors(name) }
    }
}

/// Wraps a system call's failure in the name of the step.
pub(super) fn step(step: &'static str) -> impl FnOnce(SyscallError) -> CriuError {
    move |source| CriuError::Step { step, source }
}
