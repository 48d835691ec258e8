//! A container's places in networks of the cluster: of a task they come with the task, for any other the managers are asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use ketch_engine_api::network::EndpointSettings;
use ketch_node::calls::Wanted;

use super::container::Record;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::network::{Connect, Mode};
use crate::node::attaching::{Joining, Place};

/// What a container that is about to start has of networks of the cluster. Kept until it is in them.
#[derive(Debug)]
pub(super) struct Places {
    /// All of the container's.
    pub(super) endpoints: BTreeMap<String, EndpointSettings>,
    /// By network.
    pub(super) tasks: BTreeMap<String, String>,
    _joining: Option<Joining>,
}

/// Gets the places of a container that is about to start.
///
/// # Errors
/// As dockerd says it of a start.
pub(super) async fn of(daemon: &Arc<Daemon>, record: &Record) -> Result<Places> {
    let mut places = Places { endpoints: record.endpoints.clone(), tasks: BTreeMap::new(), _joining: None };
    let Mode::Network(first) = Mode::of(&record.host_config.network_mode) else { return Ok(places) };
    if record.task.is_some() {
        return Ok(places);
    }
    let _main = places.endpoints.entry(first).or_default();
    let wanted: Vec<_> =
        places.endpoints.keys().filter(|name| is_of_cluster(daemon, name)).cloned().collect();
    if wanted.is_empty() {
        return Ok(places);
    }
    let joining = Joining::new(daemon, &record.id);
    for name in wanted {
        let asked = places.endpoints.get(&name).cloned().unwrap_or_default();
        let place = place(&joining, record, (&name, &asked)).await.map_err(|error| {
            Error::new(error.kind, format!("failed to set up container networking: {error}"))
        })?;
        let _before = places.endpoints.insert(name, place.settle(&asked));
        let _none = places.tasks.insert(place.network, place.task);
    }
    places._joining = Some(joining);
    Ok(places)
}

/// Has a running container's endpoint in a network of the cluster, with what has to be kept until it is there; of another network what
/// was asked for.
///
/// # Errors
/// dockerd's texts.
pub(super) async fn for_connect(
    daemon: &Arc<Daemon>,
    record: &Record,
    (name, asked): (&str, &EndpointSettings),
) -> Result<(String, Connect, Option<Joining>)> {
    if !is_of_cluster(daemon, name) {
        return Ok((name.to_owned(), asked.clone().into(), None));
    }
    let joining = Joining::new(daemon, &record.id);
    let place = place(&joining, record, (name, asked)).await?;
    let connect = Connect { asked: place.settle(asked), place: Some(place.task.clone()) };
    Ok((place.network, connect, Some(joining)))
}

/// Whether a container can't start without the cluster's managers.
pub(super) fn needs_cluster(daemon: &Daemon, record: &Record) -> bool {
    let Mode::Network(first) = Mode::of(&record.host_config.network_mode) else { return false };
    record.task.is_none() && record.endpoints.keys().chain([&first]).any(|name| is_of_cluster(daemon, name))
}

/// Whether a network is not one of this node's own.
pub(super) fn is_of_cluster(daemon: &Daemon, name: &str) -> bool {
    match daemon.networks.find(name) {
        Ok(network) => network.is_overlay(),
        // In no cluster, there is none.
        Err(_) => daemon.node().is_ok_and(|node| node.is_of_cluster()),
    }
}

async fn place(
    joining: &Joining,
    record: &Record,
    (network, asked): (&str, &EndpointSettings),
) -> Result<Place> {
    let mut aliases: Vec<String> = asked.aliases.iter().flatten().cloned().collect();
    aliases.push(record.id[..12.min(record.id.len())].to_owned());
    if !record.config.hostname.is_empty() && !aliases.contains(&record.config.hostname) {
        aliases.push(record.config.hostname.clone());
    }
    let ipam = asked.ipam_config.clone().unwrap_or_default();
    let addresses = [ipam.ipv4_address, ipam.ipv6_address];
    joining
        .place(Wanted {
            container: record.id.clone(),
            name: record.name.clone(),
            aliases,
            network: network.to_owned(),
            addresses: addresses.iter().filter_map(|text| text.parse().ok()).collect(),
        })
        .await
}
