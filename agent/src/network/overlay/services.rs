//! What virtual addresses, names and published ports lead to. Pure; called by [`super::plan`].
//!
//! Only tasks that serve get new connections. A task of this node serves while its sandbox is here: nobody has to be asked when it
//! has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ketch_cluster::assignment::{Neighbour, ServiceEntry, Traffic};
use ketch_cluster::id::{NetworkId, ServiceId};
use ketch_cluster::label::{prefer_local, proxy};
use ketch_cluster::objects::endpoint::{Protocol, ResolutionMode};
use ketch_cluster::objects::{Labels, NetworkAttachment, PortConfig};

use super::access;
use super::plan::{Locals, MeshPort, Overlay, Told, Underlay};
use crate::network::dns;
use crate::network::firewall::Transport;
use crate::network::relay::Leads;

/// A network as this node sees it: itself, the network, its own sandboxes.
type Here<'a> = (&'a Underlay, NetworkId, &'a Locals);

/// The virtual addresses of a network, and the mesh's ports.
pub(super) fn balance(overlay: &mut Overlay, told: &Told<'_>, here: Here<'_>) {
    let network = here.1;
    for (set, traffic) in
        [(&mut overlay.serving, Traffic::Serving), (&mut overlay.draining, Traffic::Draining)]
    {
        let those = told.in_network(network).filter(|(_, of_task, _)| *of_task == traffic);
        set.extend(those.flat_map(|(neighbour, _, attachment)| there(neighbour, attachment, here)));
    }
    if overlay.own.is_empty() {
        return;
    }
    for service in &told.services {
        let backends = serving(told, service.service, here);
        if overlay.ingress {
            for port in published(service).filter(|port| !is_relayed(service, port)) {
                let key = (transport(port.protocol), port.published_port);
                let _none = overlay.ports.insert(key, by_door(&backends, port.target_port, here));
            }
            continue;
        }
        let passes = access::passes(told, service, (here.0.node, network));
        for virtual_ip in service.virtual_ips.iter().filter(|it| it.network == network) {
            for address in virtual_ip.addresses.iter().map(|it| it.address) {
                overlay.passes.extend(passes.iter().map(|passes| (address, passes.clone())));
                let to = backends.iter().copied().filter(|one| one.is_ipv4() == address.is_ipv4());
                let _none = overlay.balanced.insert(address, to.collect());
            }
        }
    }
}

/// The addresses of a service's tasks that get new connections.
fn serving(told: &Told<'_>, service: ServiceId, here: Here<'_>) -> Vec<IpAddr> {
    let tasks = told.of_service(service, here.1).filter(|(_, traffic, _)| *traffic == Traffic::Serving);
    tasks.flat_map(|(neighbour, _, attachment)| there(neighbour, attachment, here)).collect()
}

/// A task's addresses; none of one of this node whose sandbox has gone.
fn there<'a>(
    neighbour: &'a Neighbour,
    attachment: &'a NetworkAttachment,
    (underlay, network, locals): Here<'a>,
) -> impl Iterator<Item = IpAddr> + 'a {
    let is_elsewhere = neighbour.node != underlay.node;
    addresses(attachment).filter(move |address| is_elsewhere || locals.contains_key(&(network, *address)))
}

/// What comes by the door: the host leads there what is for tasks elsewhere, and has led the rest to this node's. If there are none
/// elsewhere, it is what the daemon carries there.
fn by_door(backends: &[IpAddr], target: u16, here: Here<'_>) -> Vec<SocketAddr> {
    let is_here = |address: &IpAddr| matches!(here.2.get(&(here.1, *address)), Some(Some(_)));
    let elsewhere: Vec<_> = backends.iter().filter(|address| !is_here(address)).collect();
    let backends = if elsewhere.is_empty() { backends.iter().collect() } else { elsewhere };
    backends.into_iter().map(|address| SocketAddr::new(*address, target)).collect()
}

/// What published ports lead to, from the network of the mesh.
pub(super) fn mesh(told: &Told<'_>, here: Here<'_>) -> BTreeMap<(Transport, u16), MeshPort> {
    let mut ports = BTreeMap::new();
    for service in &told.services {
        for port in published(service) {
            let mut leads = mesh_port(told, service, port.target_port, here);
            leads.relayed = is_relayed(service, port).then(|| relayed(told, service, port.target_port, here));
            let _none = ports.insert((transport(port.protocol), port.published_port), leads);
        }
    }
    ports
}

/// Those that have been given a number.
pub(super) fn published(service: &ServiceEntry) -> impl Iterator<Item = &PortConfig> {
    service.ports.iter().filter(|port| port.published_port != 0)
}

fn mesh_port(told: &Told<'_>, service: &ServiceEntry, target: u16, here: Here<'_>) -> MeshPort {
    let (mut near, mut elsewhere) = (Vec::new(), 0);
    for address in serving(told, service.service, here).into_iter().filter(IpAddr::is_ipv4) {
        match here.2.get(&(here.1, address)) {
            Some(Some(by_host)) => near.push(SocketAddr::new(IpAddr::V4(*by_host), target)),
            _ => elsewhere += 1,
        }
    }
    if prefers_local(&service.labels) && !near.is_empty() {
        elsewhere = 0;
    }
    MeshPort { here: near, elsewhere, draining: draining(told, service.service, here), relayed: None }
}

/// Whether its tasks are told who connects.
fn is_relayed(service: &ServiceEntry, port: &PortConfig) -> bool {
    port.protocol == Protocol::Tcp && proxy::in_force(&service.labels).contains(&port.target_port)
}

/// Where the relay leads: by the mesh's network to tasks of this node and of others alike.
fn relayed(told: &Told<'_>, service: &ServiceEntry, target: u16, here: Here<'_>) -> Leads {
    let serving = serving(told, service.service, here).into_iter().filter(IpAddr::is_ipv4);
    let (near, far): (Vec<_>, Vec<_>) = serving.partition(|address| here.2.contains_key(&(here.1, *address)));
    let leaving =
        told.of_service(service.service, here.1).filter(|(_, traffic, _)| *traffic == Traffic::Draining);
    let leaving = leaving.flat_map(|(_, _, attachment)| addresses(attachment));
    let port_of = |address: IpAddr| SocketAddr::new(address, target);
    let stay = near.iter().chain(&far).copied().chain(leaving).map(port_of).collect();
    let prefers = prefers_local(&service.labels) && !near.is_empty();
    let far = far.into_iter().filter(|_| !prefers);
    Leads { backends: near.iter().copied().chain(far).map(port_of).collect(), stay }
}

/// The addresses by the host of a service's tasks here that are about to stop.
fn draining(told: &Told<'_>, service: ServiceId, here: Here<'_>) -> BTreeSet<IpAddr> {
    let tasks = told.of_service(service, here.1).filter(|(_, traffic, _)| *traffic == Traffic::Draining);
    let by_host = |address: IpAddr| here.2.get(&(here.1, address)).copied().flatten();
    tasks.flat_map(|(_, _, attachment)| addresses(attachment)).filter_map(by_host).map(IpAddr::V4).collect()
}

/// Without it all tasks of the service have the same share, wherever connections come in: one node that is named in a DNS record would
/// otherwise leave the tasks of all others idle.
fn prefers_local(labels: &Labels) -> bool {
    // One of an older cluster may say something else.
    prefer_local::parse(labels).unwrap_or(false)
}

/// Tasks by their names and aliases, services by theirs.
pub(super) fn names(told: &Told<'_>, network: NetworkId) -> dns::Told {
    let mut names = dns::Told::default();
    let services: BTreeMap<ServiceId, &ServiceEntry> =
        told.services.iter().map(|service| (service.service, *service)).collect();
    for (neighbour, traffic, attachment) in told.in_network(network) {
        add(&mut names, &neighbour.name, addresses(attachment));
        for address in addresses(attachment) {
            let _none = names.names.insert(address, neighbour.name.to_string());
        }
        match neighbour.service.and_then(|id| services.get(&id)) {
            Some(service) => add_task(&mut names, service, network, (traffic, attachment)),
            // A plain container is what it is called.
            None if neighbour.service.is_none() => {
                for alias in &attachment.aliases {
                    add(&mut names, alias, addresses(attachment));
                }
            }
            None => {}
        }
    }
    for service in services.values() {
        let virtual_ips: BTreeSet<IpAddr> = virtual_ips(service, network).collect();
        for address in &virtual_ips {
            let _none = names.names.insert(*address, service.name.clone());
        }
        add(&mut names, &service.name, virtual_ips.into_iter());
    }
    names
}

fn add(names: &mut dns::Told, name: &str, addresses: impl Iterator<Item = IpAddr>) {
    let mut addresses = addresses.peekable();
    if !name.is_empty() && addresses.peek().is_some() {
        names.addresses.entry(name.to_ascii_lowercase()).or_default().extend(addresses);
    }
}

/// The service's name and aliases lead to its virtual addresses, or to each task that serves; `tasks.` before them always to the
/// tasks.
fn add_task(
    names: &mut dns::Told,
    service: &ServiceEntry,
    network: NetworkId,
    (traffic, attachment): (Traffic, &NetworkAttachment),
) {
    let serves = traffic == Traffic::Serving;
    for name in std::iter::once(&service.name).chain(&attachment.aliases) {
        match service.mode {
            ResolutionMode::Vip => add(names, name, virtual_ips(service, network)),
            ResolutionMode::DnsRr if serves => add(names, name, addresses(attachment)),
            ResolutionMode::DnsRr => {}
        }
        if serves {
            add(names, &format!("tasks.{name}"), addresses(attachment));
        }
    }
}

fn virtual_ips(service: &ServiceEntry, network: NetworkId) -> impl Iterator<Item = IpAddr> {
    let here = service.virtual_ips.iter().filter(move |it| it.network == network);
    here.flat_map(|it| it.addresses.iter().map(|address| address.address))
}

pub(super) fn addresses(attachment: &NetworkAttachment) -> impl Iterator<Item = IpAddr> {
    attachment.addresses.iter().map(|it| it.address)
}

pub(super) fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    }
}
