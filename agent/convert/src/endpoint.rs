//! Endpoints: modes, ports and virtual addresses.

use ketch_cluster::control::texts::conversion as texts;
use ketch_cluster::objects::endpoint::{Protocol, PublishMode, ResolutionMode};
use ketch_cluster::objects::{Endpoint, EndpointSpec, PortConfig};
use ketch_engine_api::swarm::endpoint as api;

use crate::Refusal;

/// # Errors
/// A mode or protocol that there is not, or a number that is no port's.
pub fn spec_of(spec: api::EndpointSpec) -> Result<EndpointSpec, Refusal> {
    let mode = match spec.mode.as_str() {
        "" | "vip" => ResolutionMode::Vip,
        "dnsrr" => ResolutionMode::DnsRr,
        other => return Err(texts::resolution_mode(other)),
    };
    let ports = spec.ports.into_iter().flatten().map(port_of).collect::<Result<_, _>>()?;
    Ok(EndpointSpec { mode, ports })
}

fn port_of(port: api::PortConfig) -> Result<PortConfig, Refusal> {
    let protocol = match port.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(texts::protocol(&port.protocol)),
    };
    let publish_mode = match port.publish_mode.to_ascii_lowercase().as_str() {
        "" | "ingress" => PublishMode::Ingress,
        "host" => PublishMode::Host,
        _ => return Err(texts::publish_mode(&port.publish_mode)),
    };
    let number = |port: u32| u16::try_from(port).map_err(|_| texts::port_number(port));
    Ok(PortConfig {
        protocol,
        publish_mode,
        target_port: number(port.target_port)?,
        published_port: number(port.published_port)?,
        name: port.name,
    })
}

#[must_use]
pub fn spec_shown(spec: &EndpointSpec) -> api::EndpointSpec {
    let mode = match spec.mode {
        ResolutionMode::Vip => "vip",
        ResolutionMode::DnsRr => "dnsrr",
    };
    api::EndpointSpec { mode: mode.to_owned(), ports: ports_shown(&spec.ports) }
}

pub(crate) fn ports_shown(ports: &[PortConfig]) -> Option<Vec<api::PortConfig>> {
    Some(ports.iter().map(port_shown).collect())
}

fn port_shown(port: &PortConfig) -> api::PortConfig {
    let publish_mode = match port.publish_mode {
        PublishMode::Ingress => "ingress",
        PublishMode::Host => "host",
    };
    api::PortConfig {
        name: port.name.clone(),
        protocol: port.protocol.name().to_owned(),
        target_port: port.target_port.into(),
        published_port: port.published_port.into(),
        publish_mode: publish_mode.to_owned(),
    }
}

/// What a service was given; `asked` is what its spec asks for, if anything.
#[must_use]
pub fn shown(endpoint: &Endpoint, asked: Option<&EndpointSpec>) -> api::Endpoint {
    let virtual_ips = endpoint.virtual_ips.iter().flat_map(|it| {
        it.addresses
            .iter()
            .map(|address| api::VirtualIp { network_id: it.network.to_string(), addr: address.to_string() })
    });
    // Before the allocator has seen the service it has no endpoint, without a spec nobody asked for one, and names that are
    // resolved to tasks need none.
    let is_there = asked.is_some()
        && *endpoint != Endpoint::default()
        && (endpoint.spec.mode == ResolutionMode::Vip || !endpoint.spec.ports.is_empty());
    api::Endpoint {
        spec: if is_there { spec_shown(&endpoint.spec) } else { api::EndpointSpec::default() },
        ports: ports_shown(&endpoint.ports),
        virtual_ips: Some(virtual_ips.collect()),
    }
}
