//! Scheduling of a process: sched_setattr(2), sched_setaffinity(2), ioprio_set(2), set_mempolicy(2), personality(2).

use crate::call::check;
use crate::error::SyscallError;
use crate::process::Pid;

/// What sched_setattr(2) takes; times are in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the normal policies, -20 to 19.
    pub nice: i32,
    /// For the real-time policies, 1 to 99.
    pub priority: u32,
    /// For SCHED_DEADLINE.
    pub runtime: u64,
    /// For SCHED_DEADLINE.
    pub deadline: u64,
    /// For SCHED_DEADLINE.
    pub period: u64,
}

/// SCHED_DEADLINE, a policy under which no process may make another one.
pub const DEADLINE: u32 = 6;

/// sched_setattr(2); 0 is this process.
pub fn set_scheduler(pid: Pid, attributes: &SchedulerAttributes) -> Result<(), SyscallError> {
    #[repr(C)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attr = SchedAttr {
        // SCHED_ATTR_SIZE_VER0: all fields up to the period.
        size: 48,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    };
    // SAFETY: `attr` is live and says its own size.
    check("sched_setattr", "", unsafe {
        libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::from_ref(&attr), 0)
    })?;
    Ok(())
}

/// sched_setaffinity(2): `mask` has bit n of byte n/8 for each CPU n.
pub fn set_affinity(pid: Pid, mask: &[u8]) -> Result<(), SyscallError> {
    // The kernel reads whole words.
    let mut words = vec![0_u64; mask.len().div_ceil(8).max(1)];
    for (word, bytes) in words.iter_mut().zip(mask.chunks(8)) {
        let mut buffer = [0_u8; 8];
        buffer[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(buffer);
    }
    // SAFETY: pointer and length describe the live vector.
    check("sched_setaffinity", pid, unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid, words.len() * 8, words.as_ptr())
    })?;
    Ok(())
}

/// ioprio_set(2) of this process. `class` is `IOPRIO_CLASS_*` (1 real-time, 2 best-effort, 3 idle), `priority` 0 to 7.
pub fn set_io_priority(class: u32, priority: u32) -> Result<(), SyscallError> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = (class << IOPRIO_CLASS_SHIFT) | priority;
    // SAFETY: integers only.
    check("ioprio_set", "", unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })?;
    Ok(())
}

/// set_mempolicy(2): `mode` with its flags, `nodes` as bit n for each NUMA node n.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), SyscallError> {
    // The kernel takes one bit less than `maxnode` says (set_mempolicy(2), BUGS): 1 is none, and 0 is refused.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: pointer and bit count describe the live slice.
    check("set_mempolicy", "", unsafe {
        libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits)
    })?;
    Ok(())
}

/// personality(2).
pub fn set_personality(domain: u32) -> Result<(), SyscallError> {
    // SAFETY: integers only.
    check("personality", format_args!("{domain:#x}"), unsafe {
        libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain))
    })?;
    Ok(())
}
