//! [`ProcFs`]: the one way to files of procfs.
//!
//! Whatever is written below `/proc` (sysctls, labels, id maps, scores) goes through this handle, never through a path:
//! a volume or a mask over `/proc` would send the write elsewhere (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).
//! [`ProcFs::private`] is a procfs of our own that nobody can mount on; [`ProcFs::host`] is the mounted one, proven to
//! be it. Every file is opened without symlinks and on the handle's own mount, so an overmounted one fails with `EXDEV`.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::mount::{self, Parameter};
use ketch_sys::path::{self, Resolve};
use ketch_sys::{Errno, SyscallError, stat};

/// The inode number that only the root of a procfs has (`PROC_ROOT_INO` of linux/proc_ns.h).
const ROOT_INODE: u64 = 1;

/// What a private procfs must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Processes only (`subset=pid`): for labels, scores and re-opening descriptors.
    Processes,
    /// Everything: sysctls need it.
    Everything,
}

/// A handle on the root of a procfs.
#[derive(Debug)]
pub struct ProcFs {
    root: OwnedFd,
}

impl ProcFs {
    /// A detached procfs of the calling process's pid namespace.
    ///
    /// # Errors
    /// What fsopen(2), fsconfig(2) and fsmount(2) fail with: `EPERM` in a user namespace where the mounted procfs is
    /// partly covered.
    pub fn private(contents: Contents) -> Result<Self, SyscallError> {
        let context = mount::open_fs("proc")?;
        if contents == Contents::Processes {
            mount::configure(&context, Parameter::Text("subset", "pid"))?;
        }
        mount::configure(&context, Parameter::Text("hidepid", "ptraceable"))?;
        // noexec, nosuid and nodev.
        Ok(Self { root: mount::create(&context, "proc", 0x8 | 0x2 | 0x4)? })
    }

    /// The procfs at `/proc`.
    ///
    /// # Errors
    /// What open(2) fails with; `ENOTSUP` when something else is mounted there.
    pub fn host() -> Result<Self, SyscallError> {
        let root = path::open_host(Path::new("/proc"), path::PATH | path::DIRECTORY | path::NO_FOLLOW)?;
        Self::verified(root)
    }

    /// Takes a descriptor that should be the root of a procfs.
    ///
    /// # Errors
    /// What fstat(2) and fstatfs(2) fail with; `ENOTSUP` when it is not.
    pub fn verified(root: OwnedFd) -> Result<Self, SyscallError> {
        if stat::file_system(&root)? != stat::PROC || stat::status(&root)?.inode != ROOT_INODE {
            return Err(SyscallError::new("fstatfs", "/proc is not the root of a procfs", Errno::ENOTSUP));
        }
        Ok(Self { root })
    }

    /// Opens a file of the calling process; `path` is relative to `/proc/self`.
    ///
    /// # Errors
    /// What openat2(2) fails with; `EXDEV` when something is mounted over it.
    pub fn open_self(&self, path: &str, flags: i32) -> Result<OwnedFd, SyscallError> {
        // `self` is a symlink to our number in the procfs's own pid namespace, which getpid(2) need not give.
        let own = path::read_link(&self.root, Path::new("self"))?;
        self.open(&Path::new(&own).join(path), flags)
    }

    /// Opens the file at `path`, relative to `/proc`.
    ///
    /// # Errors
    /// What openat2(2) fails with; `EXDEV` when something is mounted over it, `ELOOP` for a symlink.
    pub fn open(&self, path: &Path, flags: i32) -> Result<OwnedFd, SyscallError> {
        path::open_at(&self.root, path, flags, 0, Resolve::BeneathSameMount)
    }

    /// Writes `value` with one write(2) to the file at `path`, relative to `/proc`.
    ///
    /// # Errors
    /// As [`ProcFs::open`], and what write(2) fails with.
    pub fn write(&self, path: &Path, value: &[u8]) -> Result<(), SyscallError> {
        write_once(self.open(path, path::WRITE)?, value, path)
    }

    /// Writes `value` with one write(2) to the file at `path`, relative to `/proc/self`.
    ///
    /// # Errors
    /// As [`ProcFs::open_self`], and what write(2) fails with.
    pub fn write_self(&self, path: &str, value: &[u8]) -> Result<(), SyscallError> {
        write_once(self.open_self(path, path::WRITE)?, value, Path::new(path))
    }

    /// Opens the inode behind `fd` anew with `flags`, by the magic link of this very procfs. The caller has checked
    /// what the inode is.
    ///
    /// # Errors
    /// What openat(2) fails with.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: i32) -> Result<OwnedFd, SyscallError> {
        let own = path::read_link(&self.root, Path::new("self"))?;
        let dir = self.open(&Path::new(&own).join("fd"), path::PATH | path::DIRECTORY)?;
        path::open_magic_link(&dir, &PathBuf::from(fd.as_raw_fd().to_string()), flags)
    }

    /// Opens a namespace (`user`, `mnt`) of the process `pid`.
    ///
    /// # Errors
    /// As [`ProcFs::open`].
    pub fn open_namespace(&self, pid: i32, name: &str) -> Result<OwnedFd, SyscallError> {
        let dir = self.open(&PathBuf::from(format!("{pid}/ns")), path::PATH | path::DIRECTORY)?;
        path::open_magic_link(&dir, Path::new(name), path::READ)
    }

    /// Sets a sysctl by its dotted name; slashes are taken as they are, as sysctl(8) does.
    ///
    /// # Errors
    /// As [`ProcFs::write`].
    pub fn write_sysctl(&self, name: &str, value: &str) -> Result<(), SyscallError> {
        self.write(&sysctl_path(name), value.as_bytes())
    }
}

/// Files of procfs take what they are given in one piece.
fn write_once(file: OwnedFd, value: &[u8], path: &Path) -> Result<(), SyscallError> {
    let failed = |errno| SyscallError::new("write", path.display().to_string(), errno);
    match File::from(file).write(value) {
        Ok(written) if written == value.len() => Ok(()),
        Ok(_) => Err(failed(Errno::EIO)),
        Err(error) => Err(failed(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))),
    }
}

impl AsFd for ProcFs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// `net.ipv4.ip_forward` as `sys/net/ipv4/ip_forward`. Slashes stay, as in runc.
fn sysctl_path(name: &str) -> PathBuf {
    PathBuf::from(format!("sys/{}", name.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_hosts_procfs_is_proven_and_read() {
        let proc = ProcFs::host().unwrap();
        let mut text = String::new();
        File::from(proc.open_self("comm", path::READ).unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        proc.open(Path::new("sys/kernel/ostype"), path::READ).unwrap();
    }

    #[test]
    fn links_and_dots_are_refused() {
        let proc = ProcFs::host().unwrap();
        assert_eq!(proc.open(Path::new("self/comm"), path::READ).unwrap_err().errno, Errno::ELOOP);
        assert_eq!(proc.open(Path::new("../etc/passwd"), path::READ).unwrap_err().errno, Errno::EXDEV);
        assert_eq!(proc.open_self("exe", path::READ).unwrap_err().errno, Errno::ELOOP);
    }

    #[test]
    fn other_directories_are_no_procfs() {
        let directory = path::open_host(Path::new("/"), path::PATH | path::DIRECTORY).unwrap();
        assert_eq!(ProcFs::verified(directory).unwrap_err().errno, Errno::ENOTSUP);
        let below = path::open_host(Path::new("/proc/sys"), path::PATH | path::DIRECTORY).unwrap();
        assert_eq!(ProcFs::verified(below).unwrap_err().errno, Errno::ENOTSUP);
    }

    #[test]
    fn a_descriptor_is_opened_anew() {
        let proc = ProcFs::host().unwrap();
        let null = path::open_host(Path::new("/dev/null"), path::PATH).unwrap();
        let again = proc.reopen(null.as_fd(), path::READ_WRITE).unwrap();
        assert!(stat::status(&again).unwrap().is_character_device(1, 3));
    }

    #[test]
    fn sysctl_names_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), Path::new("sys/net/ipv4/ip_forward"));
        assert_eq!(sysctl_path("kernel/shm_rmid_forced"), Path::new("sys/kernel/shm_rmid_forced"));
    }
}
