//! What the shim needs that no crate offers safely: descriptors to wait for ([`WatchedFd`]), what a pidfd says about a
//! process that has ended (ioctl_pidfd(2), PIDFD_GET_INFO, from Linux 6.15 on: the status of a container that the shim has
//! taken over and that is not its child), real-time signals, user namespaces and mounts that show owners through them
//! ([`map_owners`]), and the pages of its own program ([`release_program`]).

mod program;
mod users;
mod watched;

use std::os::fd::AsFd;

pub use program::release_program;
pub use users::{enter_new_user_namespace, map_owners, owner_of_namespace};
pub use watched::WatchedFd;

use rustix::io;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::process::Signal;

/// The signal of that number, 1 to 64.
pub fn signal(number: u32) -> Option<Signal> {
    let number = i32::try_from(number).ok().filter(|number| (1..=64).contains(number))?;
    // SAFETY: a `Signal` must not be zero and should be one that the C library does not reserve: that matters to handlers
    // within this process, and this one is only ever sent to another, for which every number from 1 to 64 is one.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

/// `struct pidfd_info` in its first size, which every kernel with the call knows.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const INFO_EXIT: u64 = 1 << 3;
const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);

/// The wait status of the process behind `pidfd`, once its parent has reaped it; `None` before.
///
/// # Errors
/// `ESRCH` or `ENOTTY` where the kernel keeps no status (before 6.15, or a pidfd that was opened after the reaping).
pub fn exit_status(pidfd: impl AsFd) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the opcode is PIDFD_GET_INFO of `struct pidfd_info` with 64 bytes, which `PidfdInfo` is field by field; the
    // kernel reads and writes at most the size that the opcode carries, inside `info`, which outlives the call.
    unsafe {
        let update = Updater::<GET_INFO, PidfdInfo>::new(&mut info);
        ioctl(pidfd, update)?;
    }
    Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests: a failure ends the test")]
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn signals_have_numbers() {
        assert_eq!(signal(9), Some(Signal::KILL));
        assert_eq!(signal(64).map(|signal| signal.as_raw()), Some(64));
        assert_eq!((signal(0), signal(65)), (None, None));
    }

    #[test]
    fn the_opcode_is_the_kernels() {
        assert_eq!(GET_INFO, 0xc040_ff0b);
        assert_eq!(size_of::<PidfdInfo>(), 64);
    }

    #[test]
    fn a_reaped_child_has_a_status_or_the_kernel_says_that_it_keeps_none() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        match exit_status(&pidfd) {
            Ok(status) => assert_eq!(status, Some(7 << 8)),
            Err(error) => assert!([io::Errno::SRCH, io::Errno::NOTTY].contains(&error), "{error}"),
        }
    }
}
