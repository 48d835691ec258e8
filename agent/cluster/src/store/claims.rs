//! That nobody takes what another one holds: an address of a network, a subnet, a VXLAN identifier. The allocator gives out
//! what is free by the store that it has seen; here it is asked once more when the action enters, by the index.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::addresses::{addresses_of, addresses_of_endpoint};
use super::{Object, Store, StoreError};
use crate::id::NetworkId;
use crate::objects::Network;
use crate::objects::network::Subnet;

type Claims = BTreeSet<(NetworkId, IpAddr)>;

/// Whether what `new` has and `old` had not is free.
pub(super) fn are_free(store: &Store, old: Option<&Object>, new: &Object) -> Result<(), StoreError> {
    if let Object::Network(network) = new {
        return network_is_apart(store, network);
    }
    let before = old.map(claims_of).unwrap_or_default();
    let taken = claims_of(new)
        .difference(&before)
        .copied()
        .find(|(network, address)| store.holders_of(*network, *address).live > 0);
    match taken {
        Some((network, address)) => Err(StoreError::AddressInUse { network, address }),
        None => Ok(()),
    }
}

/// The addresses that an object has for itself. The virtual ones in a task are its service's, which it was only told of; an
/// ended task claims nothing.
fn claims_of(object: &Object) -> Claims {
    match object {
        Object::Service(service) => addresses_of_endpoint(&service.endpoint).collect(),
        Object::Node(node) => addresses_of(&node.attachments).collect(),
        Object::Task(task) if !task.status.state.is_terminal() => addresses_of(&task.networks).collect(),
        _ => Claims::new(),
    }
}

/// Looks at every network, but only when this one's allocation is another than the stored one.
fn network_is_apart(store: &Store, new: &Network) -> Result<(), StoreError> {
    let Some(allocation) = &new.allocation else { return Ok(()) };
    if store.network(new.id).is_some_and(|old| old.allocation.as_ref() == Some(allocation)) {
        return Ok(());
    }
    let clash = |what, other| Err(StoreError::NetworksClash { network: new.id, what, other });
    for other in store.networks().filter(|other| other.id != new.id) {
        let Some(theirs) = &other.allocation else { continue };
        if allocation.vni.is_some() && allocation.vni == theirs.vni {
            return clash("the VXLAN identifier", other.id);
        }
        let subnets = |pools: &[crate::objects::network::IpamConfig]| -> Vec<Subnet> {
            pools.iter().filter_map(|pool| pool.subnet).collect()
        };
        let (ours, theirs) = (subnets(&allocation.pools), subnets(&theirs.pools));
        if ours.iter().any(|subnet| theirs.iter().any(|other| other.overlaps(*subnet))) {
            return clash("addresses", other.id);
        }
    }
    Ok(())
}
