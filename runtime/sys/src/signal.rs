//! Signals: signal(7), sigprocmask(2), signalfd(2).
//!
//! Least kernel: any. The runtime takes signals from a descriptor and not by a handler, so no code of its own runs
//! at an arbitrary point; the one handler ends the process and does nothing else. What a process execs must be given the signal state of a fresh process: [`reset`].

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Errno, Result, SyscallError};

/// A child has ended.
pub const CHILD: i32 = libc::SIGCHLD;
/// The terminal has another size.
pub const WINDOW_CHANGE: i32 = libc::SIGWINCH;
/// Urgent data on a socket.
pub const URGENT: i32 = libc::SIGURG;
/// End, and clean up.
pub const TERMINATE: i32 = libc::SIGTERM;
/// Ctrl-C.
pub const INTERRUPT: i32 = libc::SIGINT;
/// The terminal is gone.
pub const HANGUP: i32 = libc::SIGHUP;
/// Ctrl-\.
pub const QUIT: i32 = libc::SIGQUIT;
/// End at once.
pub const KILL: i32 = libc::SIGKILL;

/// The number of a signal's name: `SIGTERM`, `SIGRTMIN+3`. `None` when this architecture has none of that name.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    match name {
        // Second names, which nix does not know.
        "SIGCLD" => return Some(libc::SIGCHLD),
        "SIGIOT" => return Some(libc::SIGIOT),
        "SIGPOLL" => return Some(libc::SIGPOLL),
        _ => {}
    }
    if let Ok(signal) = name.parse::<Signal>() {
        return Some(signal as i32);
    }
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let number = match name.strip_prefix("SIGRTM")? {
        "IN" => first,
        "AX" => last,
        rest => match (rest.strip_prefix("IN+"), rest.strip_prefix("AX-")) {
            (Some(above), _) => first.checked_add(above.parse::<u8>().ok()?.into())?,
            (_, Some(below)) => last.checked_sub(below.parse::<u8>().ok()?.into())?,
            _ => return None,
        },
    };
    (first..=last).contains(&number).then_some(number)
}

/// Every signal that can be blocked, taken from a descriptor from here on.
#[derive(Debug)]
pub struct SignalQueue(SignalFd);

impl SignalQueue {
    /// Blocks every signal of the thread and opens the descriptor that delivers them. A child inherits the mask:
    /// [`reset`] undoes it there.
    pub fn open() -> Result<Self> {
        let all = SigSet::all();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None)
            .map_err(|errno| SyscallError::new("rt_sigprocmask", "", errno))?;
        SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Self)
            .map_err(|errno| SyscallError::new("signalfd4", "", errno))
    }

    /// The next signal's number, `None` when none is pending.
    pub fn next(&self) -> Result<Option<i32>> {
        loop {
            match self.0.read_signal() {
                Ok(info) => {
                    return Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()));
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(SyscallError::new("read", "signalfd", errno)),
            }
        }
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a process has to do before it execs another program: no signal blocked, and `SIGPIPE`, which Rust's start-up
/// ignores, back to its default. Every other disposition is the default already, or is one that the caller set.
pub fn reset() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    unsafe { sigaction(Signal::SIGPIPE, &default) }
        .map_err(|errno| SyscallError::new("rt_sigaction", "SIGPIPE", errno))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|errno| SyscallError::new("rt_sigprocmask", "", errno))
}

/// Makes the signals that ask a process to end do so even in the first process of a pid namespace, where the kernel drops
/// a signal whose action is the default. An execve undoes it.
pub fn exit_when_asked() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(exit_now), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing but call _exit(2), which may be called from a handler (signal-safety(7)).
        unsafe { sigaction(signal, &action) }
            .map_err(|errno| SyscallError::new("rt_sigaction", signal.as_str(), errno))?;
    }
    Ok(())
}

extern "C" fn exit_now(signal: i32) {
    // SAFETY: _exit(2) ends the process without running any code of it.
    unsafe { libc::_exit(128 + signal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_signal_7() {
        for (name, wanted) in [
            ("SIGHUP", Some(1)),
            ("SIGKILL", Some(9)),
            ("SIGTERM", Some(15)),
            ("SIGIOT", Some(6)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX", Some(64)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGRTMIN+31", None),
            ("SIGRTMIN-1", None),
            ("TERM", None),
            ("SIGNONE", None),
        ] {
            assert_eq!(number(name), wanted, "{name}");
        }
    }
}
