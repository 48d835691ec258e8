//! A container in its networks: what it asks of them, and what it is shown of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_engine_api::network::{NetworkSettings, PortBinding, PortMap};
use serde_json::Value;
use tracing::warn;

use super::container::{Container, Record};
use super::lifecycle::{folder_of, make_folder};
use super::namespaces::{bound, bound_read_only};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::network::record::OfService;
use crate::network::{Join, LinkTo, Mode};

/// A container's network.
#[derive(Debug)]
pub struct Network {
    /// `None` for the host's.
    pub namespace: Option<String>,
    /// What `inspect` shows.
    pub settings: Value,
    /// hosts, hostname and resolv.conf, as mounts.
    pub files: Vec<Value>,
}

/// Checks the networks of a container that is being made, and has its own among its endpoints.
///
/// # Errors
/// No such network, or no such container.
pub fn plan(daemon: &Daemon, record: &mut Record) -> Result<()> {
    let mode = record.host_config.network_mode.clone();
    if let Some(other) = mode.strip_prefix("container:") {
        // One that is not there is told of at the start.
        if let Ok(other) = daemon.engine.find(other) {
            record.host_config.network_mode = format!("container:{}", other.id);
        }
        record.endpoints.clear();
        return Ok(());
    }
    // What the command line calls the network that the mode is by default.
    if let Some(asked) = record.endpoints.remove("default") {
        let _before = record.endpoints.insert(mode.clone(), asked);
    }
    // A name that the mode has may be given by its id among the endpoints, and the other way round.
    let names: Vec<_> = record.endpoints.keys().cloned().collect();
    let own = daemon.networks.find(&mode).ok();
    let is_own = |name: &String| {
        *name == mode
            || own.as_ref().is_some_and(|own| daemon.networks.find(name).is_ok_and(|one| one.id == own.id))
    };
    let own = names.into_iter().find(is_own).unwrap_or(mode);
    let endpoint = record.endpoints.entry(own).or_default();
    // Clients before 1.44 say it of the container, and it is shown there.
    if endpoint.mac_address.is_empty() {
        endpoint.mac_address.clone_from(&record.config.mac_address);
    }
    record.config.mac_address.clone_from(&endpoint.mac_address);
    for (name, asked) in &record.endpoints {
        let Ok(network) = daemon.networks.find(name) else { continue };
        daemon
            .networks
            .check_endpoint(&network, asked)
            .map_err(|error| Error::new(error.kind, format!("invalid config for network {name}: {error}")))?;
    }
    Ok(())
}

/// Has a container that is in another's network its names, too.
pub fn take_names(daemon: &Daemon, container: &Container) {
    let mode = container.read(|record| record.host_config.network_mode.clone());
    let Some(Ok(other)) = mode.strip_prefix("container:").map(|other| daemon.engine.find(other)) else {
        return;
    };
    let names = other.read(|record| (record.config.hostname.clone(), record.config.domainname.clone()));
    container.change(|record| (record.config.hostname, record.config.domainname) = names);
}

/// Whether a container's network namespace is another's or the host's: there is none to be made.
#[must_use]
pub fn has_namespace(record: &Record) -> bool {
    matches!(Mode::of(&record.host_config.network_mode), Mode::Container(_) | Mode::Host)
}

/// Joins; `made` is the container's network namespace, where that is not to be made here.
///
/// # Errors
/// The network's own; another container that does not run.
pub async fn join(daemon: &Arc<Daemon>, record: &Record, made: Option<PathBuf>) -> Result<Network> {
    let host_config = &record.host_config;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let folder = folder_of(daemon, &record.id);
    make_folder(&folder, 0o711)?;
    let places = super::places::of(daemon, record).await?;
    let links = list(&host_config.links).iter().map(|link| link_to(daemon, link)).collect::<Result<_>>()?;
    let join = Join {
        container: record.id.clone(),
        name: record.name.clone(),
        hostname: record.config.hostname.clone(),
        domain: record.config.domainname.clone(),
        mode: match Mode::of(&host_config.network_mode) {
            mode @ Mode::Container(_) => mode,
            _ if record.config.network_disabled => Mode::None,
            mode => mode,
        },
        endpoints: places.endpoints.clone(),
        places: places.tasks.clone(),
        service: record.task.as_ref().map(|of| OfService { task: of.id.clone(), labels: of.labels.clone() }),
        bindings: bindings(record),
        exposed: record.config.exposed_ports.iter().flatten().map(|(port, _)| port.clone()).collect(),
        publish_all: host_config.publish_all_ports,
        links,
        extra_hosts: list(&host_config.extra_hosts),
        servers: list(&host_config.dns),
        search: list(&host_config.dns_search),
        options: list(&host_config.dns_options),
        folder,
        owner: daemon.ids.root(),
        made,
    };
    if let Mode::Container(other) = &join.mode {
        must_run(daemon, other)?;
    }
    let networks = daemon.networks.clone();
    let joined = blocking(move || networks.join(&join)).await?;
    drop(places);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let files = [
        (&joined.resolv_conf, "/etc/resolv.conf"),
        (&joined.hostname, "/etc/hostname"),
        (&joined.hosts, "/etc/hosts"),
    ];
    let files = files.into_iter().filter(|(path, _)| path.exists());
    Ok(Network {
        namespace: joined.namespace.as_deref().map(text),
        settings: serde_json::to_value(&joined.settings)
            .map_err(|error| Error::internal("encoding the network's settings", &error))?,
        files: files
            .map(|(path, place)| match host_config.readonly_rootfs {
                true => bound_read_only(&text(path), place),
                false => bound(&text(path), place),
            })
            .collect(),
    })
}

/// Whose namespace is joined has to run.
fn must_run(daemon: &Daemon, other: &str) -> Result<()> {
    let other = daemon.engine.find(other).map_err(|error| {
        Error::new(error.kind, format!("joining network namespace of container: {error}"))
    })?;
    let (name, state) = other.read(|record| (record.name.clone(), record.state.clone()));
    if state.restarting {
        return Err(Error::conflict(format!(
            "Container {name} is restarting, wait until the container is running"
        )));
    }
    if !state.running {
        return Err(Error::conflict(format!(
            "cannot join network namespace of a non running container: container {name} is {}",
            state.word()
        )));
    }
    Ok(())
}

fn link_to(daemon: &Daemon, link: &str) -> Result<LinkTo> {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    let other = daemon.engine.find(name).map_err(|error| {
        Error::new(Kind::InvalidArgument, format!("could not get container for {name}: {error}"))
    })?;
    let alias = alias.rsplit('/').next().unwrap_or(alias).to_owned();
    Ok(LinkTo { container: other.id.clone(), name: other.name(), alias })
}

fn bindings(record: &Record) -> PortMap {
    let all = record.host_config.port_bindings.iter().flatten();
    all.map(|(port, bindings)| {
        let one = |one: &ketch_engine_api::host_config::PortBinding| PortBinding {
            host_ip: one.host_ip.clone(),
            host_port: one.host_port.clone(),
        };
        (port.clone(), bindings.as_ref().map(|all| all.iter().map(one).collect()))
    })
    .collect()
}

/// Leaves.
pub async fn leave(daemon: &Arc<Daemon>, record: &Record) {
    let (networks, id) = (daemon.networks.clone(), record.id.clone());
    if let Err(error) = blocking(move || networks.leave(&id)).await {
        warn!("{error}");
    }
}

/// What is shown of a container's networks: of one that does not run, what it has asked for.
pub fn shown(daemon: &Daemon, record: &Record) -> Value {
    let running = record.state.running && !record.state.restarting;
    let settings = match daemon.networks.settings(&record.id).filter(|_| running) {
        Some(settings) => settings,
        None => {
            let mut networks = record.endpoints.clone();
            if record.was_started {
                for (name, endpoint) in &mut networks {
                    if let Ok(network) = daemon.networks.find(name) {
                        endpoint.network_id = network.id;
                    }
                }
            }
            NetworkSettings::with(networks)
        }
    };
    serde_json::to_value(settings).unwrap_or_default()
}
