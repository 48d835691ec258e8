//! What a container is doing now, as the kernel has it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use ketch_sys::{Errno, SyscallError, process};
use serde::Serialize;
use std::collections::BTreeMap;

use super::{Container, ContainerError};
use crate::state::State;
use crate::{host, rfc3339};

/// The runtime-spec's statuses, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is still at it.
    Creating,
    /// Waiting for `start`.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// The first process is gone.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The output of `state`, and an entry of `list`. Field order is runc's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateView {
    /// The runtime-spec version of this output.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The first process; 0 when it is gone.
    pub pid: i32,
    /// What it does.
    pub status: Status,
    /// Its bundle.
    pub bundle: String,
    /// Its root file system.
    pub rootfs: String,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user that made it; filled in by whoever knows names of users.
    pub owner: String,
}

/// The state that hooks get on their stdin (runtime-spec, "State").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HookState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

/// The state as hooks get it.
pub(super) fn hook_state(state: &State, status: &str, pid: i32) -> Vec<u8> {
    let view = HookState {
        oci_version: &state.config.version,
        id: &state.id,
        status,
        pid,
        bundle: state.config.bundle(),
        annotations: state.config.annotations(),
    };
    serde_json::to_vec(&view).unwrap_or_default()
}

impl Container {
    /// A handle on the first process, if it lives: its number and start time are what is remembered.
    ///
    /// # Errors
    /// It can't be looked at, which says nothing of whether it lives.
    pub fn init(&self) -> Result<Option<OwnedFd>, ContainerError> {
        live_process(self.state.init_process_pid, self.state.init_process_start)
            .map_err(|source| ContainerError::Signal { action: "looking at the container's init", source })
    }

    /// What the container does now.
    ///
    /// # Errors
    /// The kernel did not say: a process that can't be looked at is not a stopped one.
    pub fn status(&self) -> Result<Status, ContainerError> {
        if self.state.init_process_pid == 0 {
            return Ok(Status::Creating);
        }
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        if super::lifecycle::frozen(&self.cgroup())? {
            return Ok(Status::Paused);
        }
        Ok(if self.dir.waits_for_start()? { Status::Created } else { Status::Running })
    }

    /// The output of `state`.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn view(&self) -> Result<StateView, ContainerError> {
        let status = self.status()?;
        let config = &self.state.config;
        Ok(StateView {
            oci_version: crate::spec::OCI_VERSION.to_owned(),
            id: self.state.id.clone(),
            pid: if status == Status::Stopped { 0 } else { self.state.init_process_pid },
            status,
            bundle: config.bundle().to_owned(),
            rootfs: config.rootfs.display().to_string(),
            created: self.state.created.clone(),
            annotations: config
                .annotations()
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            owner: String::new(),
        })
    }
}

/// A handle on the process `pid` that started at `start`, unless it is gone, a zombie, or another one by now.
pub(super) fn live_process(pid: i32, start: u64) -> Result<Option<OwnedFd>, SyscallError> {
    if pid <= 0 {
        return Ok(None);
    }
    // The handle first: what is read after it is about the process that it holds, or one that came later.
    let handle = match process::pidfd_open(pid) {
        // The number is nobody's, or a thread's by now.
        Err(error) if matches!(error.errno, Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        other => other?,
    };
    let stat = ProcessStat::read(pid)?;
    Ok(stat.filter(|stat| stat.start == start && !stat.is_dead()).map(|_| handle))
}

/// What `/proc/<pid>/stat` says (proc(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProcessStat {
    state: u8,
    /// Clock ticks since boot.
    pub(super) start: u64,
}

impl ProcessStat {
    /// None for a process that is gone.
    pub(super) fn read(pid: i32) -> Result<Option<Self>, SyscallError> {
        let path = format!("/proc/{pid}/stat");
        match host::read_procfs(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) => match error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw) {
                Errno::ENOENT | Errno::ESRCH => Ok(None),
                errno => Err(SyscallError::new("read", path, errno)),
            },
        }
    }

    /// The name, in parentheses, may hold anything, so that fields are counted from its end.
    fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        Some(Self { state, start: fields.nth(18)?.parse().ok()? })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// The time now, as `created` has it.
pub(super) fn now() -> String {
    rfc3339::nanoseconds(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let stat = b"12 (a) b) S 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2";
        assert_eq!(ProcessStat::parse(stat), Some(ProcessStat { state: b'S', start: 98765 }));
        assert_eq!(ProcessStat::parse(b"garbage"), None);
    }

    #[test]
    fn this_process_lives() {
        let pid = process::own_pid();
        let start = ProcessStat::read(pid).unwrap().unwrap().start;
        assert!(live_process(pid, start).unwrap().is_some());
        assert!(live_process(pid, start + 1).unwrap().is_none());
    }
}
