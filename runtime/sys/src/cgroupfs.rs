//! cgroup file systems: directories that are checked to be cgroups, one write(2) per value, and the notifications of
//! v1 (cgroup.event_control) and v2 (inotify(7), poll(2)). cgroups(7). Least kernel 5.6 (openat2).

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::call::{check, retry};
use crate::error::{Errno, Result, SyscallError};
use crate::path::{DIRECTORY, PATH, READ, Resolve, WRITE, open_at, own, with_c_path};
use crate::stat;

/// Which kind of cgroup a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A directory of a cgroup v1 hierarchy.
    V1,
    /// A directory of cgroup2.
    V2,
}

/// openat2(2): a handle on the cgroup directory at an absolute path, reached through no symlink. What is not on a
/// cgroup file system fails with EINVAL.
pub fn open_dir(path: &Path) -> Result<(OwnedFd, Version)> {
    open_checked(path, PATH | DIRECTORY)
}

/// openat2(2): the file at an absolute path, to write to; checked as in [`open_dir`].
pub fn open_file_to_write(path: &Path) -> Result<OwnedFd> {
    open_checked(path, WRITE).map(|(file, _)| file)
}

fn open_checked(path: &Path, flags: i32) -> Result<(OwnedFd, Version)> {
    let opened = with_c_path("openat2", path, |c_path| {
        // SAFETY: open_how is plain integers, for which zero is a value.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
        how.resolve = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
        retry("openat2", path.display(), || {
            // SAFETY: c_path is NUL-terminated and alive, how is alive and its true size is given.
            unsafe {
                libc::syscall(
                    libc::SYS_openat2,
                    libc::AT_FDCWD,
                    c_path.as_ptr(),
                    &raw const how,
                    size_of::<libc::open_how>(),
                )
            }
        })
        .map(own)
    })?;
    match stat::file_system(&opened)? {
        stat::CGROUP1 => Ok((opened, Version::V1)),
        stat::CGROUP2 => Ok((opened, Version::V2)),
        _ => Err(SyscallError::new("open", format!("{} (not a cgroup)", path.display()), Errno::EINVAL)),
    }
}

/// A handle on a directory below a cgroup directory.
pub fn open_sub_dir(dir: impl AsFd, name: &Path) -> Result<OwnedFd> {
    open_at(dir, name, PATH | DIRECTORY, 0, Resolve::BeneathSameMount)
}

/// mkdir(2) at an absolute path of a cgroup file system.
pub fn make_dir(path: &Path) -> Result<()> {
    with_c_path("mkdir", path, |c_path| {
        // SAFETY: c_path is NUL-terminated and alive.
        check("mkdir", path.display(), unsafe { libc::mkdir(c_path.as_ptr(), 0o755) }.into())?;
        Ok(())
    })
}

/// rmdir(2) at an absolute path of a cgroup file system. Never follows a symlink in the last component.
pub fn remove_dir(path: &Path) -> Result<()> {
    with_c_path("rmdir", path, |c_path| {
        // SAFETY: c_path is NUL-terminated and alive.
        retry("rmdir", path.display(), || unsafe { libc::rmdir(c_path.as_ptr()) }.into())?;
        Ok(())
    })
}

/// unlinkat(2) of a directory below a cgroup directory.
pub fn remove_sub_dir(dir: impl AsFd, name: &Path) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("unlinkat", name, |c_name| {
        retry("unlinkat", name.display(), || {
            // SAFETY: dir is borrowed, c_name is NUL-terminated and alive.
            unsafe { libc::unlinkat(raw, c_name.as_ptr(), libc::AT_REMOVEDIR) }.into()
        })?;
        Ok(())
    })
}

/// The names of the directories in a cgroup directory, which are its sub-cgroups.
pub fn sub_dirs(dir: impl AsFd) -> Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStringExt;

    // kernfs counts its sub-directories in the links of a directory, so an empty one needs no listing.
    if stat::status(&dir)?.links <= 2 {
        return Ok(Vec::new());
    }
    let handle = open_at(dir, Path::new("."), READ | DIRECTORY, 0, Resolve::BeneathSameMount)?;
    let failed = |errno| SyscallError::new("getdents64", "", errno);
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(handle).map_err(failed)?.iter() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == Some(nix::dir::Type::Directory) && name != b"." && name != b".." {
            names.push(std::ffi::OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

/// Opens a file of a cgroup directory to write to.
pub fn open_to_write(dir: impl AsFd, file: &str) -> Result<OwnedFd> {
    open_at(dir, Path::new(file), WRITE, 0, Resolve::BeneathSameMount)
}

/// Opens a file of a cgroup directory to read and to poll.
pub fn open_to_read(dir: impl AsFd, file: &str) -> Result<OwnedFd> {
    open_at(dir, Path::new(file), READ, 0, Resolve::BeneathSameMount)
}

/// write(2), once: a cgroup file takes each call as one command. Allocates nothing, also when it fails.
pub fn write(fd: impl AsFd, value: &[u8]) -> Result<()> {
    loop {
        // SAFETY: the fd is borrowed; pointer and length describe the live slice.
        let written = unsafe { libc::write(fd.as_fd().as_raw_fd(), value.as_ptr().cast(), value.len()) };
        if written >= 0 {
            return Ok(());
        }
        if Errno::last() != Errno::EINTR {
            return Err(SyscallError::last("write", ""));
        }
    }
}

/// Opens a file of a cgroup directory and writes one value.
pub fn write_value(dir: impl AsFd, file: &str, value: &str) -> Result<()> {
    write(open_to_write(dir, file)?, value.as_bytes())
}

/// pread(2) of the whole content, whatever was read before.
pub fn read(fd: impl AsFd) -> Result<String> {
    let mut content = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let offset = libc::off_t::try_from(content.len()).unwrap_or(libc::off_t::MAX);
        let length = retry("pread", "", || {
            // SAFETY: the fd is borrowed; pointer and length describe the live array.
            let read = unsafe {
                libc::pread(fd.as_fd().as_raw_fd(), chunk.as_mut_ptr().cast(), chunk.len(), offset)
            };
            read as i64
        })?;
        match usize::try_from(length) {
            Ok(0) | Err(_) => break,
            Ok(length) => content.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Opens a file of a cgroup directory and reads it.
pub fn read_value(dir: impl AsFd, file: &str) -> Result<String> {
    read(open_to_read(dir, file)?)
}

/// poll(2) for a change of a file since it was last read (`cgroup.events`). False when the time is over.
pub fn wait_for_change(fd: impl AsFd, timeout: Duration) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        let mut polled = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: one live pollfd; the fd is borrowed.
        let ready = unsafe { libc::poll(&raw mut polled, 1, i32::try_from(left).unwrap_or(i32::MAX)) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        if Errno::last() != Errno::EINTR {
            return Err(SyscallError::last("poll", ""));
        }
    }
}

/// eventfd(2) that the kernel adds to when the v1 memory cgroup `dir` runs out of memory, and when it is removed.
pub fn notify_of_oom(dir: impl AsFd) -> Result<OwnedFd> {
    let control = open_to_read(&dir, "memory.oom_control")?;
    // SAFETY: no pointers; the result is checked.
    let event = own(check(
        "eventfd",
        "",
        unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into(),
    )?);
    let request = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    write_value(&dir, "cgroup.event_control", &request)?;
    Ok(event)
}

/// inotify(7) that becomes readable when one of the files, given by absolute paths, changes.
pub fn notify_of_changes(files: &[&Path]) -> Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let returned = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    let notify = own(check("inotify_init1", "", returned.into())?);
    for file in files {
        with_c_path("inotify_add_watch", file, |c_path| {
            // SAFETY: notify is live, c_path is NUL-terminated and alive.
            let returned =
                unsafe { libc::inotify_add_watch(notify.as_raw_fd(), c_path.as_ptr(), libc::IN_MODIFY) };
            check("inotify_add_watch", file.display(), returned.into())
        })?;
    }
    Ok(notify)
}

/// Takes what is queued in a descriptor of [`notify_of_oom`] or [`notify_of_changes`], without blocking.
pub fn drain(notify: impl AsFd) -> Result<()> {
    let raw: RawFd = notify.as_fd().as_raw_fd();
    let mut buffer = [0_u8; 4096];
    loop {
        // SAFETY: the fd is borrowed; pointer and length describe the live array.
        let read = unsafe { libc::read(raw, buffer.as_mut_ptr().cast(), buffer.len()) };
        match (read, Errno::last()) {
            (0, _) | (..0, Errno::EAGAIN) => return Ok(()),
            (1.., _) | (..0, Errno::EINTR) => {}
            (..0, _) => return Err(SyscallError::last("read", "")),
        }
    }
}
