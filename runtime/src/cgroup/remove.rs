//! Removing a container's directories, with whatever the container made below them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ketch_sys::{Errno, SyscallError, cgroupfs};

use super::{Cgroup, CgroupError, Group, is_gone};

/// How long processes that are about to end may keep a directory busy.
const PATIENCE: Duration = Duration::from_secs(1);

impl Cgroup {
    /// Removes every directory. One that is gone counts as removed; one that can't be removed doesn't keep the others,
    /// and the first failure is told.
    pub fn delete(&self) -> Result<(), CgroupError> {
        if self.is_planned() {
            return Ok(());
        }
        self.stop_unit();
        let mut first = Ok(());
        for group in &self.groups {
            if let Err(error) = group.remove()
                && first.is_ok()
            {
                first = Err(error);
            }
        }
        first
    }
}

impl Group {
    fn remove(&self) -> Result<(), CgroupError> {
        let failed = |source| CgroupError::Remove { path: self.path.clone(), source };
        match cgroupfs::remove_dir(&self.path) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            // EROFS may hide that there is nothing there.
            Err(error) if !matches!(error.errno, Errno::EBUSY | Errno::EROFS) => return Err(failed(error)),
            Err(_) => {}
        }
        let dir = match cgroupfs::open_dir(&self.path) {
            Ok((dir, _)) => dir,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let deadline = Instant::now() + PATIENCE;
        // v2 tells when the last process has gone; otherwise there is nothing to wait on but time.
        let mut will_tell = self.has("");
        let mut pause = Duration::from_millis(1);
        loop {
            match remove_below(dir.as_fd()).and_then(|()| cgroupfs::remove_dir(&self.path)) {
                Ok(()) => return Ok(()),
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) if error.errno != Errno::EBUSY || Instant::now() >= deadline => {
                    return Err(failed(error));
                }
                Err(_) => {}
            }
            if std::mem::take(&mut will_tell) {
                let _ = self.wait_event("populated 0", PATIENCE);
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }
}

/// Removes the sub-cgroups of a directory, the deepest first.
fn remove_below(dir: BorrowedFd<'_>) -> Result<(), SyscallError> {
    for name in cgroupfs::sub_dirs(dir)? {
        let name = Path::new(&name);
        match cgroupfs::remove_sub_dir(dir, name) {
            Err(error) if error.errno == Errno::EBUSY => {
                remove_below(cgroupfs::open_sub_dir(dir, name)?.as_fd())?;
                cgroupfs::remove_sub_dir(dir, name)?;
            }
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
