//! The sealed re-exec: create, run, exec and restore go on from an image of this binary that nobody can write to
//! (CVE-2019-5736: a container that reopens `/proc/<pid>/exe` for writing).
//!
//! Not dumpable alone would not do, as an entry point of `#!/proc/self/exe` runs the runtime's file as the container's
//! own. The seal is a detached read-only bind mount of the binary, in no mount namespace at all, so that no container
//! can remount it; where that can't be had (no CAP_SYS_ADMIN), a sealed copy in memory. Costs one execve, about
//! 0.4 ms. Called by `main` before anything else is opened.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use ketch_sys::process::{Exec, Pid};
use ketch_sys::{SyscallError, memory_file, mount, path, process, stat};
use thiserror::Error;

/// Set to this process's pid for its second life, so that a seal that does not hold ends in an error and not in a loop.
/// execve keeps the pid, and whoever inherits the mark (a hook, and a ketch that it runs) has another one.
const MARK: &str = "_KETCH_SEALED";
const SELF: &str = "/proc/self/exe";

/// Why the binary could not be sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// This process's own binary.
    #[error("opening {SELF}")]
    Open(#[source] SyscallError),
    /// Neither form of the seal.
    #[error("unable to create a sealed copy of this binary in memory")]
    Copy(#[source] io::Error),
    /// The second life is not sealed either.
    #[error("this binary is still writable after its sealed re-exec")]
    Unsealed,
    /// execveat(2).
    #[error("executing the sealed binary")]
    Exec(#[source] SyscallError),
}

/// Returns in a process whose binary is sealed; re-executes it with the same arguments and environment if need be.
///
/// # Errors
/// The seal can't be had: nothing may enter a container then.
pub fn ensure() -> Result<(), SealError> {
    let exe = path::open_host(Path::new(SELF), path::READ).map_err(SealError::Open)?;
    if is_sealed(&exe) {
        // The kernel named the process after the descriptor it was executed from.
        let _cosmetic = process::set_name(c"ketch");
        return Ok(());
    }
    if is_marked(std::env::var_os(MARK).as_deref(), process::own_pid()) {
        return Err(SealError::Unsealed);
    }
    let sealed = match read_only_bind(&exe) {
        Ok(mount) => mount,
        Err(_) => sealed_copy(exe).map_err(SealError::Copy)?,
    };
    Err(SealError::Exec(second_life().replace_process_from(sealed.as_fd())))
}

/// Whether `mark` is of this very process.
fn is_marked(mark: Option<&OsStr>, pid: Pid) -> bool {
    mark.is_some_and(|mark| mark == OsStr::new(&pid.to_string()))
}

fn is_sealed(exe: &OwnedFd) -> bool {
    /// statvfs(3).
    const ST_RDONLY: u64 = 1;
    stat::mount_flags(exe).is_ok_and(|flags| flags & ST_RDONLY != 0) || memory_file::is_sealed(exe)
}

fn read_only_bind(exe: &OwnedFd) -> Result<OwnedFd, SyscallError> {
    let detached = mount::clone_tree(exe, mount::Extent::Single)?;
    mount::set_attributes(&detached, mount::Extent::Single, mount::READ_ONLY, 0)?;
    Ok(detached)
}

fn sealed_copy(exe: OwnedFd) -> io::Result<OwnedFd> {
    let mut copy = memory_file::create_executable(c"ketch")?;
    io::copy(&mut File::from(exe), &mut copy)?;
    memory_file::seal(&copy)?;
    // Executing a file that is open for writing is ETXTBSY.
    Ok(File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy)))?.into())
}

fn second_life() -> Exec {
    // Arguments and environment came from execve, so no string holds a NUL.
    let c_string = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
    let args = std::env::args_os().map(c_string).collect();
    let env = std::env::vars_os()
        .filter(|(name, _)| name != MARK)
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .chain([c_string(format!("{MARK}={}", process::own_pid()).into())])
        .collect();
    Exec::new(CString::from(c"/proc/self/exe"), args, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_mark_is_not_ours() {
        assert!(is_marked(Some(OsStr::new("77")), 77));
        for mark in [None, Some("1"), Some("777"), Some("")] {
            assert!(!is_marked(mark.map(OsStr::new), 77), "{mark:?}");
        }
    }
}
