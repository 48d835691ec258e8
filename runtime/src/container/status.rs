//! What a container is doing now, as the kernel has it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use ketch_sys::process;
use serde::Serialize;
use std::collections::BTreeMap;

use super::Container;
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
    #[must_use]
    pub fn init(&self) -> Option<OwnedFd> {
        live_process(self.state.init_process_pid, self.state.init_process_start)
    }

    /// What the container does now.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.state.init_process_pid == 0 {
            return Status::Creating;
        }
        if self.init().is_none() {
            return Status::Stopped;
        }
        if super::lifecycle::frozen(&self.cgroup()).unwrap_or(false) {
            return Status::Paused;
        }
        if self.dir.fifo().exists() { Status::Created } else { Status::Running }
    }

    /// The output of `state`.
    #[must_use]
    pub fn view(&self) -> StateView {
        let status = self.status();
        let config = &self.state.config;
        StateView {
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
        }
    }
}

/// A handle on the process `pid` that started at `start`, unless it is gone, a zombie, or another one by now.
pub(super) fn live_process(pid: i32, start: u64) -> Option<OwnedFd> {
    if pid <= 0 {
        return None;
    }
    // The handle first: what is read after it is about the process that it holds, or one that came later.
    let handle = process::pidfd_open(pid).ok()?;
    let stat = ProcessStat::read(pid)?;
    (stat.start == start && !stat.is_dead()).then_some(handle)
}

/// What `/proc/<pid>/stat` says (proc(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProcessStat {
    state: u8,
    /// Clock ticks since boot.
    pub(super) start: u64,
}

impl ProcessStat {
    pub(super) fn read(pid: i32) -> Option<Self> {
        Self::parse(&host::read_procfs(&format!("/proc/{pid}/stat")).ok()?)
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
        let start = ProcessStat::read(pid).unwrap().start;
        assert!(live_process(pid, start).is_some());
        assert!(live_process(pid, start + 1).is_none());
    }
}
