//! Sealed files in memory: memfd_create(2), fcntl(2) F_ADD_SEALS. Least kernel 3.17.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::call::check;
use crate::error::SyscallError;

const ALL_SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// The kernel refuses with EBUSY when somebody has held a page of the file for the 150 ms that it waits itself (mm/memfd.c), as who ages
/// or moves memory does; seen once in some ten thousand containers.
const TRIES: u32 = 8;

/// An empty file that may be executed and sealed.
pub fn create_executable(name: &std::ffi::CStr) -> Result<File, SyscallError> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a live NUL-terminated string.
    let mut fd = unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_EXEC) };
    if fd < 0 {
        // Before Linux 6.3 there is no MFD_EXEC, and every memfd may be executed.
        // SAFETY: as above.
        fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    }
    check("memfd_create", "", fd.into())?;
    // SAFETY: a fresh descriptor of ours.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Forbids every later change of the file's bytes. Nobody may have it mapped to be written.
pub fn seal(file: impl AsFd) -> Result<(), SyscallError> {
    for _ in 1..TRIES {
        match add_seals(&file) {
            Err(error) if error.raw_os_error() == libc::EBUSY => {}
            other => return other,
        }
    }
    add_seals(&file)
}

fn add_seals(file: &impl AsFd) -> Result<(), SyscallError> {
    // SAFETY: integers only; the fd is borrowed.
    let sealed = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_ADD_SEALS, ALL_SEALS) };
    check("fcntl(F_ADD_SEALS)", "", sealed.into())?;
    Ok(())
}

/// Whether every seal is on.
#[must_use]
pub fn is_sealed(file: impl AsFd) -> bool {
    // SAFETY: integers only; the fd is borrowed.
    let seals = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & ALL_SEALS == ALL_SEALS
}
