//! The processes of a container: listing and killing them.

use std::os::fd::AsFd;
use std::path::Path;

use ketch_sys::process::{self, Pid};
use ketch_sys::{Errno, SyscallError, cgroupfs, signal};

use super::{Cgroup, CgroupError, is_gone};

/// Sends SIGKILL to a process, whatever it is just doing.
pub(crate) fn kill(pid: Pid) -> Result<(), SyscallError> {
    process::pidfd_open(pid).and_then(|fd| process::pidfd_send_signal(fd, signal::KILL))
}

impl Cgroup {
    /// The processes of the cgroup and of its sub-cgroups, as the caller's pid namespace numbers them.
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        let group = self.processes_group().ok_or(CgroupError::NotExist)?;
        let mut pids = Vec::new();
        let failed = |source| CgroupError::List { path: group.path.clone(), source };
        collect(group.dir()?, &mut pids).map_err(failed)?;
        Ok(pids)
    }

    /// Sends SIGKILL to every process, also to those that are frozen. The processes end in their own time; removing
    /// the cgroup waits for that.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if !self.exists()? {
            return Err(CgroupError::NotExist);
        }
        if let Some(group) = self.v2_group() {
            match group.write("cgroup.kill", "1") {
                // Beside v1, a process may have been kept out of cgroup2.
                Ok(()) if self.groups.len() > 1 => return self.kill_listed(),
                Ok(()) => return Ok(()),
                // Before kernel 5.14, or in a threaded cgroup.
                Err(error) if error.is_absence() || error.errno() == Some(Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        self.kill_listed()
    }

    /// Frozen processes can't fork away from the list or give their numbers to others, and get the signal when thawed.
    fn kill_listed(&self) -> Result<(), CgroupError> {
        let pids = self.pids()?;
        if pids.is_empty() {
            return Ok(());
        }
        let frozen = self.freeze();
        let killed = self.pids().and_then(|pids| {
            let mut first = Ok(());
            for pid in pids {
                match kill(pid) {
                    Err(source) if source.errno != Errno::ESRCH && first.is_ok() => {
                        first = Err(CgroupError::Kill { pid, source });
                    }
                    _ => {}
                }
            }
            first
        });
        // A container that was paused by its user is to end as well.
        let thawed = self.thaw();
        match frozen {
            Ok(()) => killed.and(thawed),
            // Without a freezer the signals were sent all the same.
            Err(_) => killed,
        }
    }
}

fn collect(dir: impl AsFd, pids: &mut Vec<Pid>) -> Result<(), SyscallError> {
    let procs = match cgroupfs::read_value(&dir, "cgroup.procs") {
        // A threaded cgroup only tells its threads.
        Err(error) if error.errno == Errno::EOPNOTSUPP => cgroupfs::read_value(&dir, "cgroup.threads")?,
        other => other?,
    };
    pids.extend(procs.lines().filter_map(|line| line.parse::<Pid>().ok()));
    for name in cgroupfs::sub_dirs(&dir)? {
        let below = cgroupfs::open_sub_dir(&dir, Path::new(&name)).and_then(|sub| collect(sub, pids));
        match below {
            // A sub-cgroup may go away while we walk.
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
