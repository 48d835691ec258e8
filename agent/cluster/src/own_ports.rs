//! Ports at which the cluster itself listens on its nodes: what a service publishes there could not be served, and would keep the
//! cluster from them. `control` refuses them, and the allocator gives none of them out. A manager is known by the address that it
//! advertises: one that listens at another port, behind an address translation, has told nobody of it.

use std::collections::BTreeMap;

use crate::objects::endpoint::Protocol;
use crate::scheduler::host_of;
use crate::view::View;

/// By port, who has it.
pub(crate) fn own_ports(view: &View<'_>) -> BTreeMap<(Protocol, u16), String> {
    let data_path = view.cluster().map(|cluster| {
        let who = "the cluster's networks send their data there (--data-path-port)";
        ((Protocol::Udp, cluster.networking.data_path_port), who.to_owned())
    });
    let managers = view.nodes().filter_map(|node| {
        let (_, port) = node.manager.as_ref()?.address.rsplit_once(':')?;
        let who = format!("the manager {} is reached there by the cluster's nodes", host_of(node));
        Some(((Protocol::Tcp, port.parse().ok()?), who))
    });
    // Of managers with the same port the first is named.
    let mut ports = BTreeMap::new();
    for (port, who) in managers.chain(data_path) {
        ports.entry(port).or_insert(who);
    }
    ports
}
