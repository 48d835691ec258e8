//! Networks of the cluster: created and removed. Docker has no update of them.

use std::collections::BTreeSet;

use crate::id::{NetworkId, NewBits};
use crate::objects::network::{IpamConfig, Subnet};
use crate::objects::{Meta, Network, NetworkSpec, ServiceSpec, Task, TaskState};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::rollback::specs_in_use;
use super::validate::needs_ingress;
use super::{texts, validate};

/// Of a network of each node that the cluster only knows by name: `host`, `bridge`.
pub const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";

/// Names that every node has for its own networks.
const PREDEFINED_NAMES: [&str; 4] = ["bridge", "host", "none", "default"];

/// Drivers that a network of the cluster may have; those but the first are of each node.
const DRIVERS: [&str; 6] = ["overlay", "bridge", "host", "macvlan", "ipvlan", "null"];

/// Host bits of the smallest network: its own address, the broadcast's, a gateway, a task.
const MIN_HOST_BITS: u8 = 2;

/// # Errors
/// When the spec is not good, its name taken, or its subnet part of another network's.
pub fn create_network(
    view: &View<'_>,
    spec: NetworkSpec,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<(NetworkId, Vec<StoreAction>), ControlError> {
    if view.by_name(ObjectKind::Network, &spec.name).is_some() {
        return Err(texts::network_exists(&spec.name));
    }
    if PREDEFINED_NAMES.contains(&spec.name.as_str()) {
        return Err(texts::network_predefined(&spec.name));
    }
    if spec.attachable && spec.ingress {
        return Err(texts::ingress_attachable());
    }
    validate::dns_label(&spec.name)?;
    if spec.labels.contains_key(PREDEFINED_LABEL) {
        return Err(texts::predefined_label());
    }
    drivers(&spec)?;
    ipam(view, &spec)?;
    if let Some(ingress) = view.networks().find(|network| spec.ingress && network.is_ingress()) {
        return Err(texts::ingress_exists(ingress.id));
    }
    validate::fits_object(ObjectKind::Network, &spec)?;
    let id = NetworkId::new(bits);
    let network = Network { id, meta: Meta::new(now), spec, allocation: None, pending_delete: false };
    Ok((id, vec![StoreAction::Create(network.into())]))
}

fn drivers(spec: &NetworkSpec) -> Result<(), ControlError> {
    let driver = spec.driver.name.as_str();
    if spec.ingress && !matches!(driver, "" | "overlay") {
        return Err(texts::ingress_driver());
    }
    if !driver.is_empty() && !DRIVERS.contains(&driver) {
        return Err(texts::driver_not_found(driver));
    }
    match spec.ipam_driver.name.as_str() {
        "" => Ok(()),
        ipam if ipam.eq_ignore_ascii_case("default") => Ok(()),
        ipam => Err(texts::ipam_driver_not_found(ipam)),
    }
}

fn ipam(view: &View<'_>, spec: &NetworkSpec) -> Result<(), ControlError> {
    let mut families = BTreeSet::new();
    for config in &spec.ipam {
        let subnet = config.subnet.ok_or_else(texts::subnet_missing)?;
        is_good_pool(subnet, config)?;
        if !families.insert(subnet.address.is_ipv4()) {
            return Err(texts::subnets_of_one_family());
        }
        if view.networks().flat_map(|network| subnets_of(network)).any(|taken| taken.overlaps(subnet)) {
            return Err(texts::subnet_overlaps());
        }
    }
    Ok(())
}

fn is_good_pool(subnet: Subnet, config: &IpamConfig) -> Result<(), ControlError> {
    if subnet.bits() - subnet.prefix < MIN_HOST_BITS {
        return Err(texts::subnet_too_small(&subnet));
    }
    let holds = |range: &Subnet| subnet.contains(range.address) && range.prefix >= subnet.prefix;
    if let Some(range) = config.range.filter(|range| !holds(range)) {
        return Err(texts::subnet_without_range(&subnet, &range));
    }
    if let Some(gateway) = config.gateway.filter(|gateway| !subnet.contains(*gateway)) {
        return Err(texts::subnet_without_gateway(&subnet, &gateway));
    }
    match config.reserved.values().find(|address| !subnet.contains(**address)) {
        Some(address) => Err(texts::subnet_without_reserved(&subnet, address)),
        None => Ok(()),
    }
}

/// What a network asks for and what it was given.
fn subnets_of(network: &Network) -> impl Iterator<Item = Subnet> {
    let given = network.allocation.iter().flat_map(|allocation| &allocation.pools);
    network.spec.ipam.iter().chain(given).filter_map(|config| config.subnet)
}

/// Removes the network; while tasks of removed services still end on it, it is only marked, and the allocator removes it
/// after the last one.
///
/// # Errors
/// When a service or a plain container is attached to it.
pub fn remove_network(
    view: &View<'_>,
    id: NetworkId,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let network = view.network(id).filter(|network| !network.pending_delete);
    let network = network.ok_or_else(|| texts::gone(&id.into()))?;
    if network.spec.labels.get(PREDEFINED_LABEL).is_some_and(|value| value == "true") {
        return Err(texts::predefined_not_removable(id, &network.spec.name));
    }
    let user = |uses: &dyn Fn(&ServiceSpec) -> bool| {
        view.services().find(|service| specs_in_use(view, service).any(uses))
    };
    if let Some(service) = user(&needs_ingress).filter(|_| network.spec.ingress) {
        return Err(texts::ingress_in_use(service.id));
    }
    if let Some(service) = user(&|spec| spec.task.networks.iter().any(|network| network.target == id)) {
        return Err(texts::network_in_use_by_service(id, service.id));
    }
    let mut users = view.tasks_using(id).filter(|task| may_run(view, task)).peekable();
    if users.peek().is_none() {
        return Ok(vec![StoreAction::Remove(id.into())]);
    }
    // A plain container stays until its user stops it.
    if let Some(task) = users.find(|task| task.service.is_none() && task.desired_state <= TaskState::Running)
    {
        return Err(texts::network_in_use_by_task(id, task.id));
    }
    let mut network = Network::clone(network);
    network.pending_delete = true;
    network.meta.updated_at = now;
    Ok(vec![StoreAction::Update(network.into())])
}

/// Whether it may hold an address: it has not ended, or nobody knows whether it has.
fn may_run(view: &View<'_>, task: &Task) -> bool {
    !view.state(task).is_terminal()
}

#[cfg(test)]
mod tests;
