//! Names below a directory descriptor: openat2(2), openat(2), mkdirat(2), mknodat(2), symlinkat(2), readlinkat(2),
//! unlinkat(2), fchownat(2), chdir(2) by descriptor, chroot(2). Least kernel 5.6 (openat2).
//!
//! No function here follows a symlink in its last component unless its [`Resolve`] says so.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::NixPath;

use crate::call::{check, retry};
use crate::error::{Errno, Result, SyscallError};

/// `O_PATH`: a handle on the inode that can neither read nor write.
pub const PATH: i32 = libc::O_PATH;
/// `O_RDONLY`.
pub const READ: i32 = libc::O_RDONLY;
/// `O_WRONLY`.
pub const WRITE: i32 = libc::O_WRONLY;
/// `O_RDWR`.
pub const READ_WRITE: i32 = libc::O_RDWR;
/// `O_DIRECTORY`.
pub const DIRECTORY: i32 = libc::O_DIRECTORY;
/// `O_NOFOLLOW`.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;
/// `O_CREAT`.
pub const CREATE: i32 = libc::O_CREAT;
/// `O_EXCL`.
pub const EXCLUSIVE: i32 = libc::O_EXCL;
/// `O_TRUNC`.
pub const TRUNCATE: i32 = libc::O_TRUNC;
/// `O_NOCTTY`.
pub const NO_CONTROLLING_TERMINAL: i32 = libc::O_NOCTTY;
/// `O_NONBLOCK`.
pub const NON_BLOCKING: i32 = libc::O_NONBLOCK;

/// How openat2(2) may walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// The directory is `/`: absolute symlinks and `..` stay inside it. No magic links (`RESOLVE_IN_ROOT`).
    InRoot,
    /// As [`Resolve::InRoot`], and no symlink at all.
    InRootNoSymlinks,
    /// Never up, never through a symlink; mounts may be crossed.
    BeneathNoSymlinks,
    /// Never up, never through a symlink, never onto another mount.
    BeneathSameMount,
}

impl Resolve {
    const fn bits(self) -> u64 {
        match self {
            Self::InRoot => libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
            Self::InRootNoSymlinks => {
                libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS
            }
            Self::BeneathNoSymlinks => {
                libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS
            }
            Self::BeneathSameMount => {
                libc::RESOLVE_BENEATH
                    | libc::RESOLVE_NO_MAGICLINKS
                    | libc::RESOLVE_NO_SYMLINKS
                    | libc::RESOLVE_NO_XDEV
            }
        }
    }
}

/// Runs `attempt` with `path` as a C string; a path with a NUL byte is EINVAL, as no file can be called so.
pub(crate) fn with_c_path<T>(
    call: &'static str,
    path: &Path,
    attempt: impl FnOnce(&std::ffi::CStr) -> Result<T>,
) -> Result<T> {
    path.with_nix_path(attempt)
        .unwrap_or_else(|errno| Err(SyscallError::new(call, path.display().to_string(), errno)))
}

/// Takes ownership of what a system call returned as a new descriptor.
pub(crate) fn own(returned: i64) -> OwnedFd {
    #[expect(clippy::cast_possible_truncation, reason = "the kernel's descriptors are ints")]
    // SAFETY: callers pass the non-negative return value of a call that has just made a descriptor, which nobody else
    // can know of yet.
    unsafe {
        OwnedFd::from_raw_fd(returned as RawFd)
    }
}

/// openat2(2): opens `path` below `dir` close-on-exec. `flags` are this file's constants, `mode` is for
/// [`CREATE`]. EAGAIN, which a concurrent rename or mount anywhere on the machine may cause, is retried a few times.
pub fn open_at(dir: impl AsFd, path: &Path, flags: i32, mode: u32, resolve: Resolve) -> Result<OwnedFd> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("openat2", path, |c_path| {
        // SAFETY: open_how is plain integers, for which zero is a value.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
        // openat2 refuses a mode that no flag asks for.
        how.mode = if flags & libc::O_CREAT == 0 { 0 } else { u64::from(mode) };
        how.resolve = resolve.bits();
        let mut attempts = 0;
        loop {
            let returned = retry("openat2", path.display(), || {
                // SAFETY: dir is borrowed, c_path is NUL-terminated and alive, how is alive and its true size is given.
                unsafe {
                    libc::syscall(
                        libc::SYS_openat2,
                        raw,
                        c_path.as_ptr(),
                        &raw const how,
                        size_of::<libc::open_how>(),
                    )
                }
            });
            match returned {
                Err(error) if error.errno == Errno::EAGAIN && attempts < 128 => attempts += 1,
                other => return other.map(own),
            }
        }
    })
}

/// open(2) of a path of the host, following symlinks: for operands that the caller of the runtime names, never for one
/// inside a container's root.
pub fn open_host(path: &Path, flags: i32) -> Result<OwnedFd> {
    with_c_path("open", path, |c_path| {
        retry("open", path.display(), || {
            // SAFETY: c_path is NUL-terminated and alive.
            unsafe { libc::open(c_path.as_ptr(), flags | libc::O_CLOEXEC) }.into()
        })
        .map(own)
    })
}

/// Opens the inode behind the `O_PATH` directory `dir` anew with `flags`.
pub fn reopen_dir(dir: impl AsFd, flags: i32) -> Result<OwnedFd> {
    open_at(dir, Path::new("."), flags | libc::O_DIRECTORY, 0, Resolve::BeneathSameMount)
}

/// Opens a magic link (`self/fd/N`, `self/exe`) below `dir`, which the caller has verified to be procfs. This is the
/// only function of the crate that follows one.
pub fn open_magic_link(dir: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("openat", path, |c_path| {
        retry("openat", path.display(), || {
            // SAFETY: dir is borrowed, c_path is NUL-terminated and alive.
            unsafe { libc::openat(raw, c_path.as_ptr(), flags | libc::O_CLOEXEC) }.into()
        })
        .map(own)
    })
}

/// mkdirat(2).
pub fn make_dir(dir: impl AsFd, name: &Path, mode: u32) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("mkdirat", name, |c_name| {
        // SAFETY: dir is borrowed, c_name is NUL-terminated and alive.
        check("mkdirat", name.display(), unsafe { libc::mkdirat(raw, c_name.as_ptr(), mode) }.into())?;
        Ok(())
    })
}

/// The kinds of special files that mknodat(2) makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

impl NodeKind {
    /// The file type bits of `st_mode`.
    #[must_use]
    pub const fn file_type(self) -> u32 {
        match self {
            Self::Character => libc::S_IFCHR,
            Self::Block => libc::S_IFBLK,
            Self::Fifo => libc::S_IFIFO,
        }
    }
}

/// Runs `body` with no umask, so that what it makes has just the modes that it names.
pub fn without_umask<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: umask cannot fail and touches no memory. The runtime is single-threaded, so nobody else sees it changed.
    let umask = unsafe { libc::umask(0) };
    let made = body();
    // SAFETY: as above.
    unsafe { libc::umask(umask) };
    made
}

/// mknodat(2). The umask applies: see [`without_umask`].
pub fn make_node(dir: impl AsFd, name: &Path, kind: NodeKind, mode: u32, device: u64) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("mknodat", name, |c_name| {
        // SAFETY: dir is borrowed, c_name is NUL-terminated and alive.
        let returned =
            unsafe { libc::mknodat(raw, c_name.as_ptr(), kind.file_type() | (mode & 0o7777), device) };
        check("mknodat", name.display(), returned.into())?;
        Ok(())
    })
}

/// symlinkat(2): makes `name` in `dir` point to `target`, which is not looked at.
pub fn make_symlink(target: &Path, dir: impl AsFd, name: &Path) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("symlinkat", target, |c_target| {
        with_c_path("symlinkat", name, |c_name| {
            // SAFETY: dir is borrowed, both strings are NUL-terminated and alive.
            let returned = unsafe { libc::symlinkat(c_target.as_ptr(), raw, c_name.as_ptr()) };
            check("symlinkat", name.display(), returned.into())?;
            Ok(())
        })
    })
}

/// readlinkat(2) of `name` in `dir`; with an empty name, of the symlink that `dir` itself is a handle on.
pub fn read_link(dir: impl AsFd, name: &Path) -> Result<OsString> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("readlinkat", name, |c_name| {
        let mut buffer = vec![0_u8; libc::PATH_MAX.unsigned_abs() as usize];
        // SAFETY: dir is borrowed, c_name is NUL-terminated, and the buffer is as long as the call is told.
        let returned =
            unsafe { libc::readlinkat(raw, c_name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let length = check("readlinkat", name.display(), returned as i64)?;
        buffer.truncate(usize::try_from(length).unwrap_or(0));
        Ok(OsString::from_vec(buffer))
    })
}

/// unlinkat(2) of something that is no directory.
pub fn unlink(dir: impl AsFd, name: &Path) -> Result<()> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("unlinkat", name, |c_name| {
        // SAFETY: dir is borrowed, c_name is NUL-terminated and alive.
        check("unlinkat", name.display(), unsafe { libc::unlinkat(raw, c_name.as_ptr(), 0) }.into())?;
        Ok(())
    })
}

/// fchownat(2) of the inode that `fd` is a handle on; works on `O_PATH` handles, symlinks included.
pub fn change_owner(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the fd is borrowed, the path is an empty C string literal.
    let returned =
        unsafe { libc::fchownat(fd.as_fd().as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) };
    check("fchownat", "", returned.into())?;
    Ok(())
}

/// fchmod(2); the descriptor must not be an `O_PATH` one.
pub fn change_mode(fd: impl AsFd, mode: u32) -> Result<()> {
    // SAFETY: the fd is borrowed.
    check("fchmod", "", unsafe { libc::fchmod(fd.as_fd().as_raw_fd(), mode) }.into())?;
    Ok(())
}

/// fsetxattr(2); the descriptor must not be an `O_PATH` one.
pub fn set_attribute(fd: impl AsFd, name: &std::ffi::CStr, value: &[u8]) -> Result<()> {
    // SAFETY: the fd is borrowed, name is NUL-terminated, pointer and length describe the live value.
    let returned = unsafe {
        libc::fsetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    check("fsetxattr", name.to_string_lossy(), returned.into())?;
    Ok(())
}

/// The names in a directory, without `.` and `..`, in the kernel's order.
pub fn list_dir(dir: impl AsFd) -> Result<Vec<OsString>> {
    let handle = reopen_dir(dir, libc::O_RDONLY)?;
    let failed = |errno| SyscallError::new("getdents64", "", errno);
    let mut open = nix::dir::Dir::from_fd(handle).map_err(failed)?;
    let mut names = Vec::new();
    for entry in open.iter() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

/// fchdir(2).
pub fn change_dir_to(dir: impl AsFd) -> Result<()> {
    // SAFETY: the fd is borrowed.
    check("fchdir", "", unsafe { libc::fchdir(dir.as_fd().as_raw_fd()) }.into())?;
    Ok(())
}

/// chroot(2) into the working directory.
pub fn chroot_here() -> Result<()> {
    // SAFETY: the path is a C string literal.
    check("chroot", ".", unsafe { libc::chroot(c".".as_ptr()) }.into())?;
    Ok(())
}

/// dup3(2) of `fd` onto one of the standard streams (0, 1 or 2), which stays open across execve.
pub fn duplicate_onto_standard_stream(fd: impl AsFd, stream: RawFd) -> Result<()> {
    if !(0..=2).contains(&stream) {
        return Err(SyscallError::new("dup3", stream.to_string(), Errno::EBADF));
    }
    // SAFETY: the fd is borrowed. The target is one of the standard streams, which no OwnedFd of this program holds.
    let returned = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), stream) };
    check("dup2", stream, returned.into())?;
    Ok(())
}

/// mkfifo(3) of a path of the host.
pub fn make_fifo(path: &Path, mode: u32) -> Result<()> {
    with_c_path("mkfifo", path, |c_path| {
        // SAFETY: c_path is NUL-terminated and alive.
        retry("mkfifo", path.display(), || unsafe { libc::mkfifo(c_path.as_ptr(), mode) }.into())?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("ketch-sys-path-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn a_root_holds_absolute_links_and_dots() {
        let dir = scratch("root");
        fs::create_dir(dir.join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("link")).unwrap();
        let root = open_host(&dir, PATH | DIRECTORY).unwrap();
        let inside = open_at(&root, Path::new("/../../link"), PATH, 0, Resolve::InRoot).unwrap();
        let meta = fs::metadata(dir.join("etc")).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(crate::stat::status(&inside).unwrap().inode, meta.ino());
        let refused = open_at(&root, Path::new("link"), PATH, 0, Resolve::InRootNoSymlinks).unwrap_err();
        assert_eq!(refused.errno, Errno::ELOOP);
        let refused = open_at(&root, Path::new("../x"), PATH, 0, Resolve::BeneathNoSymlinks).unwrap_err();
        assert_eq!(refused.errno, Errno::EXDEV);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn names_with_nul_bytes_are_invalid() {
        let error = open_host(Path::new("/a\0b"), PATH).unwrap_err();
        assert_eq!(error.errno, Errno::EINVAL);
    }

    #[test]
    fn link_of_a_handle_reads_without_a_name() {
        let dir = scratch("link");
        std::os::unix::fs::symlink("somewhere", dir.join("l")).unwrap();
        let root = open_host(&dir, PATH | DIRECTORY).unwrap();
        // Without O_NOFOLLOW in the walk, O_PATH|O_NOFOLLOW gives the link itself.
        let link = open_at(&root, Path::new("l"), PATH | NO_FOLLOW, 0, Resolve::InRoot).unwrap();
        assert_eq!(read_link(&link, Path::new("")).unwrap(), "somewhere");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_fifo_gets_its_exact_mode() {
        let dir = scratch("fifo");
        let root = open_host(&dir, PATH | DIRECTORY).unwrap();
        without_umask(|| make_node(&root, Path::new("f"), NodeKind::Fifo, 0o666, 0)).unwrap();
        let fifo = open_at(&root, Path::new("f"), PATH | NO_FOLLOW, 0, Resolve::BeneathNoSymlinks).unwrap();
        let status = crate::stat::status(&fifo).unwrap();
        assert_eq!(status.mode, libc::S_IFIFO | 0o666);
        assert_eq!(list_dir(&root).unwrap(), ["f"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
