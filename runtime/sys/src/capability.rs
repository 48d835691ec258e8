//! Capability sets: capset(2) and the bounding, ambient and keep-capabilities prctl(2)s. Sets are bit masks, bit n for
//! capability number n; nothing here allocates. Least kernel 4.3 (ambient).

use crate::call::check;
use crate::error::{Errno, SyscallError};
use crate::process::prctl;

/// The three sets that capset(2) writes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// What permission checks look at.
    pub effective: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What survives an execve of a file with inheritable capabilities.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets in two 32-bit halves.
const VERSION_3: u32 = 0x2008_0522;

/// capset(2) for this process.
pub fn set(sets: CapabilitySets) -> Result<(), SyscallError> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| {
        #[expect(clippy::cast_possible_truncation, reason = "the other half is in the other word")]
        let word = |set: u64| (set >> shift) as u32;
        Data {
            effective: word(sets.effective),
            permitted: word(sets.permitted),
            inheritable: word(sets.inheritable),
        }
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data words, all live.
    check("capset", "", unsafe {
        libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr())
    })?;
    Ok(())
}

/// capget(2) of this process.
pub fn current() -> Result<CapabilitySets, SyscallError> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and writes two data words, all live.
    check("capget", "", unsafe {
        libc::syscall(libc::SYS_capget, std::ptr::from_ref(&header), data.as_mut_ptr())
    })?;
    let join = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    Ok(CapabilitySets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Drops from the bounding set what is not in `keep`, up to the kernel's last capability.
pub fn limit_bounding_set(keep: u64) -> Result<(), SyscallError> {
    for number in 0..64_u32 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match prctl("prctl(PR_CAPBSET_DROP)", libc::PR_CAPBSET_DROP, number.into()) {
            Ok(()) => {}
            // Numbers past the kernel's last capability.
            Err(error) if error.errno == Errno::EINVAL => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the ambient set exactly `wanted`; gives back what the kernel refused to raise.
pub fn set_ambient(wanted: u64) -> Result<u64, SyscallError> {
    // SAFETY: integers only.
    let cleared = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    check("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", "", cleared.into())?;
    let mut refused = 0;
    for number in (0..64_u64).filter(|number| wanted & (1 << number) != 0) {
        // SAFETY: integers only.
        let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0) };
        if raised < 0 {
            refused |= 1 << number;
        }
    }
    Ok(refused)
}

/// prctl(2) PR_SET_KEEPCAPS: whether the permitted set survives a change of user.
pub fn set_keep(keep: bool) -> Result<(), SyscallError> {
    prctl("prctl(PR_SET_KEEPCAPS)", libc::PR_SET_KEEPCAPS, keep.into())
}
