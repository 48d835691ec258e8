//! Who reaches what of services that say so themselves, by the labels `ketch.allow`, `ketch.publish.from` and `ketch.publish.ip`: at
//! the tasks of this node, by virtual addresses, and at the node's published ports. Pure; called by [`super::plan`] and [`super::doors`].
//!
//! At a task the sender is known by his address, but for what came by a virtual address: that comes from the address of the node that
//! has translated it, which has looked at who sent it. So a task lets nodes in by all ports that anybody may go to.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ketch_cluster::assignment::{Item, OwnAddress, ServiceEntry};
use ketch_cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use ketch_cluster::label::STACK;
use ketch_cluster::label::allow::{self, Allow, Entry, Source};
use ketch_cluster::label::publish::{self, Place};
use ketch_cluster::objects::{Labels, NetworkAttachment};

use super::plan::{Known, Told, prefix};
use super::services::{addresses, published, transport};
use crate::network::firewall::{Admission, Narrowed, Narrowing, OpenAt, Pass, Transport};
use crate::network::record::OfService;

/// A task of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) struct Resident {
    pub(in crate::network) container: String,
    /// Its sandbox: another run's is another.
    pub(in crate::network) sandbox: String,
    pub(in crate::network) namespace: PathBuf,
    pub(in crate::network) of: OfService,
    /// Its interfaces in networks of the cluster...
    pub(in crate::network) overlays: Vec<(String, NetworkId)>,
    /// ...and those in bridges of the node, by which its published ports are reached.
    pub(in crate::network) bridges: Vec<String>,
    /// What it publishes itself, on this node: the host's ports, and its own.
    pub(in crate::network) published: Vec<(Transport, u16, u16)>,
    /// Its ports may be closed already.
    pub(in crate::network) is_closed: bool,
}

/// What follows for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct Access {
    /// What each resident lets in; `None`: everybody.
    pub(in crate::network) admissions: Vec<Option<Admission>>,
    /// The routing mesh's ports, wherever their tasks are...
    pub(in crate::network) mesh: Narrowed,
    /// ...and those of residents themselves.
    pub(in crate::network) narrowed: Narrowed,
    /// What the labels of each resident's service say now.
    pub(in crate::network) labels: Vec<Labels>,
    /// Tasks of services that say anything, wherever they are.
    pub(in crate::network) asked: BTreeSet<TaskId>,
}

/// Of all residents, in their order.
pub(in crate::network) fn access(items: &[Item], residents: &[Resident]) -> Access {
    // Whoever has an address is whom it belongs to, whether he serves or not.
    let told = Told::of(items, &Known::new());
    let mut access = Access::default();
    for service in &told.services {
        if is_asked(&service.labels) {
            access.asked.extend(told.tasks_of(service.service));
        }
        if let Some(narrowing) = narrowing(&service.labels) {
            let ports = published(service).map(|port| (transport(port.protocol), port.published_port));
            access.mesh.0.extend(ports.map(|port| (port, narrowing.clone())));
        }
    }
    for resident in residents {
        let service = resident.of.task.parse().ok().and_then(|task| told.service_of(task));
        let labels = service.map_or(&resident.of.labels, |service| &service.labels);
        access.labels.push(read(labels));
        let allow = allow::in_force(labels);
        access.admissions.push(allow.map(|allow| admission(&told, resident, (service, &allow))));
        if let Some(narrowing) = narrowing(labels) {
            let ports = resident.published.iter().map(|(transport, host, _)| (*transport, *host));
            access.narrowed.0.extend(ports.map(|port| (port, narrowing.clone())));
        }
    }
    access
}

/// What networks read of a service's labels.
#[must_use]
pub fn read(labels: &Labels) -> Labels {
    let ours = [allow::LABEL, STACK, publish::FROM, publish::IP];
    let ours = labels.iter().filter(|(label, _)| ours.contains(&label.as_str()));
    ours.map(|(label, value)| (label.clone(), value.clone())).collect()
}

/// Whether they say anything of who reaches what.
pub(in crate::network) fn is_asked(labels: &Labels) -> bool {
    [allow::LABEL, publish::FROM, publish::IP].iter().any(|label| labels.contains_key(*label))
}

/// For whom a service's virtual addresses in a network are; `None`: for everybody. Those of other nodes come by their own.
pub(super) fn passes(
    told: &Told<'_>,
    service: &ServiceEntry,
    (node, network): (NodeId, NetworkId),
) -> Option<Vec<Pass>> {
    let allow = allow::in_force(&service.labels)?;
    let pass = |entry: &Entry| {
        let from = match &entry.from {
            Source::Anybody => None,
            Source::Service(names) => {
                Some(sources(told, meant(told, Some(service), names), (network, Some(node))))
            }
        };
        pass(entry, None, from)
    };
    Some(allow.entries.iter().filter_map(pass).collect())
}

fn admission(
    told: &Told<'_>,
    resident: &Resident,
    (service, allow): (Option<&ServiceEntry>, &Allow),
) -> Admission {
    let mut passes = BTreeSet::new();
    let anybody = allow.entries.iter().filter(|entry| entry.from == Source::Anybody);
    passes.extend(anybody.filter_map(|entry| pass(entry, None, None)));
    for (interface, network) in &resident.overlays {
        let nodes = nodes(told, *network);
        for entry in &allow.entries {
            let Source::Service(names) = &entry.from else { continue };
            let mut from = sources(told, meant(told, service, names), (*network, None));
            if service.is_some_and(|it| has_address(it, *network)) {
                from.extend(&nodes);
            }
            passes.extend(pass(entry, Some(interface.clone()), Some(from)));
        }
        if told.is_ingress(*network) {
            let ports = service.into_iter().flat_map(published);
            let ports = ports.map(|port| (transport(port.protocol), port.target_port));
            passes.extend(ports.map(|port| of_port(interface, Some(nodes.clone()), port)));
        }
    }
    let by_mesh = service.into_iter().flat_map(published);
    let by_mesh = by_mesh.map(|port| (transport(port.protocol), port.target_port));
    let by_node = resident.published.iter().map(|(transport, _, port)| (*transport, *port));
    for port in by_mesh.chain(by_node) {
        passes.extend(resident.bridges.iter().map(|interface| of_port(interface, None, port)));
    }
    Admission { passes: passes.into_iter().collect() }
}

/// None of nobody.
fn pass(entry: &Entry, interface: Option<String>, from: Option<BTreeSet<IpAddr>>) -> Option<Pass> {
    let ports = (*entry.ports.start(), *entry.ports.end());
    let pass = Pass { interface, from, transport: transport(entry.protocol), ports };
    Some(pass).filter(|pass| pass.from.as_ref().is_none_or(|from| !from.is_empty()))
}

fn of_port(interface: &str, from: Option<BTreeSet<IpAddr>>, (transport, port): (Transport, u16)) -> Pass {
    Pass { interface: Some(interface.to_owned()), from, transport, ports: (port, port) }
}

/// The service that a name means: the first of these that there is, as managers say. This node alone does not know of all: one of the
/// stack that it is not told of would leave the name to a stranger.
fn meant(told: &Told<'_>, service: Option<&ServiceEntry>, names: &[String]) -> Option<ServiceId> {
    match service.and_then(|service| service.allowed.as_ref()) {
        Some(allowed) => allowed.get(names.last()?).copied(),
        None => names.iter().find_map(|name| told.named(name)),
    }
}

/// The addresses in a network of a service's tasks; only those of a node, where one is named.
fn sources(
    told: &Told<'_>,
    service: Option<ServiceId>,
    (network, node): (NetworkId, Option<NodeId>),
) -> BTreeSet<IpAddr> {
    let tasks = service.into_iter().flat_map(|service| told.of_service(service, network));
    let tasks = tasks.filter(|(neighbour, _, _)| node.is_none_or(|node| neighbour.node == node));
    tasks.flat_map(|(_, _, attachment)| addresses(attachment)).collect()
}

fn has_address(service: &ServiceEntry, network: NetworkId) -> bool {
    service.virtual_ips.iter().any(|it| it.network == network && !it.addresses.is_empty())
}

/// The addresses in a network by which nodes send on what they have translated.
fn nodes(told: &Told<'_>, network: NetworkId) -> BTreeSet<IpAddr> {
    let own = told.networks.iter().filter(|it| it.network.id == network);
    let own = own.filter_map(|it| match &it.own {
        OwnAddress::Given(own) => Some(own.iter().map(|subnet| subnet.address)),
        OwnAddress::NotNeeded | OwnAddress::Missing => None,
    });
    let is_here = |it: &&NetworkAttachment| it.network == network;
    let others = told.peers.values().flat_map(|peer| peer.attachments.iter().filter(is_here));
    own.flatten().chain(others.flat_map(addresses)).collect()
}

/// None of labels that leave published ports as they are.
fn narrowing(labels: &Labels) -> Option<Narrowing> {
    let publish = publish::in_force(labels);
    let narrowing = Narrowing {
        from: publish.from.map(|from| from.into_iter().filter_map(prefix).collect()),
        at: publish.at.map(|at| at.into_iter().map(open_at).collect()),
    };
    (narrowing != Narrowing::default()).then_some(narrowing)
}

fn open_at(place: Place) -> OpenAt {
    match place {
        Place::Address(address) => OpenAt::Address(address),
        Place::Interface(name) => OpenAt::Interface(name),
    }
}

#[cfg(test)]
mod tests;
