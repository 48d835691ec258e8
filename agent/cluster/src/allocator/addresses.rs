//! One address out of a pool: free in the store, and not yet given in this pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ipam;
use super::refusal::Refusal;
use crate::id::NetworkId;
use crate::objects::network::{IpamConfig, Subnet};
use crate::objects::{Network, NetworkAttachment};
use crate::store::Holders;
use crate::view::View;

/// How a new holder asks for addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    /// Where in the pool the search starts: the holder's id, which is random.
    pub(super) start: u128,
    /// At most one of each family, which must be given and no other.
    pub(super) wanted: &'a [IpAddr],
}

impl Claim<'_> {
    /// Of any addresses.
    pub(super) fn of(start: u128) -> Self {
        Self { start, wanted: &[] }
    }
}

/// What a pool still has, as far as this pass has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Left {
    /// Addresses that nobody has had as long as the store remembers.
    #[default]
    Unused,
    /// Only such as ended tasks had.
    Stale,
    Nothing,
}

pub(super) struct Addresses<'a> {
    view: &'a View<'a>,
    given: BTreeSet<(NetworkId, IpAddr)>,
    /// By network and whether it is the pool of IPv4: no pool is searched to its end twice for the same thing.
    left: BTreeMap<(NetworkId, bool), Left>,
}

impl<'a> Addresses<'a> {
    pub(super) fn new(view: &'a View<'a>) -> Self {
        Self { view, given: BTreeSet::new(), left: BTreeMap::new() }
    }

    /// One address of the pool.
    pub(super) fn give(
        &mut self,
        network: &Network,
        pool: &IpamConfig,
        claim: Claim<'_>,
    ) -> Result<Subnet, Refusal> {
        let name = || network.spec.name.clone();
        let Some(subnet) = pool.subnet else { return Err(Refusal::NoSubnet { network: name() }) };
        let wanted = claim.wanted.iter().find(|wanted| wanted.is_ipv4() == subnet.address.is_ipv4());
        let address = match wanted {
            Some(address) if !ipam::may_be_asked_for(pool, *address) => {
                return Err(Refusal::NoSuchAddress { network: name(), address: *address });
            }
            Some(address) if !self.is_free(network.id, *address, Left::Stale) => {
                return Err(Refusal::AddressInUse { network: name(), address: *address });
            }
            Some(address) => *address,
            None => self
                .search(network.id, pool, claim.start)
                .ok_or_else(|| Refusal::NoAddress { network: name(), subnet })?,
        };
        self.given.insert((network.id, address));
        Ok(Subnet { address, prefix: subnet.prefix })
    }

    /// Given in this pass, but not used after all.
    pub(super) fn give_back(&mut self, attachments: &[NetworkAttachment]) {
        for attachment in attachments {
            self.give_back_of(attachment.network, &attachment.addresses);
        }
    }

    pub(super) fn give_back_of(&mut self, network: NetworkId, addresses: &[Subnet]) {
        for address in addresses {
            self.given.remove(&(network, address.address));
        }
    }

    fn search(&mut self, network: NetworkId, pool: &IpamConfig, start: u128) -> Option<IpAddr> {
        let subnet = pool.subnet?;
        let key = (network, subnet.address.is_ipv4());
        let left = self.left.get(&key).copied().unwrap_or_default();
        for kind in [Left::Unused, Left::Stale].into_iter().filter(|kind| *kind >= left) {
            let mut around = ipam::around(pool, start).map(|number| subnet.address_at(number));
            let found = around
                .find(|address| self.is_free(network, *address, kind) && !ipam::is_set_aside(pool, *address));
            if found.is_some() {
                return found;
            }
            let next = if kind == Left::Unused { Left::Stale } else { Left::Nothing };
            self.left.insert(key, next);
        }
        None
    }

    fn is_free(&self, network: NetworkId, address: IpAddr, kind: Left) -> bool {
        let Holders { live, ended } = self.view.holders_of(network, address);
        live == 0 && (ended == 0 || kind == Left::Stale) && !self.given.contains(&(network, address))
    }
}
