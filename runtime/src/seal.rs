//! The sealed re-exec: create, run, exec and restore go on from an image of this binary that nobody can write to
//! (CVE-2019-5736: a container that reopens `/proc/<pid>/exe` for writing).
//!
//! Not dumpable alone would not do, as an entry point of `#!/proc/self/exe` runs the runtime's file as the container's
//! own. The seal is a detached read-only bind mount of the binary, in no mount namespace at all, so that no container
//! can remount it; where that can't be had (no CAP_SYS_ADMIN), a sealed copy in memory. Costs one execve, about
//! 0.4 ms. Called by `main` before anything else is opened.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use ketch_sys::process::Exec;
use ketch_sys::{SyscallError, memory_file, mount, path, process, stat};
use thiserror::Error;

/// Set for the second life of the process, so that a seal that does not hold ends in an error and not in a loop.
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
    if std::env::var_os(MARK).is_some() {
        return Err(SealError::Unsealed);
    }
    let sealed = match read_only_bind(&exe) {
        Ok(mount) => mount,
        Err(_) => sealed_copy(exe).map_err(SealError::Copy)?,
    };
    Err(SealError::Exec(second_life().replace_process_from(sealed.as_fd())))
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
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .chain([c_string(format!("{MARK}=1").into())])
        .collect();
    Exec::new(CString::from(c"/proc/self/exe"), args, env)
}
