//! A service's virtual addresses: on which networks it has them, whether they are there, and which of them a task is told.

use super::addresses::{Addresses, Claim};
use super::networks::Networks;
use super::refusal::Refusal;
use crate::id::NetworkId;
use crate::objects::endpoint::{PublishMode, ResolutionMode, VirtualIp};
use crate::objects::{Endpoint, EndpointSpec, NetworkAttachment, PortConfig, Service};

/// Whether the service's endpoint is the one that its spec asks for.
pub(super) fn is_current(service: &Service, networks: &Networks<'_>, ingress: Option<NetworkId>) -> bool {
    let endpoint = &service.endpoint;
    let same_spec = match &service.spec.endpoint {
        Some(spec) => *spec == endpoint.spec,
        None => endpoint.spec == EndpointSpec::default(),
    };
    let has = endpoint.virtual_ips.iter().map(|virtual_ip| virtual_ip.network);
    same_spec && networks_with_virtual_ip(service, networks, ingress).is_ok_and(|wanted| has.eq(wanted))
}

/// The networks on which the service is to have a virtual address: those of its spec, then the ingress network.
pub(super) fn networks_with_virtual_ip(
    service: &Service,
    networks: &Networks<'_>,
    ingress: Option<NetworkId>,
) -> Result<Vec<NetworkId>, Refusal> {
    let mut wanted = Vec::new();
    let needs_ingress = asks_for_ingress(service);
    if needs_ingress && ingress.is_none() {
        return Err(Refusal::NoIngress);
    }
    if service.spec.endpoint.as_ref().is_some_and(|spec| spec.mode == ResolutionMode::DnsRr) {
        return Ok(wanted);
    }
    let of_spec = service.spec.task.networks.iter().map(|config| config.target);
    for id in of_spec.chain(ingress.filter(|_| needs_ingress)) {
        if !networks.exists(id) {
            return Err(Refusal::NetworkNotFound(id));
        }
        if networks.is_overlay(id) && !wanted.contains(&id) {
            wanted.push(id);
        }
    }
    Ok(wanted)
}

/// One on each of the networks: the one that it has, or a new one.
pub(super) fn virtual_ips(
    service: &Service,
    wanted: &[NetworkId],
    networks: &Networks<'_>,
    addresses: &mut Addresses<'_>,
) -> Result<Vec<VirtualIp>, Refusal> {
    let mut virtual_ips: Vec<VirtualIp> = Vec::with_capacity(wanted.len());
    for network in wanted {
        if let Some(has) = service.endpoint.virtual_ips.iter().find(|has| has.network == *network) {
            virtual_ips.push(has.clone());
            continue;
        }
        match networks.addresses(*network, Claim::of(service.id.bits()), addresses) {
            Ok(addresses) => virtual_ips.push(VirtualIp { network: *network, addresses }),
            Err(refusal) => {
                for given in &virtual_ips {
                    addresses.give_back_of(given.network, &given.addresses);
                }
                return Err(refusal);
            }
        }
    }
    Ok(virtual_ips)
}

/// The service's endpoint as a task with these places is told of it: a virtual address holds only where the task is. A
/// task whose spec is older than its service's would else hold an address of a network that it does not use, and that may
/// go before it.
pub(super) fn told_at(places: &[NetworkAttachment], mut endpoint: Endpoint) -> Endpoint {
    endpoint.virtual_ips.retain(|virtual_ip| places.iter().any(|place| place.network == virtual_ip.network));
    endpoint
}

/// Whether the service is to be reached by the routing mesh.
pub(super) fn asks_for_ingress(service: &Service) -> bool {
    service.spec.endpoint.as_ref().is_some_and(|spec| any_by_ingress(&spec.ports))
}

/// Whether a service of this endpoint is reached by the routing mesh.
pub(super) fn publishes_by_ingress(endpoint: &Endpoint) -> bool {
    any_by_ingress(&endpoint.ports)
}

fn any_by_ingress(ports: &[PortConfig]) -> bool {
    ports.iter().any(|port| port.publish_mode == PublishMode::Ingress)
}
