//! Why a root file system could not be made ready. Texts follow runc's, which callers and users match.

use std::path::PathBuf;

use ketch_sys::SyscallError;
use thiserror::Error;

use crate::plan::mount_flags::MountFlags;

/// A step that failed. The chain of sources ends at the system call.
#[derive(Debug, Error)]
pub enum RootfsError {
    /// The root itself could not be bound or its propagation not be set.
    #[error("error preparing rootfs: {step} {path:?}")]
    Root {
        /// What was being done.
        step: &'static str,
        /// To which path.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// A mount failed.
    #[error("error mounting {from:?} to rootfs at {destination:?}")]
    Mount {
        /// The mount's source, as the bundle has it.
        from: String,
        /// Its destination, as the bundle has it.
        destination: String,
        /// Why.
        #[source]
        reason: Box<MountError>,
    },
    /// `/dev` could not be filled.
    #[error("configuring container /dev: {step}{}{path}", if path.is_empty() { "" } else { " " })]
    Dev {
        /// What was being made.
        step: &'static str,
        /// Its path, or nothing.
        path: String,
        /// The refused call.
        source: SyscallError,
    },
    /// The process could not be shut into the root.
    #[error("error jailing process inside rootfs: {step}")]
    Enter {
        /// What was being done.
        step: &'static str,
        /// The refused call.
        source: SyscallError,
    },
    /// The propagation of the new `/` could not be set.
    #[error("unable to apply root propagation flags")]
    Propagation(#[source] SyscallError),
    /// A standard stream that is the host's `/dev/null` could not be replaced by the container's.
    #[error("error reopening /dev/null inside container")]
    DevNull(#[source] SyscallError),
    /// The working directory could not be made.
    #[error("mkdir {path:?}")]
    WorkingDir {
        /// The directory.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// A tmpfs or `/dev` could not be made read-only.
    #[error("unable to mount {0} as readonly")]
    ReadonlyMount(String, #[source] SyscallError),
    /// `/` could not be made read-only.
    #[error("error setting rootfs as readonly")]
    ReadonlyRoot(#[source] SyscallError),
    /// A path could not be made read-only.
    #[error("can't make {path:?} read-only")]
    ReadonlyPath {
        /// The path.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// A path could not be hidden.
    #[error("can't mask {what} {path:?}")]
    MaskedPath {
        /// "path" or "dir".
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// `/dev/null`, which hides files, is not what it should be (CVE-2025-31133).
    #[error("can't mask paths: container's /dev/null is invalid")]
    MaskSource(#[source] SyscallError),
    /// The terminal could not be made.
    #[error("{step}")]
    Console {
        /// What was being done.
        step: &'static str,
        /// The refused call.
        source: SyscallError,
    },
    /// The terminal's master is no `/dev/pts/ptmx` of a devpts.
    #[error("verify ptmx handle: {0}")]
    FalsePtmx(&'static str),
    /// The working directory is not below the root (CVE-2024-21626).
    #[error(
        "current working directory is outside of container mount namespace root -- possible container breakout detected"
    )]
    OutsideWorkingDir,
    /// The kernel would not tell the working directory.
    #[error("failed to verify if current working directory is safe")]
    UnknownWorkingDir(#[source] SyscallError),
}

/// Why one mount failed.
#[derive(Debug, Error)]
pub enum MountError {
    /// The destination could not be found or made.
    #[error("create mountpoint for {destination} mount")]
    Target {
        /// The destination, as the bundle has it.
        destination: String,
        /// The refused call.
        source: SyscallError,
    },
    /// proc and sysfs are mounted on a real directory only (CVE-2023-27561, CVE-2023-28642).
    #[error("filesystem {0:?} must be mounted on ordinary directory")]
    NotOrdinaryDirectory(&'static str),
    /// The destination is the root.
    #[error("mountpoint {destination:?} is on the top of rootfs {root:?}")]
    OnRoot {
        /// The destination, as the bundle has it.
        destination: String,
        /// The root.
        root: PathBuf,
    },
    /// Something other than procfs would cover `/proc` (CVE-2019-16884).
    #[error("{0:?} cannot be mounted because it is not of type proc")]
    NotProc(PathBuf),
    /// Something would cover a part of `/proc`.
    #[error("{0:?} cannot be mounted because it is inside /proc")]
    InsideProc(PathBuf),
    /// The parent could not open the source of a bind.
    #[error("mountfd request for {from:?} failed: {reason}")]
    Request {
        /// The source.
        from: String,
        /// What the parent answered.
        reason: String,
    },
    /// A flag that the host's mount locks was asked to be cleared.
    #[error("cannot clear locked flags {flags}")]
    LockedFlags {
        /// The flags.
        flags: MountFlags,
        /// The refused call.
        source: SyscallError,
    },
    /// An access time flag differs from the one that the host's mount locks.
    #[error("cannot change locked atime flags {flags}")]
    LockedAtime {
        /// The flags that are locked.
        flags: MountFlags,
        /// The refused call.
        source: SyscallError,
    },
    /// The contents below a tmpfs could not be copied into it.
    #[error("tmpcopyup: failed to copy {path}")]
    CopyUp {
        /// What was being copied.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// The kernel has no mount of this description for us.
    #[error("mount {0}")]
    Refused(Box<MountDescription>, #[source] SyscallError),
}

/// A mount as runc's messages describe it.
#[derive(Debug)]
pub struct MountDescription {
    /// The source.
    pub from: String,
    /// The destination.
    pub to: String,
    /// The flags.
    pub flags: MountFlags,
    /// Options of the file system.
    pub data: String,
}

impl std::fmt::Display for MountDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.from.is_empty() {
            write!(f, "src={}, ", self.from)?;
        }
        write!(f, "dst={}", self.to)?;
        if !self.flags.is_empty() {
            write!(f, ", flags={}", self.flags)?;
        }
        if !self.data.is_empty() {
            write!(f, ", data={}", self.data)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_leave_out_what_is_empty() {
        let mut mount = MountDescription {
            from: String::from("proc"),
            to: String::from("/proc"),
            flags: MountFlags(0xe),
            data: String::from("subset=pid"),
        };
        assert_eq!(
            mount.to_string(),
            "src=proc, dst=/proc, flags=MS_NOSUID|MS_NODEV|MS_NOEXEC, data=subset=pid"
        );
        mount.from.clear();
        mount.flags = MountFlags::NONE;
        mount.data.clear();
        assert_eq!(mount.to_string(), "dst=/proc");
    }
}
