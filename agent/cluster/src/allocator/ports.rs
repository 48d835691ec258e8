//! Published ports: one service's each, in the whole cluster, by protocol.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::Refusal;
use crate::id::ServiceId;
use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::{EndpointSpec, PortConfig, Service};
use crate::own_ports::own_ports;
use crate::view::View;

/// Docker's range for ports that the user leaves open.
const DYNAMIC: std::ops::RangeInclusive<u16> = 30000..=32767;

type Port = (Protocol, u16);

/// Which ports the services have. A port of the mesh is on every node, and excludes all else; the same port of publish mode
/// host may be that of several services, which the scheduler keeps on different nodes.
pub(super) struct Ports<'a> {
    view: &'a View<'a>,
    ingress: BTreeMap<Port, ServiceId>,
    host: BTreeSet<(Port, ServiceId)>,
}

impl<'a> Ports<'a> {
    pub(super) fn of(view: &'a View<'a>) -> Self {
        let mut ports = Self { view, ingress: BTreeMap::new(), host: BTreeSet::new() };
        for service in view.services() {
            ports.take(service.id, &service.endpoint.ports);
        }
        ports
    }

    /// Notes them as the service's. Those that it had before stay its own until the next pass.
    pub(super) fn take(&mut self, service: ServiceId, ports: &[PortConfig]) {
        for config in ports.iter().filter(|config| config.published_port != 0) {
            let port = (config.protocol, config.published_port);
            match config.publish_mode {
                PublishMode::Ingress => drop(self.ingress.insert(port, service)),
                PublishMode::Host => drop(self.host.insert((port, service))),
            }
        }
    }

    /// The ports of the spec, with numbers for those that the user leaves to the mesh: the one that the same target had
    /// before, or the first free one from where the service's id points.
    pub(super) fn choose(&self, service: &Service, spec: &EndpointSpec) -> Result<Vec<PortConfig>, Refusal> {
        let mut own = self.fixed(service.id, spec)?;
        let mut ports = Vec::with_capacity(spec.ports.len());
        for config in &spec.ports {
            let mut config = config.clone();
            if config.published_port == 0 && config.publish_mode == PublishMode::Ingress {
                config.published_port = self.dynamic(service, &config, &own)?;
                own.insert((config.protocol, config.published_port));
            }
            ports.push(config);
        }
        Ok(ports)
    }

    /// The ports that the user has numbered.
    fn fixed(&self, service: ServiceId, spec: &EndpointSpec) -> Result<BTreeSet<Port>, Refusal> {
        let mut own = BTreeSet::new();
        for config in spec.ports.iter().filter(|config| config.published_port != 0) {
            let (protocol, port) = (config.protocol, config.published_port);
            if let Some(other) = self.holder((protocol, port), service, config.publish_mode) {
                let other = self.view.service(other).map_or_else(String::new, |it| it.spec.name.clone());
                return Err(Refusal::PortInUse { port, protocol, other });
            }
            if !own.insert((protocol, port)) {
                return Err(Refusal::PortTwice { port, protocol });
            }
        }
        Ok(own)
    }

    fn dynamic(&self, service: &Service, config: &PortConfig, own: &BTreeSet<Port>) -> Result<u16, Refusal> {
        let protocol = config.protocol;
        let is_free = |port: &u16| {
            let port = (protocol, *port);
            !own.contains(&port) && self.holder(port, service.id, PublishMode::Ingress).is_none()
        };
        let (first, last) = (*DYNAMIC.start(), *DYNAMIC.end());
        let offset = service.id.bits() % u128::from(last - first + 1);
        let start = first + u16::try_from(offset).unwrap_or(0);
        let before = service
            .endpoint
            .ports
            .iter()
            .filter(|old| old.publish_mode == PublishMode::Ingress && old.protocol == protocol)
            .filter(|old| old.target_port == config.target_port)
            .map(|old| old.published_port);
        // Nobody is given one of these. Few services leave a port open: a look at all nodes is theirs alone.
        let of_cluster = own_ports(self.view);
        let is_the_clusters = |port: &u16| of_cluster.contains_key(&(protocol, *port));
        let mut around =
            before.chain((start..=last).chain(first..start).filter(|port| !is_the_clusters(port)));
        around.find(is_free).ok_or(Refusal::NoPort { protocol })
    }

    /// The other service because of which this one can't have the port.
    fn holder(&self, port: Port, service: ServiceId, mode: PublishMode) -> Option<ServiceId> {
        let ingress = self.ingress.get(&port).copied().filter(|holder| *holder != service);
        let on_hosts = || {
            let all = (port, ServiceId::of(0))..=(port, ServiceId::of(u128::MAX));
            self.host.range(all).map(|(_, holder)| *holder).find(|holder| *holder != service)
        };
        match mode {
            PublishMode::Ingress => ingress.or_else(on_hosts),
            PublishMode::Host => ingress,
        }
    }
}
