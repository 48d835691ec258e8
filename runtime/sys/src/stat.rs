//! What a descriptor refers to: fstat(2), statx(2) with mount ids, fstatfs(2). Least kernel 5.8 (`STATX_MNT_ID`).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use crate::call::check;
use crate::error::Result;
use crate::path::with_c_path;

/// `PROC_SUPER_MAGIC`.
pub const PROC: i64 = 0x9fa0;
/// `DEVPTS_SUPER_MAGIC`.
pub const DEVPTS: i64 = 0x1cd1;
/// `CGROUP2_SUPER_MAGIC`.
pub const CGROUP2: i64 = 0x6367_7270;
/// `CGROUP_SUPER_MAGIC`.
pub const CGROUP1: i64 = 0x0027_e0eb;

/// The part of `struct stat` that the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// File type and permission bits.
    pub mode: u32,
    /// Hard links; of a directory, two more than its sub-directories where the file system counts them.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// The device that holds the inode.
    pub device: u64,
    /// The device that the inode stands for, if it is a device node.
    pub special_device: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Status {
    /// The file type bits of [`Status::mode`].
    #[must_use]
    pub const fn file_type(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_dir(&self) -> bool {
        self.file_type() == libc::S_IFDIR
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub const fn is_symlink(&self) -> bool {
        self.file_type() == libc::S_IFLNK
    }

    /// Whether it is a regular file.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        self.file_type() == libc::S_IFREG
    }

    /// Whether it is a socket.
    #[must_use]
    pub const fn is_socket(&self) -> bool {
        self.file_type() == libc::S_IFSOCK
    }

    /// Whether it is the character device `major:minor`.
    #[must_use]
    pub const fn is_character_device(&self, major: u32, minor: u32) -> bool {
        self.file_type() == libc::S_IFCHR && self.special_device == device_number(major, minor)
    }

    /// The permission bits, set-id and sticky bits included.
    #[must_use]
    pub const fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

/// makedev(3).
#[must_use]
pub const fn device_number(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// major(3) and minor(3).
#[must_use]
pub const fn major_and_minor(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// fstat(2); works on `O_PATH` handles.
pub fn status(fd: impl AsFd) -> Result<Status> {
    let mut buffer = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the fd is borrowed; the buffer is as large as the call writes.
    check("fstat", "", unsafe { libc::fstat(fd.as_fd().as_raw_fd(), buffer.as_mut_ptr()) }.into())?;
    // SAFETY: fstat has succeeded, so it has filled the buffer.
    Ok(Status::from(unsafe { buffer.assume_init() }))
}

/// fstatat(2) of `name` in `dir` itself, a symlink not followed.
pub fn status_at(dir: impl AsFd, name: &Path) -> Result<Status> {
    let raw = dir.as_fd().as_raw_fd();
    with_c_path("fstatat", name, |c_name| {
        let mut buffer = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: dir is borrowed, c_name is NUL-terminated and alive, the buffer is as large as the call writes.
        let returned =
            unsafe { libc::fstatat(raw, c_name.as_ptr(), buffer.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
        check("fstatat", name.display(), returned.into())?;
        // SAFETY: fstatat has succeeded, so it has filled the buffer.
        Ok(Status::from(unsafe { buffer.assume_init() }))
    })
}

impl From<libc::stat> for Status {
    fn from(stat: libc::stat) -> Self {
        Self {
            mode: stat.st_mode,
            links: stat.st_nlink,
            inode: stat.st_ino,
            device: stat.st_dev,
            special_device: stat.st_rdev,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }
}

/// statx(2): the id of the mount that the descriptor was opened on, as in `/proc/self/mountinfo`.
pub fn mount_id(fd: impl AsFd) -> Result<u64> {
    statx(fd).map(|found| found.stx_mnt_id)
}

/// statx(2) `STATX_ATTR_MOUNT_ROOT`: whether the descriptor is on the root of its mount, and not on something below.
pub fn is_mount_root(fd: impl AsFd) -> Result<bool> {
    let bit = u64::from(libc::STATX_ATTR_MOUNT_ROOT.cast_unsigned());
    statx(fd).map(|found| found.stx_attributes & bit != 0)
}

fn statx(fd: impl AsFd) -> Result<libc::statx> {
    let mut buffer = MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the fd is borrowed, the path is an empty C string literal, the buffer is as large as the call writes.
    let returned = unsafe {
        libc::statx(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            libc::STATX_MNT_ID,
            buffer.as_mut_ptr(),
        )
    };
    check("statx", "", returned.into())?;
    // SAFETY: statx has succeeded, so it has filled the buffer.
    Ok(unsafe { buffer.assume_init() })
}

/// fstatfs(2): the magic number of the file system; works on `O_PATH` handles.
pub fn file_system(fd: impl AsFd) -> Result<i64> {
    let mut buffer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the fd is borrowed; the buffer is as large as the call writes.
    check("fstatfs", "", unsafe { libc::fstatfs(fd.as_fd().as_raw_fd(), buffer.as_mut_ptr()) }.into())?;
    // SAFETY: fstatfs has succeeded, so it has filled the buffer.
    Ok(unsafe { buffer.assume_init() }.f_type)
}

/// fstatvfs(3): the flags of the mount (`ST_*`); works on `O_PATH` handles.
pub fn mount_flags(fd: impl AsFd) -> Result<u64> {
    let mut buffer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the fd is borrowed; the buffer is as large as the call writes.
    check("fstatvfs", "", unsafe { libc::fstatvfs(fd.as_fd().as_raw_fd(), buffer.as_mut_ptr()) }.into())?;
    // SAFETY: fstatvfs has succeeded, so it has filled the buffer.
    Ok(unsafe { buffer.assume_init() }.f_flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn dev_null_is_what_it_is() {
        let null = File::open("/dev/null").unwrap();
        let status = status(&null).unwrap();
        assert!(status.is_character_device(1, 3));
        assert!(!status.is_character_device(1, 5));
        assert_eq!(major_and_minor(status.special_device), (1, 3));
    }

    #[test]
    fn procfs_is_seen_by_its_magic_and_its_mount() {
        let proc = File::open("/proc").unwrap();
        assert_eq!(file_system(&proc).unwrap(), PROC);
        let root = File::open("/").unwrap();
        assert_ne!(mount_id(&proc).unwrap(), mount_id(&root).unwrap());
        assert!(is_mount_root(&proc).unwrap());
        assert!(!is_mount_root(File::open("/proc/sys").unwrap()).unwrap());
    }
}
