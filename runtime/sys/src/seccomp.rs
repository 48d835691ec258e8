//! System call filters: seccomp(2), prctl(2) PR_SET_SECCOMP. Least kernel: 3.17; single flags are newer.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::call::{check, retry};
use crate::error::{Errno, SyscallError};

/// An instruction of classic BPF: `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

const _: () = assert!(
    size_of::<Instruction>() == size_of::<libc::sock_filter>()
        && align_of::<Instruction>() == align_of::<libc::sock_filter>()
);

/// SECCOMP_SET_MODE_FILTER: adds `filter` to those of the calling thread, for good. Without flags it is the older
/// prctl(2), which every seccomp-aware tool knows. The listener's descriptor comes with
/// SECCOMP_FILTER_FLAG_NEW_LISTENER among `flags`. EACCES without both no_new_privs and CAP_SYS_ADMIN, EINVAL for a
/// program or a flag that the kernel refuses.
pub fn set_filter(filter: &[Instruction], flags: u32) -> Result<Option<OwnedFd>, SyscallError> {
    let Ok(len) = u16::try_from(filter.len()) else {
        return Err(SyscallError::new("seccomp", "", Errno::EINVAL));
    };
    // The kernel only reads through the pointer.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    if flags == 0 {
        // SAFETY: `program` and the `len` instructions that it points to live through the call, have the kernel's
        // layout (asserted above), and the kernel copies and checks them.
        let returned =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        check("prctl(PR_SET_SECCOMP)", "", returned.into())?;
        return Ok(None);
    }
    let returned = retry("seccomp", "", || {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) }
    })?;
    if u64::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(returned).map_err(|_| SyscallError::new("seccomp", "", Errno::EBADF))?;
    // SAFETY: with this flag the result is a new descriptor, close-on-exec from birth, that nobody else knows.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows all of `flags` of SECCOMP_SET_MODE_FILTER. Changes nothing: it looks at the flags before it
/// looks at the program, and there is none.
pub fn knows_flags(flags: u32) -> bool {
    // SAFETY: a null program makes the call end in EFAULT at the latest.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    returned < 0 && Errno::last() == Errno::EFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_flags_are_told_from_unknown_ones() {
        assert!(knows_flags(libc::SECCOMP_FILTER_FLAG_LOG as u32));
        assert!(!knows_flags(1 << 30));
    }

    #[test]
    fn an_empty_program_is_refused() {
        assert_eq!(set_filter(&[], 0).unwrap_err().errno, Errno::EINVAL);
    }

    /// Old profiles refuse newer calls; what the runtime itself still has to do under a filter must not need them.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests have threads")]
    fn newer_calls_may_be_refused() {
        const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let refuse = |call: libc::c_long| Instruction { code: 0x15, jt: 0, jf: 1, k: call as u32 };
        let ret = |k| Instruction { code: 0x06, jt: 0, jf: 0, k };
        let number = Instruction { code: 0x20, jt: 0, jf: 0, k: 0 };
        let filter = [
            number,
            refuse(libc::SYS_close_range),
            ret(REFUSED),
            refuse(libc::SYS_faccessat2),
            ret(REFUSED),
            ret(libc::SECCOMP_RET_ALLOW),
        ];
        // A filter is its thread's alone.
        std::thread::spawn(move || {
            let file = std::fs::File::open("/dev/null").unwrap();
            // SAFETY: a duplicate of a live descriptor, owned by nobody; it ends with the test.
            let open = unsafe { libc::dup(std::os::fd::AsRawFd::as_raw_fd(&file)) };
            crate::process::set_no_new_privileges().unwrap();
            set_filter(&filter, 0).unwrap();
            crate::process::close_on_exec_from(open).unwrap();
            // SAFETY: no pointers.
            assert_eq!(unsafe { libc::fcntl(open, libc::F_GETFD) }, libc::FD_CLOEXEC);
            crate::process::may_execute(c"/bin/sh").unwrap();
            assert!(crate::process::may_execute(c"/dev/null").is_err());
        })
        .join()
        .unwrap();
    }
}
