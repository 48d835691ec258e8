//! Namespaces of other containers, to be joined. The first process of each is found once and looked into by its open folder in
//! /proc: a number that has become another process's meanwhile leads nowhere, and a container that has been started again
//! meanwhile is not half the one before. Called by `namespaces`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::container::Container;
use super::living;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// See the module. What was opened stays so as long as this, and its paths lead there as long.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Folders in /proc, by containers' ids.
    processes: BTreeMap<String, OwnedFd>,
    namespaces: Vec<File>,
}

/// A namespace of another container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// What leads to it, for other processes too.
    pub(super) path: String,
    /// By which the kernel knows it.
    pub(super) number: (u64, u64),
}

impl Others {
    /// Opens a namespace of a container's first process; `kind` is as /proc has it.
    ///
    /// # Errors
    /// There is no such container, or it does not run: dockerd's texts.
    pub(super) fn open(&mut self, daemon: &Daemon, other: &str, kind: &str) -> Result<Shared> {
        let other = daemon.engine.find(other)?;
        if !self.processes.contains_key(&other.id) {
            let pid = running(&other)?;
            let found = process(pid, &other.id).map_err(|error| not_opened(&other, &error))?;
            let found = found.ok_or_else(|| not_running(&other))?;
            let _none = self.processes.insert(other.id.clone(), found);
        }
        let Some(process) = self.processes.get(&other.id) else { return Err(not_running(&other)) };
        let opened = namespace(process, kind).map_err(|error| not_opened(&other, &error))?;
        let (file, number) = opened.ok_or_else(|| not_running(&other))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        self.namespaces.push(file);
        Ok(Shared { path, number })
    }
}

/// What the kernel knows this process's own user namespace by.
///
/// # Errors
/// The kernel's.
pub(super) fn own_users() -> Result<(u64, u64)> {
    let own = std::fs::metadata("/proc/self/ns/user");
    let own = own.map_err(|error| Error::internal("looking at the own user namespace", &error))?;
    Ok((own.dev(), own.ino()))
}

/// The number of the first process, which may be another's by now.
fn running(other: &Container) -> Result<u32> {
    let (pid, restarting) = other.read(|record| (record.state.pid, record.state.restarting));
    if restarting {
        return Err(Error::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            other.id
        )));
    }
    if pid == 0 { Err(not_running(other)) } else { Ok(pid) }
}

fn not_running(other: &Container) -> Error {
    Error::conflict(format!("container {} is not running", other.id))
}

fn not_opened(other: &Container, error: &io::Error) -> Error {
    Error::internal(format_args!("opening a namespace of container {}", other.id), error)
}

/// The folder of a process, if that is the container's.
fn process(pid: u32, id: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = match openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Of the process that is open, whoever has its number by now.
    let opened = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    Ok(living::is_of(&opened, id)?.then_some(folder))
}

/// The namespace of a process, and what the kernel knows it by; `None` when the process has ended.
fn namespace(process: &OwnedFd, kind: &str) -> io::Result<Option<(File, (u64, u64))>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match openat(process, format!("ns/{kind}"), flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            let about = file.metadata()?;
            Ok(Some((file, (about.dev(), about.ino()))))
        }
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_has_no_namespaces_whoever_has_its_number() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        // The root of the tree is in everybody's.
        let folder = process(child.id(), "/").unwrap().unwrap();
        let (file, number) = namespace(&folder, "user").unwrap().unwrap();
        assert_eq!(number, own_users().unwrap());
        assert!(namespace(&folder, "no-such-kind").unwrap().is_none());
        assert!(process(child.id(), "an-id-of-no-cgroup").unwrap().is_none());
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        child.kill().unwrap();
        let _status = child.wait().unwrap();
        assert!(namespace(&folder, "user").unwrap().is_none());
        assert!(process(child.id(), "/").unwrap().is_none());
        let there = std::fs::metadata(path).unwrap();
        assert_eq!((there.dev(), there.ino()), number, "what was opened stays");
    }
}
