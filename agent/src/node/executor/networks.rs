//! The networks of a task's container. Those of the node are known by their names, those of the cluster by their ids, and have the
//! addresses that the managers gave.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ketch_cluster::assignment::Item;
use ketch_cluster::id::NetworkId;
use ketch_cluster::objects::{Network, NetworkAttachment, PortConfig, Task};
use ketch_engine_api::network::{EndpointIpamConfig, EndpointSettings, PortMap};
use ketch_node::executor::TaskError;

use super::request::{Request, host_ports, key_of};
use crate::daemon::Daemon;
use crate::engine::container::Container;

/// What there is for a container that names none.
const DEFAULT: &str = "default";

/// The networks that the worker was told of.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<NetworkId, Arc<Network>>);

/// How a container is to be in its networks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Networking {
    pub(super) mode: String,
    pub(super) endpoints: BTreeMap<String, EndpointSettings>,
    /// By name or id, each with the name that users know it by.
    pub(super) needed: Vec<(String, String)>,
}

impl Known {
    pub(super) fn of(items: &[Item]) -> Self {
        let networks = items.iter().filter_map(|item| match item {
            Item::Network(it) => Some((it.network.id, Arc::clone(&it.network))),
            _ => None,
        });
        Self(networks.collect())
    }

    /// Of a task's container; the error is which network the node was not told of.
    pub(super) fn networking(&self, task: &Task) -> Result<Networking, String> {
        let mut networking = Networking { mode: DEFAULT.to_owned(), ..Networking::default() };
        for (number, attachment) in task.networks.iter().enumerate() {
            let network = self.0.get(&attachment.network);
            let network = network
                .ok_or_else(|| format!("network {} was not given to this node", attachment.network))?;
            let name = &network.spec.name;
            let key = if network.spec.is_overlay() { network.id.to_string() } else { name.clone() };
            if number == 0 {
                networking.mode.clone_from(&key);
            }
            networking.needed.push((key.clone(), name.clone()));
            let _none = networking.endpoints.insert(key, endpoint(network, attachment));
        }
        Ok(networking)
    }
}

fn endpoint(network: &Network, attachment: &NetworkAttachment) -> EndpointSettings {
    let text = |is_wanted: fn(&IpAddr) -> bool| {
        let found = attachment.addresses.iter().map(|it| it.address).find(is_wanted);
        found.map(|address| address.to_string()).unwrap_or_default()
    };
    let ipam = EndpointIpamConfig {
        ipv4_address: text(IpAddr::is_ipv4),
        ipv6_address: text(IpAddr::is_ipv6),
        link_local_ips: None,
    };
    let options = attachment.driver_options.clone();
    // In the cluster's networks names are the cluster's; the node's own default ones have none.
    let has_aliases =
        !network.spec.is_overlay() && !matches!(network.spec.name.as_str(), "bridge" | "host" | "none");
    EndpointSettings {
        ipam_config: (!attachment.addresses.is_empty()).then_some(ipam),
        aliases: Some(attachment.aliases.clone()).filter(|all| has_aliases && !all.is_empty()),
        driver_opts: Some(options.into_iter().collect()).filter(|all: &BTreeMap<_, _>| !all.is_empty()),
        ..EndpointSettings::default()
    }
}

/// The node has all networks of a container that is to be made. The engine would look for them when it starts only.
pub(super) fn check(daemon: &Daemon, request: &Request) -> Result<(), TaskError> {
    match request.networks.iter().find(|(key, _)| daemon.networks.find(key).is_err()) {
        Some((_, name)) => Err(TaskError::Rejected(format!("network {name} is not there on this node"))),
        None => Ok(()),
    }
}

/// The ports of a task that are published on this node alone, as they were given.
pub(super) fn published(daemon: &Daemon, container: &Container, task: &Task) -> Vec<PortConfig> {
    let ports = daemon.networks.settings(&container.id).map(|settings| settings.ports).unwrap_or_default();
    given(&ports, task)
}

/// Those that asked for a number first: what is left was chosen.
fn given(ports: &PortMap, task: &Task) -> Vec<PortConfig> {
    let mut left: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for (key, bindings) in ports {
        let numbers = bindings.iter().flatten().filter_map(|one| one.host_port.parse().ok());
        let numbers: std::collections::BTreeSet<u16> = numbers.collect();
        let _none = left.insert(key.clone(), numbers.into_iter().collect());
    }
    for port in host_ports(task) {
        if let Some(numbers) = left.get_mut(&key_of(port)) {
            numbers.retain(|number| *number != port.published_port);
        }
    }
    let published = host_ports(task).map(|port| {
        let chosen = left.get_mut(&key_of(port)).filter(|_| port.published_port == 0).and_then(Vec::pop);
        PortConfig { published_port: chosen.unwrap_or(port.published_port), ..port.clone() }
    });
    published.collect()
}

#[cfg(test)]
mod tests;
