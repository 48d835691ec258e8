//! User, groups, capabilities and working directory of the calling process, in the one order that works: bounding set,
//! keep-capabilities, groups, user, working directory, the capability sets last.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use ketch_sys::capability::{self, CapabilitySets};
use ketch_sys::credential;
use ketch_sys::{Errno, SyscallError};
use ketch_sys::{path, process};
use thiserror::Error;

use crate::plan::capability::CapabilityPlan;
use crate::plan::process::{ProcessPlan, Supplementary, UserPlan};
use crate::procfs::ProcFs;

/// A step that the kernel refused.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The bounding set.
    #[error("unable to apply bounding set")]
    Bounding(#[source] SyscallError),
    /// PR_SET_KEEPCAPS.
    #[error("unable to set keep caps")]
    KeepCapabilities(#[source] SyscallError),
    /// setgroups, setgid or setuid.
    #[error("unable to setup user")]
    User(#[source] SyscallError),
    /// An id that the user namespace does not have.
    #[error("unable to setup user: cannot {call} to unmapped {kind} {id} in user namespace")]
    Unmapped {
        /// The call.
        call: &'static str,
        /// `uid` or `gid`.
        kind: &'static str,
        /// As configured.
        id: u32,
    },
    /// The owner of the standard streams.
    #[error("unable to setup user: unable to change the owner of standard stream {fd}")]
    StandardStream {
        /// 0, 1 or 2.
        fd: i32,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The working directory.
    #[error("chdir to cwd ({cwd:?}) set in config.json failed: {}", ketch_sys::error::errno_text(error.errno))]
    WorkingDirectory {
        /// As configured.
        cwd: String,
        /// The kernel's answer, whose words are in the text.
        error: SyscallError,
    },
    /// The working directory is outside of the container (CVE-2024-21626).
    #[error(
        "current working directory is outside of container mount namespace root -- possible container breakout detected"
    )]
    Outside,
    /// getcwd(2).
    #[error("failed to verify if current working directory is safe")]
    Unverified(#[source] SyscallError),
    /// capset(2) or the ambient set.
    #[error("unable to apply caps")]
    Capabilities(#[source] SyscallError),
}

/// Becomes the planned user. Called after the root is changed, as late as the plan's seccomp order allows. `procfs` is one
/// that shows this process, where the mounted one does not.
///
/// # Errors
/// The step that failed.
pub fn assume(plan: &ProcessPlan, procfs: Option<&ProcFs>) -> Result<(), IdentityError> {
    // A directory may be open to the runtime's user only, or (a chowned volume) to the container's user only.
    let entered_early = match enter(&plan.cwd) {
        Ok(()) => true,
        Err(IdentityError::WorkingDirectory { error, .. })
            if error.errno == Errno::EACCES || error.errno == Errno::EPERM =>
        {
            false
        }
        Err(error) => return Err(error),
    };
    if let Some(capabilities) = &plan.capabilities {
        capability::limit_bounding_set(capabilities.bounding.0).map_err(IdentityError::Bounding)?;
        capability::set_keep(true).map_err(IdentityError::KeepCapabilities)?;
    }
    become_user(&plan.user, procfs)?;
    if !entered_early {
        enter(&plan.cwd)?;
    }
    verify_inside()?;
    if let Some(capabilities) = &plan.capabilities {
        capability::set_keep(false).map_err(IdentityError::KeepCapabilities)?;
        apply_sets(capabilities)?;
    }
    Ok(())
}

fn enter(cwd: &str) -> Result<(), IdentityError> {
    if cwd.is_empty() {
        return Ok(());
    }
    let path = CString::new(cwd).unwrap_or_default();
    process::change_dir(&path).map_err(|error| IdentityError::WorkingDirectory { cwd: cwd.to_owned(), error })
}

/// A directory reached through a leaked descriptor is not below the root: the kernel then says "(unreachable)".
fn verify_inside() -> Result<(), IdentityError> {
    match process::current_dir() {
        Ok(path) if path.first() == Some(&b'/') => Ok(()),
        Ok(_) => Err(IdentityError::Outside),
        Err(error) if error.errno == Errno::ENOENT => Err(IdentityError::Outside),
        Err(error) => Err(IdentityError::Unverified(error)),
    }
}

fn become_user(user: &UserPlan, procfs: Option<&ProcFs>) -> Result<(), IdentityError> {
    own_standard_streams(user.uid)?;
    if user.supplementary == Supplementary::Planned {
        match credential::set_groups(&user.additional_gids) {
            // A user namespace that was mapped without privilege denies setgroups(2). As in runc, its processes go
            // without the groups.
            Err(error) if error.errno == Errno::EPERM && groups_are_denied(procfs) => {}
            other => other.map_err(IdentityError::User)?,
        }
    }
    credential::set_gid(user.gid).map_err(|error| match error.errno {
        Errno::EINVAL => IdentityError::Unmapped { call: "setgid", kind: "gid", id: user.gid },
        _ => IdentityError::User(error),
    })?;
    credential::set_uid(user.uid).map_err(|error| match error.errno {
        Errno::EINVAL => IdentityError::Unmapped { call: "setuid", kind: "uid", id: user.uid },
        _ => IdentityError::User(error),
    })?;
    if let Some(umask) = user.umask {
        process::set_umask(umask);
    }
    Ok(())
}

/// Whether this process's user namespace denies setgroups(2) to everybody (user_namespaces(7)). Only asked once the kernel has
/// refused: who lacks the right for another reason would keep the runtime's groups. Whoever covers the file with another
/// text loses groups by it.
pub(crate) fn groups_are_denied(procfs: Option<&ProcFs>) -> bool {
    let text = match procfs {
        Some(procfs) => procfs.open_self("setgroups", path::READ).ok().and_then(|file| {
            let mut text = String::new();
            File::from(file).read_to_string(&mut text).ok().map(|_| text)
        }),
        None => std::fs::read_to_string("/proc/self/setgroups").ok(),
    };
    text.is_some_and(|text| text.trim() == "deny")
}

/// Lets the user open /dev/std* again. Streams that are shared with the host (its /dev/null, other people's files in a
/// user namespace) keep their owner.
fn own_standard_streams(uid: u32) -> Result<(), IdentityError> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    /// /dev/null: mem(4).
    const NULL_DEVICE: u64 = 0x103;
    let streams = [duplicate(std::io::stdin()), duplicate(std::io::stdout()), duplicate(std::io::stderr())];
    for (fd, stream) in (0..).zip(streams) {
        let failed = |source| IdentityError::StandardStream { fd, source };
        let file = match stream {
            Ok(file) => file,
            // A closed stream needs no owner; and the container's filter may forbid to look.
            Err(error) if matches!(errno_of(&error), Some(Errno::EBADF | Errno::EPERM | Errno::ENOSYS)) => {
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(error) if matches!(errno_of(&error), Some(Errno::EPERM | Errno::ENOSYS)) => continue,
            Err(error) => return Err(failed(error)),
        };
        let is_null = metadata.file_type().is_char_device() && metadata.rdev() == NULL_DEVICE;
        if metadata.uid() == uid || is_null {
            continue;
        }
        match std::os::unix::fs::fchown(&file, Some(uid), None) {
            Ok(()) => {}
            // Not ours to give: an unmapped owner, a read-only or foreign file system.
            Err(error) if matches!(errno_of(&error), Some(Errno::EINVAL | Errno::EPERM | Errno::EROFS)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn duplicate(stream: impl AsFd) -> std::io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

fn errno_of(error: &std::io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

fn apply_sets(plan: &CapabilityPlan) -> Result<(), IdentityError> {
    let sets = CapabilitySets {
        effective: plan.effective.0,
        permitted: plan.permitted.0,
        inheritable: plan.inheritable.0,
    };
    capability::set(sets).map_err(IdentityError::Capabilities)?;
    // Ambient capabilities that are not also permitted and inheritable can't be raised; runc ignores them.
    capability::set_ambient(plan.ambient.0).map_err(IdentityError::Capabilities)?;
    Ok(())
}
