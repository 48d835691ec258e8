//! Signals: signal(7), sigprocmask(2), signalfd(2).
//!
//! Least kernel: any. The runtime takes signals from a descriptor and not by a handler, so no code of its own runs
//! at an arbitrary point; the handlers that there are end the process, or do nothing at all. What a process execs must be
//! given the signal state of a fresh process: [`reset`].

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// What a process has to do before it execs another program: every signal's action the default, and none blocked. An
/// execve keeps what is ignored and what is blocked, so a program would otherwise get what the runtime's caller ignores
/// (`nohup`), the `SIGPIPE` that Rust's start-up does, and the mask of [`SignalQueue`].
pub fn reset() -> Result<()> {
    // The kernel's own struct, no longer than this on any architecture. The C library's function refuses the two signals
    // that the C library uses, and whoever starts the runtime may ignore these as well.
    let default = [0_usize; 8];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `default` is live, and all zeros mean the default action with no flags, which runs no code of this
        // process; the old action is not asked for; 8 is the size of the kernel's set of signals.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<usize>(),
                8_usize,
            )
        };
        // SIGKILL and SIGSTOP have no other action.
        if returned < 0 && Errno::last() != Errno::EINVAL {
            return Err(SyscallError::last("rt_sigaction", ""));
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|errno| SyscallError::new("rt_sigprocmask", "", errno))
}

/// Has `command`'s process [`reset`] its signals before it executes the program.
pub fn reset_in(command: &mut Command) -> &mut Command {
    // SAFETY: what runs between fork and execve may be called from a handler (signal-safety(7)): sigaction(2) and
    // sigprocmask(2), on values of the stack. An error has no detail that would be allocated, and is reduced to its number.
    unsafe {
        command.pre_exec(|| reset().map_err(|error| std::io::Error::from_raw_os_error(error.raw_os_error())))
    }
}

/// Has the kernel tell of children that end, and keep their status until it is waited for, as is the default. Whoever
/// started this process may have left it with `SIGCHLD` ignored, and then the kernel does neither (waitpid(2), NOTES).
pub fn keep_ended_children() -> Result<()> {
    act(Signal::SIGCHLD, SigHandler::SigDfl)
}

/// Makes a write to a pipe without readers fail and do nothing else, until the next execve: unlike what is ignored, a
/// handler does not outlive that, so the program gets the default without a system call that its filter may refuse.
pub fn survive_broken_pipes() -> Result<()> {
    act(Signal::SIGPIPE, SigHandler::Handler(do_nothing))
}

fn act(signal: Signal, handler: SigHandler) -> Result<()> {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: what is given is the default or (by a test) to ignore, which run no code of this process, or a handler of this
    // file; those call nothing but _exit(2), which may be called from a handler (signal-safety(7)).
    unsafe { sigaction(signal, &action) }
        .map(drop)
        .map_err(|errno| SyscallError::new("rt_sigaction", signal.as_str(), errno))
}

/// Makes the signals that ask a process to end do so even in the first process of a pid namespace, where the kernel drops
/// a signal whose action is the default. An execve undoes it.
pub fn exit_when_asked() -> Result<()> {
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM]
        .into_iter()
        .try_for_each(|signal| act(signal, SigHandler::Handler(exit_now)))
}

extern "C" fn do_nothing(_: i32) {}

extern "C" fn exit_now(signal: i32) {
    // SAFETY: _exit(2) ends the process without running any code of it.
    unsafe { libc::_exit(128 + signal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_starts_with_fresh_signals() {
        act(Signal::SIGUSR2, SigHandler::SigIgn).unwrap();
        // The mask is the thread's own.
        let status = std::thread::Builder::new().spawn(|| {
            let _blocked = SignalQueue::open().unwrap();
            let mut command = Command::new("grep");
            reset_in(command.args(["-E", "^Sig(Blk|Ign)", "/proc/self/status"])).output().unwrap()
        });
        let text = String::from_utf8(status.unwrap().join().unwrap().stdout).unwrap();
        let none = "0000000000000000";
        assert!(text.contains(&format!("SigBlk:\t{none}\nSigIgn:\t{none}\n")), "{text}");
    }

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
