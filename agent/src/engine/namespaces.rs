//! Which namespaces a container gets: its own, the host's, or another container's; and its network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::bundle::Namespaces;
use super::container::Record;
use super::networking;
use super::user_namespace::{Holder, Which};
use crate::blocking::blocking;
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
    /// Keeps the user namespace until the container's processes are in it.
    _users: Option<Holder>,
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
                Some(other) => {
                    let cannot = |error: Error| {
                        let kind = kind.to_uppercase();
                        Error::new(error.kind, format!("failed to join {kind} namespace: {}", error.message))
                    };
                    path_of(daemon, other, kind).map(Some).map_err(cannot)
                }
                None => Ok(Some(String::new())),
            },
        }
    };
    let uts = if host_config.uts_mode == "host" { None } else { Some(String::new()) };
    let cgroup = match host_config.cgroupns_mode.as_str() {
        "private" => Some(String::new()),
        _ => None,
    };
    let users = users_of(daemon, record)?;
    let holder = match &users {
        Some(at) if !networking::has_namespace(record) => Some(hold(daemon, at.clone()).await?),
        _ => None,
    };
    let made = holder.as_ref().map(Holder::network);
    let network = networking::join(daemon, record, made).await?;
    let user = match (&holder, users) {
        (Some(holder), _) => Some(holder.users().to_string_lossy().into_owned()),
        (None, users) => users,
    };
    Ok(Joined {
        namespaces: Namespaces {
            net: network.namespace,
            pid: own(&host_config.pid_mode, "pid")?,
            ipc: own(&host_config.ipc_mode, "ipc")?,
            uts,
            cgroup,
            user,
        },
        settings: network.settings,
        files: network.files,
        _users: holder,
    })
}

/// The user namespace of a container: nothing for the host's, an empty text for a new one, or the file of another's, whose other
/// namespaces it shares: they belong to that.
fn users_of(daemon: &Daemon, record: &Record) -> Result<Option<String>> {
    if !is_remapped(daemon, record) {
        return Ok(None);
    }
    let host_config = &record.host_config;
    let modes = [&host_config.network_mode, &host_config.ipc_mode, &host_config.pid_mode];
    let mut shared: Option<(String, PathBuf)> = None;
    for (mode, kind) in modes.into_iter().zip(["network", "ipc", "pid"]) {
        let Some(other) = mode.strip_prefix("container:") else { continue };
        let path = path_of(daemon, other, kind)?;
        let path = path.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/user"));
        let link = |path: &str| {
            std::fs::read_link(path).map_err(|error| Error::internal(format_args!("reading {path}"), &error))
        };
        let (found, host) = (link(&path)?, link("/proc/self/ns/user")?);
        if found == host {
            return Err(Error::conflict(format!(
                "cannot join {kind} namespace of container {other}, which is in the host's user namespace: --userns=host joins it"
            )));
        }
        match &shared {
            Some((_, before)) if *before != found => {
                return Err(Error::conflict(format!(
                    "cannot join {kind} namespace of container {other}: it is in another user namespace than the others that are joined"
                )));
            }
            _ => shared = Some((path, found)),
        }
    }
    Ok(Some(shared.map_or_else(String::new, |(path, _)| path)))
}

/// Whether a container's users are others on the host.
#[must_use]
pub fn is_remapped(daemon: &Daemon, record: &Record) -> bool {
    daemon.ids.are_mapped() && record.host_config.userns_mode != "host"
}

async fn hold(daemon: &Arc<Daemon>, at: String) -> Result<Holder> {
    let ids = daemon.ids.clone();
    blocking(move || {
        Holder::start(&match at.as_str() {
            "" => Which::New(&ids),
            path => Which::At(Path::new(path)),
        })
    })
    .await
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
        return Err(Error::conflict(format!("container {} is not running", other.id)));
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
