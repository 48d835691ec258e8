//! What stands between the C library and a program's own first line, in place of the standard library's start-up.
//!
//! poll(2), signal(7). That start-up also finds out where the main thread's stack ends, by reading /proc/self/maps, and
//! puts up an alternative stack and handlers to tell of an overflow: 15 system calls and 60 µs of a start of 4 ms, for a
//! message. An overflow ends in SIGSEGV by the guard page without it.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal};

/// Makes `fn() -> u8` the program, its answer the exit code. For the main file of a binary with `#![no_main]`.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        // SAFETY: the C library calls this symbol, once, and nothing else of its name is linked.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            $crate::program::run($run)
        }
    };
}

/// Prepares the process, runs the program and exits with its answer; what is buffered for standard output is written.
pub fn run(program: fn() -> u8) -> ! {
    fill_standard_streams();
    // A peer that is gone is an error of the write that finds out, not the end of a half-done container.
    // SAFETY: ignoring runs no code of ours.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    std::process::exit(i32::from(program()))
}

/// Opens /dev/null where the caller has closed a standard stream: the next file opened would become that stream.
fn fill_standard_streams() {
    loop {
        // SAFETY: only asked about, and only in this call; that one may not be open is the question.
        let streams = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
        let mut asked = streams.each_ref().map(|stream| PollFd::new(stream.as_fd(), PollFlags::empty()));
        match poll(&mut asked, PollTimeout::ZERO) {
            Err(nix::errno::Errno::EINTR) => continue,
            // Nothing can be known, so nothing can be mended: what fails will say so.
            Err(_) => return,
            Ok(0) => return,
            Ok(_) => {}
        }
        let closed =
            |stream: &PollFd<'_>| stream.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL));
        for _ in asked.iter().filter(|stream| closed(stream)) {
            // The lowest free number, so these are taken in order.
            if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
                let inherited = null.into_raw_fd();
                // SAFETY: a descriptor that this call has just opened and owns.
                unsafe { libc::fcntl(inherited, libc::F_SETFD, 0) };
            }
        }
        return;
    }
}
