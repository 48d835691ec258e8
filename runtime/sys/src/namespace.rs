//! Namespaces: setns(2), unshare(2) and the nsfs ioctls. Least kernel 5.8 (setns on a pidfd).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::call::{check, retry};
use crate::error::SyscallError;

/// `CLONE_NEWTIME`; only clone3 takes it among the clone calls, as it lies in the exit signal's bits.
pub const NEW_TIME: u64 = 0x80;
/// `CLONE_NEWNS`.
pub const NEW_MOUNT: u64 = 0x0002_0000;
/// `CLONE_NEWCGROUP`.
pub const NEW_CGROUP: u64 = 0x0200_0000;
/// `CLONE_NEWUTS`.
pub const NEW_UTS: u64 = 0x0400_0000;
/// `CLONE_NEWIPC`.
pub const NEW_IPC: u64 = 0x0800_0000;
/// `CLONE_NEWUSER`.
pub const NEW_USER: u64 = 0x1000_0000;
/// `CLONE_NEWPID`.
pub const NEW_PID: u64 = 0x2000_0000;
/// `CLONE_NEWNET`.
pub const NEW_NET: u64 = 0x4000_0000;

/// setns(2). `fd` is a namespace file or a pidfd; `kinds` are `CLONE_NEW*` flags.
pub fn join(fd: impl AsFd, kinds: u64) -> Result<(), SyscallError> {
    let raw = fd.as_fd().as_raw_fd();
    #[expect(clippy::cast_possible_truncation, reason = "every CLONE_NEW* flag is below 2^31")]
    // SAFETY: a borrowed fd and an integer.
    check("setns", format_args!("{kinds:#x}"), unsafe { libc::setns(raw, kinds as i32) }.into())?;
    Ok(())
}

/// unshare(2) of the namespaces in `kinds`.
pub fn unshare(kinds: u64) -> Result<(), SyscallError> {
    #[expect(clippy::cast_possible_truncation, reason = "every CLONE_NEW* flag is below 2^31")]
    // SAFETY: no pointers.
    check("unshare", format_args!("{kinds:#x}"), unsafe { libc::unshare(kinds as i32) }.into())?;
    Ok(())
}

/// ioctl_ns(2) NS_GET_NSTYPE: the `CLONE_NEW*` flag of the namespace that `fd` refers to; fails with ENOTTY when the
/// file is no namespace at all.
pub fn kind(fd: impl AsFd) -> Result<u64, SyscallError> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    let kind = retry("ioctl(NS_GET_NSTYPE)", "", || {
        // SAFETY: the ioctl takes no argument; the fd is borrowed.
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) }.into()
    })?;
    Ok(u64::try_from(kind).unwrap_or(0))
}

/// ioctl_ns(2) NS_GET_USERNS: the user namespace that owns the one that `fd` refers to; fails with EPERM where that is none
/// of the caller's nor below it.
pub fn owner(fd: impl AsFd) -> Result<OwnedFd, SyscallError> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    let owner = retry("ioctl(NS_GET_USERNS)", "", || {
        // SAFETY: the ioctl takes no argument; the fd is borrowed.
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_USERNS) }.into()
    })?;
    #[expect(clippy::cast_possible_truncation, reason = "fds fit an int")]
    // SAFETY: a fresh fd of ours, O_CLOEXEC by the ioctl's definition.
    Ok(unsafe { OwnedFd::from_raw_fd(owner as RawFd) })
}

/// sethostname(2).
pub fn set_hostname(name: &str) -> Result<(), SyscallError> {
    // SAFETY: pointer and length describe the live string.
    check("sethostname", name, unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())?;
    Ok(())
}

/// setdomainname(2).
pub fn set_domainname(name: &str) -> Result<(), SyscallError> {
    // SAFETY: pointer and length describe the live string.
    check("setdomainname", name, unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into())?;
    Ok(())
}
