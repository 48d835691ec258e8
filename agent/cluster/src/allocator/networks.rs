//! The networks of one pass: which go, which get what they lack, and what a holder gets of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::addresses::{Addresses, Claim};
use super::ipam::Subnets;
use super::refusal::Refusal;
use super::vni::Vnis;
use crate::id::NetworkId;
use crate::objects::network::{NetworkAllocation, Subnet};
use crate::objects::{Network, Service};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;

pub(super) struct Networks<'a> {
    view: &'a View<'a>,
    ingress: Option<NetworkId>,
    removed: BTreeSet<NetworkId>,
    /// Of the networks that the store has no allocation of: the network with one, or why there is none.
    settled: BTreeMap<NetworkId, Result<Network, Refusal>>,
}

impl<'a> Networks<'a> {
    /// Removes what nobody uses any more and allocates what is new.
    pub(super) fn settle(view: &'a View<'a>, now: Timestamp, wanted: &mut Reconciled) -> Self {
        let removed = unused(view);
        removed.iter().for_each(|id| wanted.remove(*id));
        let present = || view.networks().filter(|network| !removed.contains(&network.id));
        let ingress = present().find(|network| network.is_ingress()).map(|network| network.id);
        let mut waiting: Vec<&Arc<Network>> =
            present().filter(|network| network.spec.is_overlay() && network.allocation.is_none()).collect();
        // The ingress network is first, so that it has the first subnet; then who came first.
        waiting.sort_by_key(|network| (!network.is_ingress(), network.meta.created_at, network.id));
        let settled = allocate(view, &waiting, now);
        settled.values().flatten().for_each(|network| wanted.update(network.clone()));
        Self { view, ingress, removed, settled }
    }

    pub(super) fn ingress(&self) -> Option<NetworkId> {
        self.ingress
    }

    pub(super) fn exists(&self, id: NetworkId) -> bool {
        self.view.network(id).is_some() && !self.removed.contains(&id)
    }

    /// Whether it is one of the cluster's, and not of each node.
    pub(super) fn is_overlay(&self, id: NetworkId) -> bool {
        self.view.network(id).is_some_and(|network| network.spec.is_overlay())
    }

    /// An address of each family that the network has; none when it is one of the node's own.
    pub(super) fn addresses(
        &self,
        id: NetworkId,
        claim: Claim<'_>,
        addresses: &mut Addresses<'_>,
    ) -> Result<Vec<Subnet>, Refusal> {
        let network = self.network(id)?;
        let pools = network.allocation.iter().flat_map(|allocation| &allocation.pools);
        let lost = claim.wanted.iter().find(|address| {
            !pools.clone().any(|pool| pool.subnet.is_some_and(|subnet| subnet.contains(**address)))
        });
        if let Some(address) = lost.filter(|_| network.spec.is_overlay()) {
            return Err(Refusal::NoSuchAddress { network: network.spec.name.clone(), address: *address });
        }
        let mut given = Vec::new();
        for pool in pools {
            match addresses.give(network, pool, claim) {
                Ok(address) => given.push(address),
                Err(refusal) => {
                    addresses.give_back_of(id, &given);
                    return Err(refusal);
                }
            }
        }
        Ok(given)
    }

    fn network(&self, id: NetworkId) -> Result<&Network, Refusal> {
        match self.settled.get(&id) {
            Some(settled) => settled.as_ref().map_err(Refusal::clone),
            None if self.removed.contains(&id) => Err(Refusal::NetworkNotFound(id)),
            None => self.view.network(id).map(Arc::as_ref).ok_or(Refusal::NetworkNotFound(id)),
        }
    }
}

/// The networks that are to go and that nobody uses any more.
fn unused(view: &View<'_>) -> BTreeSet<NetworkId> {
    let mut going: Vec<&Arc<Network>> = view
        .networks()
        .filter(|network| network.pending_delete && view.tasks_using(network.id).next().is_none())
        .collect();
    for service in view.services() {
        going.retain(|network| !uses(service, network));
    }
    going.into_iter().map(|network| network.id).collect()
}

fn uses(service: &Service, network: &Network) -> bool {
    service.spec.task.networks.iter().any(|config| config.target == network.id)
        || service.endpoint.virtual_ips.iter().any(|virtual_ip| virtual_ip.network == network.id)
}

fn allocate(
    view: &View<'_>,
    waiting: &[&Arc<Network>],
    now: Timestamp,
) -> BTreeMap<NetworkId, Result<Network, Refusal>> {
    if waiting.is_empty() {
        return BTreeMap::new();
    }
    let (mut subnets, mut vnis) = (Subnets::of(view), Vnis::of(view));
    let mut settled = BTreeMap::new();
    for network in waiting {
        let allocation = allocation_for(network, &mut subnets, &mut vnis);
        let allocated = allocation.map(|allocation| {
            let mut network = Network::clone(network);
            network.meta.updated_at = now;
            network.allocation = Some(allocation);
            network
        });
        settled.insert(network.id, allocated);
    }
    settled
}

fn allocation_for(
    network: &Network,
    subnets: &mut Subnets,
    vnis: &mut Vnis,
) -> Result<NetworkAllocation, Refusal> {
    let vni = vnis.choose(network)?;
    let pools = subnets.choose(network)?;
    vnis.take(vni);
    subnets.take(&network.spec.name, &pools);
    Ok(NetworkAllocation { vni: Some(vni), pools })
}
