//! What is mounted in this namespace, by the kernel's table. A mistake here could make a removal go through a mount: names are
//! bytes, and a table that can't be read is an error, never an empty one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change};

/// All mount points, in the order of their mounting.
///
/// # Errors
/// The table can't be read.
pub(crate) fn points() -> io::Result<Vec<PathBuf>> {
    // Of this thread: one that has made itself a namespace sees its own.
    let table = fs::read("/proc/thread-self/mountinfo")?;
    let lines = table.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescaped).collect())
}

/// Whether something is mounted at a path.
///
/// # Errors
/// The table can't be read.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(points()?.contains(&path))
}

/// Gives this thread, which must be one of its own (`on_a_thread`), a mount namespace that ends with it. What is mounted there
/// stays there, and what the host unmounts is not held.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn own_namespace() -> rustix::io::Result<()> {
    #[expect(
        deprecated,
        reason = "unsafe for CLONE_FILES and the like only; a thread of its own has one namespace more"
    )]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
}

/// Takes everything away that is mounted at and below a folder; what is busy goes with its last user.
///
/// # Errors
/// The table can't be read, or a mount can't be taken away.
pub(crate) fn unmount_all(folder: &Path) -> io::Result<()> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    for point in points()?.iter().rev().filter(|point| point.starts_with(&folder)) {
        let flags = UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(point, flags)
            .or_else(|_| rustix::mount::unmount(point, flags | UnmountFlags::DETACH))?;
    }
    Ok(())
}

/// Takes away what is mounted at a path, with nothing mounted below it; nothing is read. That there is nothing is well.
///
/// # Errors
/// It is busy, for one.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The kernel writes blank, tab, newline and backslash as octal numbers (proc_pid_mountinfo(5)).
fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let number = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match number {
            Some(byte) => {
                path.push(byte);
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_are_bytes() {
        let of = |text: &[u8]| unescaped(text).into_os_string();
        assert_eq!(of(b"/a\\040b\\134\\012"), OsStr::new("/a b\\\n"));
        assert_eq!(of(b"/\xff\\04"), OsStr::from_bytes(b"/\xff\\04"));
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
