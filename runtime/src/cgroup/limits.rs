//! Writing limits: the interpreter of a plan's ordered writes.

use ketch_sys::{Errno, cgroupfs};

use super::{Cgroup, CgroupError, Group, pressure};
use crate::plan::cgroup::{CgroupMode, Limits, MemoryCheck, Tolerate, When, Write};

/// What earlier writes of a list came to, for the conditions of later ones.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    rejected: Vec<String>,
    absent: Vec<String>,
}

impl Cgroup {
    /// Puts limits in force, for a new container as for one that runs. Stops at the first that the kernel refuses.
    pub fn set(&self, limits: &Limits) -> Result<(), CgroupError> {
        if let Some(check) = &limits.memory_check {
            self.check_memory(check)?;
        }
        self.set_properties(&limits.properties)?;
        let mut outcomes = Outcomes::default();
        for write in &limits.writes {
            let Some(group) = self.group(&write.controller) else {
                return Err(CgroupError::NoGroup { controller: write.controller.clone() });
            };
            group.apply(write, &mut outcomes)?;
        }
        match &limits.devices {
            Some(devices) => self.set_devices(devices),
            None => Ok(()),
        }
    }

    /// The device rules of v1 alone. They pass through a moment in which every device is denied, so they must stand
    /// before the container's first process makes or opens one. A program of v2 is there in one step: it comes with
    /// [`Cgroup::set`], which finds nothing left to do for v1.
    pub fn set_device_rules_ahead(&self, limits: &Limits) -> Result<(), CgroupError> {
        match &limits.devices {
            Some(devices) if self.mode != CgroupMode::Unified && !self.is_planned() => {
                self.set_devices(devices)
            }
            _ => Ok(()),
        }
    }

    /// Refuses limits that are not above what is in use. Without an answer to that there is nothing to refuse.
    fn check_memory(&self, check: &MemoryCheck) -> Result<(), CgroupError> {
        let usage = self.group("memory").and_then(|group| group.read("memory.current").ok());
        let Some(usage) = usage.and_then(|usage| usage.trim().parse::<u64>().ok()) else {
            return Ok(());
        };
        match (check.memory_and_swap, check.memory) {
            (Some(limit), _) if limit <= usage => Err(CgroupError::SwapBelowUsage { limit, usage }),
            (_, Some(limit)) if limit <= usage => Err(CgroupError::MemoryBelowUsage { limit, usage }),
            _ => Ok(()),
        }
    }
}

impl Group {
    /// Does one write of a plan, if its condition holds.
    pub(super) fn apply(&self, write: &Write, outcomes: &mut Outcomes) -> Result<(), CgroupError> {
        let due = match &write.when {
            When::Always => true,
            When::Rejected => outcomes.rejected.contains(&write.file),
            When::Absent(file) => outcomes.absent.contains(file),
        };
        if !due {
            return Ok(());
        }
        if write.tolerate == Tolerate::NothingOfUnified {
            return self.write_lines(write).map_err(|error| self.unified_error(write, error));
        }
        match self.write(&write.file, &write.value) {
            Ok(()) => Ok(()),
            Err(error) => match error.errno() {
                Some(Errno::ENOENT) if write.tolerate.absence() => {
                    outcomes.absent.push(write.file.clone());
                    Ok(())
                }
                Some(Errno::EINVAL) if write.tolerate.rejection() => {
                    outcomes.rejected.push(write.file.clone());
                    Ok(())
                }
                Some(Errno::EBUSY) if write.file == "memory.limit_in_bytes" => {
                    self.memory_in_use(write, error)
                }
                _ => {
                    Err(CgroupError::Limit { controller: write.controller.clone(), source: Box::new(error) })
                }
            },
        }
    }

    /// A file of `unified`: each line is a command of its own.
    fn write_lines(&self, write: &Write) -> Result<(), CgroupError> {
        let failed = |value: &str, source| CgroupError::Write {
            path: self.path.join(&write.file),
            value: value.to_owned(),
            source,
        };
        let open = || {
            cgroupfs::open_to_write(self.dir()?, &write.file).map_err(|source| failed(&write.value, source))
        };
        let mut file = open()?;
        for (number, line) in write.value.split_inclusive('\n').enumerate() {
            // The kernel keeps one threshold for a descriptor. Here it is only checked: it goes with that.
            if number > 0 && pressure::takes_thresholds(&write.file) {
                file = open()?;
            }
            cgroupfs::write(&file, line.as_bytes()).map_err(|source| failed(line, source))?;
        }
        Ok(())
    }

    /// Says whether it is the form, the controller or the value that is at fault.
    fn unified_error(&self, write: &Write, error: CgroupError) -> CgroupError {
        let file = write.file.clone();
        if matches!(error.errno(), Some(Errno::ENOENT | Errno::EPERM | Errno::EACCES)) {
            let Some((controller, _)) = file.split_once('.') else {
                return CgroupError::UnifiedForm { file };
            };
            let available = self.read("cgroup.controllers").unwrap_or_default();
            if controller != "cgroup" && !available.split_whitespace().any(|name| name == controller) {
                let controller = controller.to_owned();
                return CgroupError::UnifiedController { file, controller };
            }
        }
        CgroupError::Unified { file, source: Box::new(error) }
    }

    fn memory_in_use(&self, write: &Write, error: CgroupError) -> Result<(), CgroupError> {
        let read = |file| self.read(file).map(|content| content.trim().to_owned());
        match (read("memory.usage_in_bytes"), read("memory.max_usage_in_bytes")) {
            (Ok(usage), Ok(peak)) => {
                Err(CgroupError::MemoryInUse { limit: write.value.clone(), usage, peak })
            }
            _ => Err(CgroupError::Limit { controller: write.controller.clone(), source: Box::new(error) }),
        }
    }
}
