//! resctrl, the file system of Intel RDT (Documentation/filesystems/resctrl.rst): directories that are checked to be of it.
//! What is in them is read and written as in cgroups ([`crate::cgroupfs`]). Least kernel 5.6 (openat2).

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Errno, Result, SyscallError};
use crate::path::{DIRECTORY, PATH, Resolve, open_at, open_host};
use crate::stat;

/// `RDTGROUP_SUPER_MAGIC`.
const RESCTRL: i64 = 0x0765_5821;

/// openat2(2): a handle on the directory at an absolute path, reached through no symlink. What is not in a resctrl file
/// system fails with EINVAL.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let root = open_host(Path::new("/"), PATH | DIRECTORY)?;
    let dir = open_at(root, below, PATH | DIRECTORY, 0, Resolve::BeneathNoSymlinks)?;
    match stat::file_system(&dir)? {
        RESCTRL => Ok(dir),
        _ => Err(SyscallError::new("open", format!("{} (not in resctrl)", path.display()), Errno::EINVAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_is_taken_for_resctrl() {
        assert_eq!(open_dir(Path::new("/proc/sys")).unwrap_err().errno, Errno::EINVAL);
        assert_eq!(open_dir(Path::new("/nonexistent")).unwrap_err().errno, Errno::ENOENT);
    }
}
