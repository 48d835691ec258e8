//! openat2(2) below a descriptor, for paths that somebody else may change meanwhile. Whoever opens by a name in a container's
//! root, a volume or an image's layer does it by this, and reads what it found by [`open_file`] only.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// The kernel gives up with EAGAIN when anything at all is renamed or mounted on the machine while it resolves a `..`.
const ATTEMPTS: usize = 128;

/// Opens a path below a folder, without inheriting the descriptor; `resolve` says how far names may lead.
///
/// # Errors
/// The kernel's; EAGAIN only after many attempts.
pub(crate) fn openat2(
    folder: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    path.into_with_c_str(|path| {
        for _ in 1..ATTEMPTS {
            match rustix::fs::openat2(&folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                opened => return opened,
            }
        }
        rustix::fs::openat2(&folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    })
}

/// Opens a regular file for reading; `None` for anything else, which is never opened: to open a device is to have it act, a
/// watchdog starts by it and a tape winds back, and whoever owns a container's files makes them under any name. `path` is
/// resolved as by [`openat2`]; `flags` may say that its last component is not followed.
///
/// # Errors
/// The kernel's; nothing is there, or /proc is not.
pub(crate) fn open_file(
    folder: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<Option<File>> {
    let found = openat2(folder, path, flags | OFlags::PATH, resolve)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // The descriptor is of what was looked at, whatever has its name by now. A lease that its owner holds is not waited for.
    let again = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(again, flags, Mode::empty()).map(|file| Some(file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::{Folder, is_root};
    use rustix::fs::{CWD, makedev, mknodat};
    use std::io::Read;

    const BENEATH: ResolveFlags = ResolveFlags::BENEATH;

    /// What opening the name as it is would give.
    fn opened(folder: &File, name: &str) -> Result<OwnedFd> {
        openat2(folder, name, OFlags::RDONLY | OFlags::NONBLOCK, BENEATH)
    }

    #[test]
    fn only_files_are_opened() {
        let folder = Folder::new("resolve");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "content").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
        let top = File::open(folder.path()).unwrap();
        let read = |name: &str, flags| {
            open_file(&top, name, flags, BENEATH).unwrap().map(|mut file| {
                let mut text = String::new();
                let _length = file.read_to_string(&mut text).unwrap();
                text
            })
        };
        assert_eq!(read("file", OFlags::NOFOLLOW).as_deref(), Some("content"));
        assert_eq!(read("link", OFlags::empty()).as_deref(), Some("content"));
        assert_eq!(read("link", OFlags::NOFOLLOW), None);
        assert_eq!(read("folder", OFlags::empty()), None);
        assert_eq!(open_file(&top, "nothing", OFlags::empty(), BENEATH).unwrap_err(), Errno::NOENT);
        // A fifo's writer can be opened without waiting for as long as somebody has it open for reading.
        let writer = || rustix::fs::open(at("fifo"), OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
        assert_eq!(read("fifo", OFlags::empty()), None);
        assert_eq!(writer().unwrap_err(), Errno::NXIO);
        let reader = opened(&top, "fifo").unwrap();
        let _writer = writer().unwrap();
        drop(reader);
    }

    #[test]
    fn a_device_is_never_opened() {
        if !is_root("making devices takes") {
            return;
        }
        let folder = Folder::new("devices");
        let make = |name: &str, kind, device| {
            mknodat(CWD, folder.path().join(name), kind, Mode::from(0o600), device).unwrap();
        };
        // Of no driver: whoever opens it is told so by the kernel, and who does not open it is not.
        make("nobodys", FileType::CharacterDevice, makedev(4095, 1));
        make("block", FileType::BlockDevice, makedev(4095, 1));
        make("null", FileType::CharacterDevice, makedev(1, 3));
        let top = File::open(folder.path()).unwrap();
        for name in ["nobodys", "block"] {
            assert!(opened(&top, name).is_err(), "{name}");
        }
        for name in ["nobodys", "block", "null"] {
            assert!(open_file(&top, name, OFlags::empty(), BENEATH).unwrap().is_none(), "{name}");
        }
    }
}
