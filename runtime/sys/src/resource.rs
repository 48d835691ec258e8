//! Resource limits: prlimit(2).

use crate::call::check;
use crate::error::SyscallError;
use crate::process::Pid;

/// The number of a limit by its name in the runtime-spec (`RLIMIT_NOFILE`), if this kernel's ABI has it.
#[must_use]
pub fn rlimit_number(name: &str) -> Option<u32> {
    let number = match name {
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        _ => return None,
    };
    Some(number)
}

/// prlimit(2): a limit of this process, the one in force and its ceiling.
pub fn rlimit(resource: u32) -> Result<(u64, u64), SyscallError> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live and takes the value; no new one is given.
    check("prlimit", resource, unsafe {
        let none = std::ptr::null::<libc::rlimit64>();
        libc::syscall(libc::SYS_prlimit64, 0, resource, none, std::ptr::from_mut(&mut limit))
    })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// prlimit(2): sets a limit of another process.
pub fn set_rlimit(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<(), SyscallError> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is live; the old value is not asked for.
    check("prlimit", resource, unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            std::ptr::from_ref(&limit),
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })?;
    Ok(())
}
