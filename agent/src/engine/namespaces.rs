//! Which namespaces a container gets: its own, the host's, or another container's; and its network.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::bundle::Namespaces;
use super::container::Record;
use super::networking;
use super::others::{Others, Shared, own_users};
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
    /// Keep the paths to other containers' namespaces until it is.
    _others: Others,
}

/// Decides, and joins the networks.
///
/// # Errors
/// The other container is not there or does not run; a network's own.
pub async fn join(daemon: &Arc<Daemon>, record: &Record) -> Result<Joined> {
    let host_config = &record.host_config;
    let mut others = Others::default();
    let users = users_of(daemon, record, &mut others)?;
    let mut own = |mode: &str, kind: &str| -> Result<Option<String>> {
        match mode {
            "host" => Ok(None),
            _ => match mode.strip_prefix("container:") {
                Some(other) => {
                    let cannot = |error: Error| {
                        let kind = kind.to_uppercase();
                        Error::new(error.kind, format!("failed to join {kind} namespace: {}", error.message))
                    };
                    others.open(daemon, other, kind).map(|shared| Some(shared.path)).map_err(cannot)
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
        _others: others,
    })
}

/// The user namespace of a container: nothing for the host's, an empty text for a new one, or the file of another's, whose other
/// namespaces it shares: they belong to that.
fn users_of(daemon: &Daemon, record: &Record, others: &mut Others) -> Result<Option<String>> {
    if !is_remapped(daemon, record) {
        return Ok(None);
    }
    let host_config = &record.host_config;
    let modes = [&host_config.network_mode, &host_config.ipc_mode, &host_config.pid_mode];
    let host = own_users()?;
    let mut shared: Option<Shared> = None;
    for (mode, kind) in modes.into_iter().zip(["network", "ipc", "pid"]) {
        let Some(other) = mode.strip_prefix("container:") else { continue };
        let found = others.open(daemon, other, "user")?;
        if found.number == host {
            return Err(Error::conflict(format!(
                "cannot join {kind} namespace of container {other}, which is in the host's user namespace: --userns=host joins it"
            )));
        }
        match &shared {
            Some(before) if before.number != found.number => {
                return Err(Error::conflict(format!(
                    "cannot join {kind} namespace of container {other}: it is in another user namespace than the others that are joined"
                )));
            }
            _ => shared = Some(found),
        }
    }
    Ok(Some(shared.map_or_else(String::new, |shared| shared.path)))
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
