//! User and group ids: setresuid(2), setresgid(2), setgroups(2). Raw calls, as the process is single-threaded.

use crate::call::check;
use crate::error::SyscallError;

/// setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<(), SyscallError> {
    // SAFETY: pointer and length describe the live slice.
    check("setgroups", "", unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// setresgid(2) of all three ids.
pub fn set_gid(gid: u32) -> Result<(), SyscallError> {
    // SAFETY: integers only.
    check("setgid", gid, unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    Ok(())
}

/// setresuid(2) of all three ids.
pub fn set_uid(uid: u32) -> Result<(), SyscallError> {
    // SAFETY: integers only.
    check("setuid", uid, unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// geteuid(2).
#[must_use]
pub fn effective_uid() -> u32 {
    // SAFETY: no arguments, never fails.
    unsafe { libc::geteuid() }
}

/// getegid(2).
#[must_use]
pub fn effective_gid() -> u32 {
    // SAFETY: no arguments, never fails.
    unsafe { libc::getegid() }
}
