//! User and group ids: setresuid(2), setresgid(2), setgroups(2), getauxval(3). Raw calls, as the process is single-threaded.

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

/// The effective user that this program was executed as (getauxval(3) `AT_EUID`): what the kernel has told already costs
/// no call.
#[must_use]
pub fn effective_uid() -> u32 {
    told_at_start(libc::AT_EUID)
}

/// The same of its effective group (`AT_EGID`).
#[must_use]
pub fn effective_gid() -> u32 {
    told_at_start(libc::AT_EGID)
}

fn told_at_start(what: libc::c_ulong) -> u32 {
    // SAFETY: takes and gives an integer.
    let id = unsafe { libc::getauxval(what) };
    // The kernel writes an id of 32 bits there.
    u32::try_from(id).unwrap_or(u32::MAX)
}
