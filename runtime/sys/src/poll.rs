//! Waiting for descriptors: poll(2). Least kernel: any.
//!
//! poll and not epoll: the sets are a handful of descriptors that change at every turn, and regular files, which epoll
//! refuses, count as ready here.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use crate::call::retry;
use crate::error::Result;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// There is something to read, or the end.
    Readable,
    /// Something may be written, or nobody reads any more.
    Writable,
}

/// Waits without limit; the answer says for each descriptor whether it is ready (an error and a hangup count: the next
/// read or write will tell).
pub fn wait(waits: &[(BorrowedFd<'_>, Until)]) -> Result<Vec<bool>> {
    wait_until(waits, None)
}

/// [`wait`], but no longer than until `deadline`: then nothing is ready.
pub fn wait_until(waits: &[(BorrowedFd<'_>, Until)], deadline: Option<Instant>) -> Result<Vec<bool>> {
    let polled = waits.iter().map(|(fd, until)| match until {
        Until::Readable => asked(*fd, libc::POLLIN),
        Until::Writable => asked(*fd, libc::POLLOUT),
    });
    poll(polled.collect(), deadline)
}

/// Waits until `readable` is that, or one of the others is told something out of turn (a threshold of a pressure file was
/// exceeded), or the time is over. The answer is in the same order.
pub fn wait_until_told(
    readable: BorrowedFd<'_>,
    urgent: &[BorrowedFd<'_>],
    deadline: Instant,
) -> Result<(bool, Vec<bool>)> {
    let mut polled = vec![asked(readable, libc::POLLIN)];
    polled.extend(urgent.iter().map(|fd| asked(*fd, libc::POLLPRI)));
    let mut ready = poll(polled, Some(deadline))?;
    Ok((ready.remove(0), ready))
}

fn asked(fd: BorrowedFd<'_>, events: i16) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }
}

fn poll(mut polled: Vec<libc::pollfd>, deadline: Option<Instant>) -> Result<Vec<bool>> {
    retry("poll", "", || {
        let milliseconds = deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that the last wait is not a busy loop of zero milliseconds.
            i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        // SAFETY: the pointer and the length describe the live vector; the descriptors are borrowed by the callers.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) }.into()
    })?;
    Ok(polled.iter().map(|entry| entry.revents != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn readiness_is_told_for_each() {
        let (reader, writer) = std::io::pipe().unwrap();
        let both = [(reader.as_fd(), Until::Readable), (writer.as_fd(), Until::Writable)];
        assert_eq!(wait(&both).unwrap(), [false, true]);
        let soon = Instant::now() + Duration::from_millis(1);
        assert_eq!(wait_until(&[(reader.as_fd(), Until::Readable)], Some(soon)).unwrap(), [false]);
        drop(writer);
        assert_eq!(wait(&[(reader.as_fd(), Until::Readable)]).unwrap(), [true]);
    }
}
