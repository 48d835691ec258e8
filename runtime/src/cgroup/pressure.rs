//! Pressure thresholds of `unified` (Documentation/accounting/psi.rst): the kernel keeps one for as long as the descriptor
//! that it was written by is open, and tells of it by that descriptor alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ketch_sys::cgroupfs;

use super::{Cgroup, CgroupError};
use crate::spec::resources::Resources;

/// A threshold in force. Its descriptor has urgent data each time it is exceeded, once in its window at most.
#[derive(Debug)]
pub struct PressureWatch {
    /// The file of the cgroup.
    pub file: String,
    /// The threshold: `some` or `full`, the stall and the window, both in microseconds.
    pub threshold: String,
    armed: OwnedFd,
}

/// Whether a file of a cgroup takes thresholds. `cgroup.pressure` is a switch.
pub(super) fn takes_thresholds(file: &str) -> bool {
    matches!(file, "cpu.pressure" | "io.pressure" | "irq.pressure" | "memory.pressure")
}

impl Cgroup {
    /// Puts the thresholds of a container's limits in force, until what is given is dropped.
    pub fn watch_pressure(&self, resources: &Resources) -> Result<Vec<PressureWatch>, CgroupError> {
        let asked = resources.unified.iter().filter(|(file, _)| takes_thresholds(file));
        let lines = asked.flat_map(|(file, value)| value.lines().map(move |line| (file, line.trim())));
        lines.filter(|(_, line)| !line.is_empty()).map(|(file, line)| self.arm(file, line)).collect()
    }

    fn arm(&self, file: &str, threshold: &str) -> Result<PressureWatch, CgroupError> {
        let group = self.v2_group().ok_or(CgroupError::NotExist)?;
        let armed = cgroupfs::open_to_write(group.dir()?, file).and_then(|armed| {
            cgroupfs::write(&armed, threshold.as_bytes())?;
            Ok(armed)
        });
        let armed = armed.map_err(|source| CgroupError::Write {
            path: group.path.join(file),
            value: threshold.to_owned(),
            source,
        })?;
        Ok(PressureWatch { file: file.to_owned(), threshold: threshold.to_owned(), armed })
    }
}

impl AsFd for PressureWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.armed.as_fd()
    }
}
