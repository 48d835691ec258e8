//! Moving bytes between descriptors: splice(2), fcntl(2). Least kernel: any.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

use crate::call::{check, retry};
use crate::error::{Errno, Result, SyscallError};
use crate::path::own;

/// Makes reads and writes of `fd` fail with EAGAIN where they would wait. Holds for every descriptor that shares its
/// open file: never do this to one that was inherited.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let failed = |errno| SyscallError::new("fcntl", "O_NONBLOCK", errno);
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL).map_err(failed)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok(())
}

/// Whether descriptor `fd` is there and was handed over by whoever executed this program: all that the program itself
/// opens is close-on-exec.
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of the number's slot in the table of descriptors, and fails for an empty slot; nothing
    // is done to the file behind it.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// A copy of descriptor `fd`, which whoever executed this program has handed over and named by its number. The original is
/// closed at the next execve.
///
/// # Errors
/// `EBADF` when it is not there.
pub fn copy_inherited(fd: RawFd) -> Result<OwnedFd> {
    let detail = fd;
    // SAFETY: a number that is no descriptor is an error, and the file behind one that is gets another descriptor.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    let copy = check("fcntl(F_DUPFD)", detail, copy.into()).map(own)?;
    // SAFETY: only the flag of the number's slot is set.
    check("fcntl(F_SETFD)", detail, unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    Ok(copy)
}

/// Whether `fd` was opened for writing.
pub fn is_writable(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags.is_ok_and(|flags| flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR))
}

/// Whether `fd` is a pipe.
pub fn is_pipe(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

/// read(2) of up to `most` bytes, which take the place of what `bytes` held: how many, 0 at the end. Of the memory only as
/// much is touched as there is to read.
pub fn read(from: impl AsFd, bytes: &mut Vec<u8>, most: usize) -> Result<usize> {
    bytes.clear();
    bytes.reserve_exact(most);
    let room = bytes.spare_capacity_mut();
    let (start, length) = (room.as_mut_ptr(), room.len().min(most));
    let count = retry("read", "", || {
        // SAFETY: the descriptor is borrowed, and the kernel writes no more than `length` bytes to the room that is there.
        let count = unsafe { libc::read(from.as_fd().as_raw_fd(), start.cast(), length) };
        i64::try_from(count).unwrap_or(i64::MAX)
    })?;
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: the kernel has just written that many bytes to the beginning of the vector's room.
    unsafe { bytes.set_len(count) };
    Ok(count)
}

/// Moves up to `length` bytes from one pipe to another without copying them: how many, 0 at the end, `None` when one of
/// the two is not ready.
pub fn splice(from: impl AsFd, to: impl AsFd, length: usize) -> Result<Option<usize>> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let moved = retry("splice", "", || {
        // SAFETY: both descriptors are borrowed; null offsets stand for the pipes' own positions.
        let moved =
            unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), length, flags) };
        i64::try_from(moved).unwrap_or(i64::MAX)
    });
    match moved {
        Ok(moved) => Ok(usize::try_from(moved).ok()),
        Err(error) if error.errno == Errno::EAGAIN => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn pipes_are_told_apart_and_spliced() {
        let ((from, mut source), (mut sink, to)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        assert!(is_pipe(&from));
        assert!(!is_pipe(std::fs::File::open("/dev/null").unwrap()));
        assert_eq!(splice(&from, &to, 100).unwrap(), None);
        source.write_all(b"hello").unwrap();
        assert_eq!(splice(&from, &to, 100).unwrap(), Some(5));
        drop((source, to.try_clone().unwrap()));
        assert_eq!(splice(&from, &to, 100).unwrap(), Some(0));
        drop(to);
        let mut text = String::new();
        sink.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn own_descriptors_are_not_inherited() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(!is_inherited(reader.as_raw_fd()));
        assert!(!is_inherited(-1));
        assert!(is_inherited(2));
    }

    #[test]
    fn handed_over_descriptors_are_copied() {
        let (reader, writer) = std::io::pipe().unwrap();
        let copy = copy_inherited(writer.as_raw_fd()).unwrap();
        assert!(is_writable(&copy) && !is_writable(&reader));
        assert_ne!(copy.as_raw_fd(), writer.as_raw_fd());
        assert_eq!(copy_inherited(-1).unwrap_err().errno, Errno::EBADF);
    }

    #[test]
    fn nonblocking_reads_do_not_wait() {
        let (mut reader, _writer) = std::io::pipe().unwrap();
        set_nonblocking(&reader).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}
