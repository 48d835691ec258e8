//! Ports and networks of a service.

use std::collections::BTreeSet;

use crate::id::ServiceId;
use crate::objects::endpoint::{Protocol, PublishMode, ResolutionMode};
use crate::objects::{EndpointSpec, PortConfig, Service, ServiceSpec, TaskSpec};
use crate::own_ports::own_ports;
use crate::store::ObjectKind;
use crate::view::View;

use super::super::error::ControlError;
use super::super::rollback::specs_in_use;
use super::super::texts;

/// Whether the endpoint is good by itself.
pub(super) fn of_itself(endpoint: &EndpointSpec) -> Result<(), ControlError> {
    let mut published = BTreeSet::new();
    for port in &endpoint.ports {
        if endpoint.mode == ResolutionMode::DnsRr && port.publish_mode == PublishMode::Ingress {
            return Err(texts::ingress_port_with_dnsrr());
        }
        if port.target_port == 0 {
            return Err(texts::target_port_missing());
        }
        if port.published_port != 0 && !published.insert((port.protocol, port.published_port)) {
            return Err(texts::published_port_duplicate());
        }
    }
    Ok(())
}

/// Whether the networks are there, and a service may be attached to them.
pub(super) fn networks(view: &View<'_>, task: &TaskSpec) -> Result<(), ControlError> {
    let mut attached = BTreeSet::new();
    for attachment in &task.networks {
        let network = view.network(attachment.target).filter(|network| !network.pending_delete);
        let network =
            network.ok_or_else(|| texts::not_found(ObjectKind::Network, &attachment.target.to_string()))?;
        if network.spec.ingress {
            return Err(texts::attached_to_ingress(&network.spec.name));
        }
        if !attached.insert(attachment.target) {
            return Err(texts::attached_twice(&network.spec.name));
        }
    }
    Ok(())
}

/// Whether the cluster has the routing mesh's network, if the service needs it.
pub(super) fn ingress_is_there(view: &View<'_>, spec: &ServiceSpec) -> Result<(), ControlError> {
    if needs_ingress(spec) && !view.networks().any(|network| network.is_ingress()) {
        return Err(texts::ingress_missing());
    }
    Ok(())
}

/// Whether the service is reached by the routing mesh.
pub(crate) fn needs_ingress(spec: &ServiceSpec) -> bool {
    let is_ingress = |port: &PortConfig| port.publish_mode == PublishMode::Ingress;
    spec.endpoint.as_ref().is_some_and(|endpoint| endpoint.ports.iter().any(is_ingress))
}

/// Whether every published port is free in the whole cluster. A host's port may be wanted by several services: the
/// scheduler keeps them apart. One of the routing mesh is taken on every node.
pub(super) fn no_port_clash(
    view: &View<'_>,
    spec: &ServiceSpec,
    updated: Option<ServiceId>,
) -> Result<(), ControlError> {
    let wanted = |mode: PublishMode| {
        let ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        ports
            .filter(|port| port.published_port != 0 && port.publish_mode == mode)
            .map(key_of)
            .collect::<BTreeSet<_>>()
    };
    let (ingress, host) = (wanted(PublishMode::Ingress), wanted(PublishMode::Host));
    if ingress.is_empty() && host.is_empty() {
        return Ok(());
    }
    for service in view.services().filter(|service| Some(service.id) != updated) {
        for port in ports_of(view, service) {
            let (by_ingress, by_host) = (ingress.contains(&key_of(port)), host.contains(&key_of(port)));
            let (name, id) = (&service.spec.name, service.id);
            match port.publish_mode {
                PublishMode::Host if by_ingress => {
                    return Err(texts::port_in_use_by_host(port.published_port, name, id));
                }
                PublishMode::Ingress if by_ingress || by_host => {
                    return Err(texts::port_in_use_by_ingress(port.published_port, name, id));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether the cluster listens at none of the published ports itself. What a service has, or may go back to, stays its own: a manager may
/// have come to listen there later.
pub(super) fn none_of_the_cluster(
    view: &View<'_>,
    spec: &ServiceSpec,
    updated: Option<ServiceId>,
) -> Result<(), ControlError> {
    let wanted = spec.endpoint.as_ref().map_or(&[][..], |endpoint| &endpoint.ports);
    if wanted.is_empty() {
        return Ok(());
    }
    let had = updated.and_then(|id| view.service(id));
    // In the same mode: what a worker's host alone has, the mesh would take from every node.
    let had: BTreeSet<_> = had
        .into_iter()
        .flat_map(|it| ports_of(view, it))
        .map(|port| (key_of(port), port.publish_mode))
        .collect();
    let own = own_ports(view);
    let new = wanted.iter().filter(|port| !had.contains(&(key_of(port), port.publish_mode))).map(key_of);
    match new.filter_map(|key| Some((key, own.get(&key)?))).next() {
        Some(((protocol, port), who)) => Err(texts::port_of_the_cluster(port, protocol.name(), who)),
        None => Ok(()),
    }
}

fn key_of(port: &PortConfig) -> (Protocol, u16) {
    (port.protocol, port.published_port)
}

/// What a service asks for, or may ask for again, and what it was given.
fn ports_of<'s>(view: &View<'_>, service: &'s Service) -> impl Iterator<Item = &'s PortConfig> {
    let endpoints = specs_in_use(view, service).filter_map(|spec| spec.endpoint.as_ref());
    let asked = endpoints.flat_map(|endpoint| &endpoint.ports);
    asked.chain(&service.endpoint.ports).filter(|port| port.published_port != 0)
}
