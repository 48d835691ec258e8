//! The loopback interface of a new network namespace: netdevice(7).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::call::check;
use crate::error::SyscallError;

/// Sets `lo` up, as every container with a network namespace of its own finds it.
pub fn bring_up_loopback() -> Result<(), SyscallError> {
    // SAFETY: integers only; the result is checked before it is owned.
    let raw = check(
        "socket",
        "",
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    #[expect(clippy::cast_possible_truncation, reason = "descriptors are ints")]
    // SAFETY: a fresh descriptor of ours.
    let socket = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    // SAFETY: an all-zero ifreq is valid plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    #[expect(clippy::cast_possible_truncation, reason = "IFF_UP and IFF_RUNNING are below 2^15")]
    {
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    }
    // SAFETY: `request` is live; SIOCSIFFLAGS reads its name and flags.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request)) };
    check("ioctl(SIOCSIFFLAGS)", "lo", set.into())?;
    Ok(())
}
