//! Which namespaces a container gets: its own, the host's, or another container's; and its network.

use std::sync::Arc;

use serde_json::{Value, json};

use super::bundle::Namespaces;
use super::container::Record;
use super::networking;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// What a run has of the host's and of others' namespaces.
#[derive(Debug)]
pub struct Joined {
    /// Each kind.
    pub namespaces: Namespaces,
    /// What `inspect` shows of the network.
    pub settings: Value,
    /// hosts, hostname and resolv.conf, as mounts.
    pub files: Vec<Value>,
}

/// Decides, and joins the networks.
///
/// # Errors
/// The other container is not there or does not run; a network's own.
pub async fn join(daemon: &Arc<Daemon>, record: &Record) -> Result<Joined> {
    let host_config = &record.host_config;
    let own = |mode: &str, kind: &str| -> Result<Option<String>> {
        match mode {
            "host" => Ok(None),
            _ => match mode.strip_prefix("container:") {
                Some(other) => Ok(Some(path_of(daemon, other, kind)?)),
                None => Ok(Some(String::new())),
            },
        }
    };
    let uts = if host_config.uts_mode == "host" { None } else { Some(String::new()) };
    let cgroup = match host_config.cgroupns_mode.as_str() {
        "private" => Some(String::new()),
        _ => None,
    };
    let network = networking::join(daemon, record).await?;
    Ok(Joined {
        namespaces: Namespaces {
            net: network.namespace,
            pid: own(&host_config.pid_mode, "pid")?,
            ipc: own(&host_config.ipc_mode, "ipc")?,
            uts,
            cgroup,
        },
        settings: network.settings,
        files: network.files,
    })
}

/// The namespace of another container's first process.
///
/// # Errors
/// There is no such container, or it does not run: dockerd's texts.
pub fn path_of(daemon: &Daemon, other: &str, kind: &str) -> Result<String> {
    let other = daemon.engine.find(other)?;
    let (pid, restarting) = other.read(|record| (record.state.pid, record.state.restarting));
    if restarting {
        return Err(Error::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            other.id
        )));
    }
    if pid == 0 {
        return Err(Error::conflict(format!(
            "cannot join {kind} namespace of a non running container: container {} is exited",
            other.id
        )));
    }
    Ok(format!("/proc/{pid}/ns/{kind}"))
}

/// A bind of a file.
#[must_use]
pub fn bound(source: &str, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate"] })
}

/// The same, which the container can't write to.
#[must_use]
pub fn bound_read_only(source: &str, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind", "ro"] })
}
