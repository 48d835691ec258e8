//! A container comes into a further network, or out of one, whether it runs or not.

use std::sync::Arc;

use ketch_engine_api::network::EndpointSettings;

use super::container::Container;
use super::deliver::to_change;
use super::places;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::network::Mode;
use crate::network::record::Network;

/// Connects a container to a network.
///
/// # Errors
/// No such network or container, or one that can't have it: dockerd's texts.
pub async fn connect(daemon: &Arc<Daemon>, name: &str, other: &str, asked: EndpointSettings) -> Result<()> {
    let container = daemon.engine.find(other)?;
    let _changing = to_change(&container).await?;
    let is_of_cluster = places::is_of_cluster(daemon, name);
    if is_of_cluster && container.read(|record| record.task.is_some()) {
        return Err(of_task(&container.name()));
    }
    let network = match daemon.networks.find(name) {
        Ok(network) => Some(network),
        Err(_) if is_of_cluster => None,
        Err(error) => return Err(error),
    };
    let mode = container.read(|record| Mode::of(&record.host_config.network_mode));
    if matches!(mode, Mode::Host | Mode::Container(_)) {
        return Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    let named = network.as_ref().map_or(name, |network| network.name.as_str()).to_owned();
    if named == "host" {
        return Err(Error::invalid(
            "cannot connect container to host network - container must be created in host network mode",
        ));
    }
    // What it is in now counts: it may have left "none", with which it was made.
    let others = container.read(|record| record.endpoints.keys().cloned().collect::<Vec<_>>());
    if others.iter().any(|other| other == "none") || (named == "none" && !others.is_empty()) {
        return Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    if let Some(network) = &network {
        daemon.networks.check_endpoint(network, &asked)?;
    }
    if container.is_running() {
        let known = network.as_ref().map_or(name, |network| network.id.as_str());
        if is_of_cluster && is_in(daemon, &container, network.as_ref()) {
            let message = format!("{} is already attached to network {named}", container.name());
            return Err(Error::conflict(message));
        }
        let record = container.read(Clone::clone);
        let (network, connect, joining) = places::for_connect(daemon, &record, (known, &asked)).await?;
        let (networks, id) = (daemon.networks.clone(), container.id.clone());
        blocking(move || networks.connect(&network, &id, connect)).await?;
        drop(joining);
    }
    container.change(|record| record.endpoints.insert(named, asked));
    container.save(daemon).await
}

/// Whether a running container is in the network.
fn is_in(daemon: &Daemon, container: &Container, network: Option<&Network>) -> bool {
    let settings = daemon.networks.settings(&container.id).unwrap_or_default();
    network.is_some_and(|network| settings.networks.values().any(|one| one.network_id == network.id))
}

/// The managers decide which networks a task is in.
fn of_task(name: &str) -> Error {
    let message =
        format!("container {name} is a task of a service: its networks of the cluster are its service's");
    Error::new(Kind::Forbidden, message)
}

/// Takes a container out of a network; `force`: also one that is not there any more.
///
/// # Errors
/// No such network or container, or it is not in it: dockerd's texts.
pub async fn disconnect(daemon: &Arc<Daemon>, name: &str, other: &str, force: bool) -> Result<()> {
    let network = match daemon.networks.find(name) {
        Ok(network) => network,
        Err(error) => return forget(daemon, name, other, error).await,
    };
    let container = match daemon.engine.find(other) {
        Err(error) if force && error.kind == Kind::NotFound => {
            return Err(Error::not_found(format!("endpoint {other} not found")));
        }
        found => found?,
    };
    let _changing = to_change(&container).await?;
    if network.is_overlay() && container.read(|record| record.task.is_some()) {
        return Err(of_task(&container.name()));
    }
    if network.name == "host" && container.read(|record| record.host_config.network_mode == "host") {
        return Err(Error::invalid(
            "cannot disconnect container from host network - container was created in host network mode",
        ));
    }
    // Under whichever of its names it was asked for.
    let key = container.read(|record| {
        let mut names = record.endpoints.keys();
        names.find(|name| daemon.networks.find(name).is_ok_and(|one| one.id == network.id)).cloned()
    });
    let Some(key) = key else {
        let message = format!("container {} is not connected to network {}", container.id, network.name);
        return Err(Error::new(Kind::Internal, message));
    };
    if container.is_running() {
        let (networks, id, network) = (daemon.networks.clone(), container.id.clone(), network.id.clone());
        blocking(move || networks.disconnect(&network, &id)).await?;
    }
    container.change(|record| record.endpoints.remove(&key));
    container.save(daemon).await
}

/// Takes the name of a network that is not here, as its node serves it no more or it never was, from a container that does not run
/// and so is in it by that name alone.
async fn forget(daemon: &Arc<Daemon>, name: &str, other: &str, none: Error) -> Result<()> {
    let Ok(container) = daemon.engine.find(other) else { return Err(none) };
    let _changing = to_change(&container).await?;
    if container.is_running() || container.change(|record| record.endpoints.remove(name)).is_none() {
        return Err(none);
    }
    container.save(daemon).await
}
