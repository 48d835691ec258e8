//! Whether a container's processes live, by the kernel's word alone, and signals to the first of them: for when no shim can be
//! asked, as none can be started or reached. Called by `takeover`, `ending` and `deliver`, which kill nothing that lives for want
//! of a shim.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix_libc_wrappers::process::SignalExt;

use super::container::Container;
use crate::blocking::blocking;

/// Whether a process is in the container's cgroup. What can't be looked at, for want of descriptors or memory, counts as one.
pub(super) async fn lives(id: &str) -> bool {
    let id = id.to_owned();
    blocking(move || Ok(any(Path::new("/proc"), &id))).await.unwrap_or(true)
}

fn any(processes: &Path, id: &str) -> bool {
    let Ok(mut entries) = fs::read_dir(processes) else { return true };
    entries.any(|entry| {
        entry.is_ok_and(|entry| {
            let (name, process) = (entry.file_name(), entry.path());
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
                && is_of(&process, id).unwrap_or(true)
                && !is_dead(&process).unwrap_or(false)
        })
    })
}

/// Whether a process is the container's, whose id is in the name of its cgroup, and in no other's; `process` is its folder in
/// /proc. One that is no more is nobody's.
///
/// # Errors
/// It can't be looked at, for want of descriptors or memory.
pub(super) fn is_of(process: &Path, id: &str) -> io::Result<bool> {
    Ok(read(&process.join("cgroup"))?.is_some_and(|text| text.contains(id)))
}

/// Whether it has ended; one that nobody has waited for yet is there still. The state is behind the name, which may have any
/// letters.
fn is_dead(process: &Path) -> io::Result<bool> {
    let stat = read(&process.join("stat"))?;
    Ok(stat.is_none_or(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))))
}

/// A file of a process; `None` when that is no more.
fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read(file) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if has_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// A container's first process, open: what is done with it is done to no other.
#[derive(Debug)]
pub(super) struct First(OwnedFd);

impl First {
    /// The one that the record names; `None` when it is no more.
    ///
    /// # Errors
    /// It can't be looked at, for want of descriptors or memory.
    pub(super) fn of(container: &Container) -> io::Result<Option<Self>> {
        let pid = i32::try_from(container.read(|record| record.state.pid)).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(None) };
        let opened = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(opened) => opened,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The number may have been another's by then: it is asked once it can't become another's.
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        Ok(is_of(&process, &container.id)?.then_some(Self(opened)))
    }

    /// Sends it a signal; false when it has ended, or there is no such signal.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn signal(&self, number: u32) -> io::Result<bool> {
        let Some(signal) = i32::try_from(number).ok().and_then(Signal::from_raw) else { return Ok(false) };
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended, as far as the kernel tells now.
    pub(super) fn has_ended(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&at_once)).is_ok_and(|count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn processes_are_known_by_their_cgroup() {
        let folder = Folder::new("living");
        let process = |pid: &str, cgroup: &str, stat: &str| {
            let process = folder.path().join(pid);
            fs::create_dir(&process).unwrap();
            fs::write(process.join("cgroup"), cgroup).unwrap();
            fs::write(process.join("stat"), stat).unwrap();
        };
        process("1", "4:pids:/\n0::/init.scope\n", "1 (systemd) S 0");
        process("20", "0::/docker/dead\n", "20 (Z) S) Z 1");
        process("300", "4:pids:/docker/alive/inner\n0::/\n", "300 (a) Z b) S 1");
        process("self", "0::/docker/other\n", "300 (x) S 1");
        for (id, wanted) in [("alive", true), ("dead", false), ("other", false), ("nobody", false)] {
            assert_eq!(any(folder.path(), id), wanted, "{id}");
        }
        assert!(any(&folder.path().join("nothing"), "x"), "what can't be looked at is not dead");
        assert!(!any(Path::new("/proc"), "an-id-of-no-cgroup"));
    }

    #[test]
    fn an_end_is_seen_before_it_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let first = First(pidfd_open(pid, PidfdFlags::empty()).unwrap());
        assert!(!first.has_ended());
        // No signal has that number for a program, and nothing comes of it.
        assert!(!first.signal(32).unwrap() && !first.signal(65).unwrap());
        assert!(first.signal(64).unwrap(), "the last of the real-time ones");
        let end = std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap());
        assert_eq!((end, first.has_ended(), first.signal(9).unwrap()), (Some(64), true, false));
    }

    #[test]
    fn what_can_not_be_read_is_not_dead_and_not_killed() {
        let folder = Folder::new("living");
        let process = folder.path().join("1");
        fs::create_dir(&process).unwrap();
        fs::create_dir(process.join("cgroup")).unwrap();
        fs::write(process.join("stat"), "1 (x) S 0").unwrap();
        assert!(any(folder.path(), "x"));
        assert!(is_of(&process, "x").is_err());
        fs::remove_dir(process.join("cgroup")).unwrap();
        assert!(!any(folder.path(), "x"), "it has gone");
        assert!(!is_of(&process, "x").unwrap());
    }
}
