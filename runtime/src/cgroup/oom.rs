//! Being told that a container runs out of memory: `cgroup.event_control` (v1), `memory.events` (v2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ketch_sys::{Errno, cgroupfs};

use super::{Cgroup, CgroupError, Group};
use crate::plan::cgroup::CgroupMode;

/// A watch on a container's memory. Its descriptor is readable when [`OomWatch::take`] has something to tell.
#[derive(Debug)]
pub struct OomWatch<'a> {
    notify: OwnedFd,
    group: &'a Group,
    mode: CgroupMode,
    kills: u64,
}

/// What a watch has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// Something changed that is of no interest.
    Nothing,
    OutOfMemory,
    /// The container's processes are gone, or its cgroup is: nothing more will come.
    Ended,
}

impl Cgroup {
    /// Starts to watch.
    pub fn watch_oom(&self) -> Result<OomWatch<'_>, CgroupError> {
        let group = self.group("memory").ok_or(CgroupError::NoMemoryController)?;
        let kills = group.oom_kill_count(self.mode);
        let (memory, all) = (group.path.join("memory.events"), group.path.join("cgroup.events"));
        let notify = match self.mode {
            // Without its controller no limit is on the memory, and its end is all that there is to watch.
            CgroupMode::Unified
                if kills.as_ref().is_err_and(|error| error.errno() == Some(Errno::ENOENT)) =>
            {
                cgroupfs::notify_of_changes(&[&all])
            }
            CgroupMode::Unified => cgroupfs::notify_of_changes(&[&memory, &all]),
            CgroupMode::Legacy | CgroupMode::Hybrid => cgroupfs::notify_of_oom(group.dir()?),
        };
        let notify = notify.map_err(|source| CgroupError::WatchOom { path: group.path.clone(), source })?;
        Ok(OomWatch { notify, group, mode: self.mode, kills: kills.unwrap_or(0) })
    }

    /// How often the kernel has killed in this cgroup for want of memory.
    pub fn oom_kill_count(&self) -> Result<u64, CgroupError> {
        let group = self.group("memory").ok_or(CgroupError::NoMemoryController)?;
        group.oom_kill_count(self.mode)
    }
}

impl Group {
    fn oom_kill_count(&self, mode: CgroupMode) -> Result<u64, CgroupError> {
        let file = match mode {
            CgroupMode::Unified => "memory.events",
            CgroupMode::Legacy | CgroupMode::Hybrid => "memory.oom_control",
        };
        let content = self.read(file)?;
        let count = content.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
    }
}

impl OomWatch<'_> {
    /// Takes what the descriptor was readable for. Doesn't block.
    pub fn take(&mut self) -> Result<OomEvent, CgroupError> {
        cgroupfs::drain(&self.notify)
            .map_err(|source| CgroupError::WatchOom { path: self.group.path.clone(), source })?;
        // v1 also signals the removal of the cgroup.
        if cgroupfs::open_dir(&self.group.path).is_err() {
            return Ok(OomEvent::Ended);
        }
        if self.mode != CgroupMode::Unified {
            return Ok(OomEvent::OutOfMemory);
        }
        // Kills, not `oom`: that also counts limits of ancestors and allocations that merely failed.
        let kills = self.group.oom_kill_count(self.mode).unwrap_or(0);
        if kills > self.kills {
            self.kills = kills;
            return Ok(OomEvent::OutOfMemory);
        }
        let events = self.group.read("cgroup.events").unwrap_or_default();
        Ok(if events.lines().any(|line| line == "populated 1") { OomEvent::Nothing } else { OomEvent::Ended })
    }
}

impl AsFd for OomWatch<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notify.as_fd()
    }
}
