//! Networks and sandboxes as the API shows them.

use std::collections::BTreeMap;

use ketch_engine_api::network as api;
use ketch_engine_api::network::{EndpointSettings, NetworkSettings, PortBinding, PortMap};

use super::ipam::Prefix;
use super::record::{Driver, Endpoint, Network, Role, Sandbox};
use super::{Networks, State};

impl Networks {
    /// A network with its endpoints, or without them, as lists have it.
    #[must_use]
    pub fn show(&self, network: &Network, with_endpoints: bool) -> api::Network {
        let containers = if with_endpoints { self.state().shown_endpoints(network) } else { BTreeMap::new() };
        api::Network {
            name: network.name.clone(),
            id: network.id.clone(),
            created: network.created.clone(),
            scope: network.scope().to_owned(),
            driver: network.driver.name().to_owned(),
            enable_ipv4: network.ipv4,
            enable_ipv6: network.ipv6,
            ipam: network.ipam.clone(),
            internal: network.internal,
            attachable: network.attachable,
            ingress: network.spanned.as_ref().is_some_and(|spanned| spanned.ingress),
            config_from: api::ConfigReference { network: network.config_from.clone() },
            config_only: network.config_only,
            containers,
            options: network.options.clone(),
            labels: network.labels.clone(),
        }
    }
}

impl State {
    fn shown_endpoints(&self, network: &Network) -> BTreeMap<String, api::NetworkEndpoint> {
        let shown = |sandbox: &Sandbox, endpoint: &Endpoint| {
            let length = |address: std::net::IpAddr| {
                let subnet = network.subnets.iter().find(|subnet| subnet.subnet.contains(address))?;
                Prefix::new(address, subnet.subnet.length())
            };
            let text = |address: Option<std::net::IpAddr>| {
                address.and_then(length).map(|prefix| prefix.to_string()).unwrap_or_default()
            };
            api::NetworkEndpoint {
                name: sandbox.name.clone(),
                endpoint_id: endpoint.id.clone(),
                mac_address: endpoint.mac.clone(),
                ipv4_address: text(endpoint.ipv4.map(Into::into)),
                ipv6_address: text(endpoint.ipv6.map(Into::into)),
            }
        };
        self.endpoints(&network.id)
            .map(|(sandbox, endpoint)| (sandbox.container.clone(), shown(sandbox, endpoint)))
            .collect()
    }

    /// Ports are the host's own, or their interface is a neighbour of the host's: there is nothing to publish.
    fn has_ports(&self, sandbox: &Sandbox) -> bool {
        let mut drivers = sandbox
            .endpoints
            .iter()
            .filter_map(|endpoint| Some(self.networks.get(&endpoint.network)?.driver));
        let has_none = |driver| matches!(driver, Driver::Host | Driver::Macvlan | Driver::Ipvlan);
        sandbox.endpoints.is_empty() || drivers.any(|driver| !has_none(driver))
    }

    pub(super) fn settings(&self, container: &str) -> Option<NetworkSettings> {
        let sandbox = self.sandboxes.get(container)?;
        let asked_for = sandbox.endpoints.iter().filter(|endpoint| endpoint.role == Role::Member);
        let networks = asked_for.filter_map(|endpoint| {
            let network = self.networks.get(&endpoint.network)?;
            Some((network.name.clone(), shown_endpoint(network, endpoint)))
        });
        let mut settings = NetworkSettings::with(networks.collect());
        settings.sandbox_id.clone_from(&sandbox.id);
        // dockerd's name of the host's namespace, which has no file.
        settings.sandbox_key = sandbox.namespace.as_ref().map_or_else(
            || "/var/run/docker/netns/default".to_owned(),
            |path| path.to_string_lossy().into_owned(),
        );
        settings.ports = if self.has_ports(sandbox) { ports(sandbox) } else { PortMap::new() };
        Some(settings)
    }
}

fn shown_endpoint(network: &Network, endpoint: &Endpoint) -> EndpointSettings {
    let length = |ipv4| {
        let subnet = network.subnets.iter().find(|subnet| subnet.subnet.is_ipv4() == ipv4);
        subnet.map_or(0, |subnet| subnet.subnet.length())
    };
    let gateway = |ipv4, has: bool| {
        let gateway = network.gateway(ipv4).filter(|_| has && !network.internal);
        gateway.map(|gateway| gateway.to_string()).unwrap_or_default()
    };
    let (ipv4, ipv6) = (endpoint.ipv4, endpoint.ipv6);
    EndpointSettings {
        mac_address: endpoint.mac.clone(),
        network_id: network.id.clone(),
        endpoint_id: endpoint.id.clone(),
        gateway: gateway(true, ipv4.is_some()),
        ip_address: ipv4.map(|address| address.to_string()).unwrap_or_default(),
        ip_prefix_len: if ipv4.is_some() { length(true) } else { 0 },
        ipv6_gateway: gateway(false, ipv6.is_some()),
        global_ipv6_address: ipv6.map(|address| address.to_string()).unwrap_or_default(),
        global_ipv6_prefix_len: if ipv6.is_some() { length(false) } else { 0 },
        dns_names: (!endpoint.names.is_empty()).then(|| endpoint.names.clone()),
        ..endpoint.asked.clone()
    }
}

fn ports(sandbox: &Sandbox) -> PortMap {
    let mut ports: PortMap = sandbox.exposed.iter().map(|port| (port.clone(), None)).collect();
    for published in &sandbox.published {
        let host = published.forward.host;
        // One that is open by the container's own address has none of the host's.
        let host_port = if host.port() == 0 { String::new() } else { host.port().to_string() };
        let binding = PortBinding { host_ip: host.ip().to_string(), host_port };
        ports.entry(published.port.clone()).or_default().get_or_insert_default().push(binding);
    }
    ports
}
