//! Subnets: what each network asks for, or a part of the cluster's pools; no two networks' overlap.
//!
//! IPv4 is always there: the lowest free part of the first pool that has one, as Docker counts. IPv6 is there when the
//! network asks for it or names a subnet: without one, a /64 of the cluster's own unique local prefix (RFC 4193). That
//! prefix is `fd` and 40 bits of the cluster's id, which are random as the RFC wants them; the 16 bits after it are those
//! of the network's id, or the next that are free. So nothing is stored for it, and two clusters can be routed to each
//! other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::refusal::{PoolFault, Refusal};
use crate::objects::Network;
use crate::objects::cluster::ClusterNetworking;
use crate::objects::network::{IpamConfig, Subnet, number_of};
use crate::view::View;

pub(super) struct Subnets {
    networking: ClusterNetworking,
    /// The first 48 bits of the cluster's own IPv6 addresses.
    unique_local: u128,
    /// By whether it is IPv4 and its first address. No two overlap, so that a look at one of them tells.
    taken: BTreeMap<(bool, u128), (Subnet, String)>,
}

impl Subnets {
    pub(super) fn of(view: &View<'_>) -> Self {
        let mut subnets = Self {
            networking: view.cluster().map(|cluster| cluster.networking.clone()).unwrap_or_default(),
            unique_local: unique_local(view.cluster().map_or(0, |cluster| cluster.id.bits())),
            taken: BTreeMap::new(),
        };
        for network in view.networks() {
            let pools = network.allocation.iter().flat_map(|allocation| &allocation.pools);
            subnets.take(&network.spec.name, pools);
        }
        subnets
    }

    pub(super) fn take<'p>(&mut self, network: &str, pools: impl IntoIterator<Item = &'p IpamConfig>) {
        for subnet in pools.into_iter().filter_map(|pool| pool.subnet) {
            self.taken.insert((subnet.address.is_ipv4(), subnet.first()), (subnet, network.to_owned()));
        }
    }

    /// A pool of each address family that the network is to have, each with its gateway.
    pub(super) fn choose(&self, network: &Network) -> Result<Vec<IpamConfig>, Refusal> {
        let name = || network.spec.name.clone();
        let bad = |fault| Refusal::BadPool { network: name(), fault };
        let driver = network.spec.ipam_driver.name.as_str();
        if !driver.is_empty() && !driver.eq_ignore_ascii_case("default") {
            return Err(bad(PoolFault::Driver(driver.to_owned())));
        }
        let mut pools = asked_for(&network.spec.ipam).map_err(bad)?;
        for subnet in pools.iter().filter_map(|pool| pool.subnet) {
            if let Some((theirs, other)) = self.overlapping(subnet) {
                let (theirs, other) = (*theirs, other.clone());
                return Err(Refusal::Overlap { network: name(), subnet, theirs, other });
            }
        }
        let has = |pools: &[IpamConfig], is_ipv4| {
            pools.iter().filter_map(|pool| pool.subnet).any(|subnet| subnet.address.is_ipv4() == is_ipv4)
        };
        if !has(&pools, true) {
            let subnet = self.next_ipv4().ok_or_else(|| Refusal::NoSubnet { network: name() })?;
            pools.insert(0, IpamConfig { subnet: Some(subnet), ..IpamConfig::default() });
        }
        if network.spec.ipv6 && !has(&pools, false) {
            let subnet = self.next_ipv6(network).ok_or_else(|| Refusal::NoSubnet { network: name() })?;
            pools.push(IpamConfig { subnet: Some(subnet), ..IpamConfig::default() });
        }
        Ok(pools.into_iter().map(with_gateway).collect())
    }

    fn overlapping(&self, subnet: Subnet) -> Option<&(Subnet, String)> {
        let is_ipv4 = subnet.address.is_ipv4();
        let (_, nearest) = self.taken.range((is_ipv4, 0)..=(is_ipv4, subnet.last())).next_back()?;
        Some(nearest).filter(|(theirs, _)| theirs.overlaps(subnet))
    }

    fn next_ipv4(&self) -> Option<Subnet> {
        let pools = self.networking.address_pools.iter().filter(|pool| pool.address.is_ipv4());
        pools.filter_map(|pool| self.next_part(*pool)).next()
    }

    /// Each step of it passes a subnet that is taken.
    fn next_part(&self, pool: Subnet) -> Option<Subnet> {
        let prefix = self.networking.subnet_size;
        let size = 1_u128 << pool.bits().checked_sub(prefix).filter(|_| prefix >= pool.prefix)?;
        let mut first = pool.first();
        while first + (size - 1) <= pool.last() {
            let part = Subnet { address: pool.address_at(first), prefix };
            match self.overlapping(part) {
                None => return Some(part),
                Some((theirs, _)) => first = (theirs.last() / size + 1) * size,
            }
        }
        None
    }

    fn next_ipv6(&self, network: &Network) -> Option<Subnet> {
        let start = network.id.bits() & 0xffff;
        let parts = (0..=0xffff_u128).map(|step| (start + step) & 0xffff);
        let subnets = parts.map(|part| {
            let address = Ipv6Addr::from(self.unique_local | (part << 64));
            Subnet { address: address.into(), prefix: 64 }
        });
        subnets.into_iter().find(|subnet| self.overlapping(*subnet).is_none())
    }
}

fn unique_local(cluster: u128) -> u128 {
    let global_id = cluster & ((1 << 40) - 1);
    (0xfd << 120) | (global_id << 80)
}

/// The pools that the user names.
fn asked_for(configs: &[IpamConfig]) -> Result<Vec<IpamConfig>, PoolFault> {
    let mut pools: Vec<IpamConfig> = Vec::new();
    for config in configs.iter().filter(|config| **config != IpamConfig::default()) {
        let subnet = config.subnet.ok_or(PoolFault::WithoutSubnet)?;
        let subnet = Subnet { address: subnet.address_at(subnet.first()), prefix: subnet.prefix };
        let of_family = |pool: &IpamConfig| {
            pool.subnet.is_some_and(|other| other.address.is_ipv4() == subnet.address.is_ipv4())
        };
        if pools.iter().any(of_family) {
            return Err(PoolFault::SecondOfFamily(subnet));
        }
        is_inside(config, subnet)?;
        pools.push(IpamConfig { subnet: Some(subnet), ..config.clone() });
    }
    Ok(pools)
}

fn is_inside(config: &IpamConfig, subnet: Subnet) -> Result<(), PoolFault> {
    let outside = |part: String| PoolFault::Outside { part, subnet };
    if let Some(range) = config.range
        && !(subnet.contains(range.address_at(range.first()))
            && subnet.contains(range.address_at(range.last())))
    {
        return Err(outside(format!("range {range}")));
    }
    let addresses = config.gateway.iter().chain(config.reserved.values());
    match addresses.into_iter().find(|address| !subnet.contains(**address)) {
        Some(address) => Err(outside(format!("address {address}"))),
        None => Ok(()),
    }
}

/// The pool with the lowest address of its subnet as gateway, when it has none.
fn with_gateway(mut pool: IpamConfig) -> IpamConfig {
    if let (None, Some(subnet)) = (pool.gateway, pool.subnet) {
        let (first, last) = usable(subnet);
        let mut addresses = (first..=last).map(|number| subnet.address_at(number));
        pool.gateway = addresses.find(|address| !is_set_aside(&pool, *address));
    }
    pool
}

/// The first and last number of a subnet that a host may have. The first address of all is the network's own (IPv4) or
/// the routers' (RFC 4291, 2.6.1), the last one of IPv4 the broadcast address; a pair or a single one has neither.
fn usable(subnet: Subnet) -> (u128, u128) {
    let (first, last) = (subnet.first(), subnet.last());
    if last - first < 2 {
        return (first, last);
    }
    (first + 1, if subnet.address.is_ipv4() { last - 1 } else { last })
}

/// The numbers from which the pool gives, each once, from where `start` points and around.
pub(super) fn around(pool: &IpamConfig, start: u128) -> impl Iterator<Item = u128> + use<> {
    let span = pool.subnet.and_then(|subnet| {
        let (first, last) = usable(subnet);
        let range = pool.range.unwrap_or(subnet);
        let (first, last) = (first.max(range.first()), last.min(range.last()));
        (first <= last).then_some((first, last))
    });
    span.into_iter().flat_map(move |(first, last)| {
        // All of IPv6 is one more than the type can count.
        let start = first + start % (last - first).saturating_add(1);
        (start..=last).chain(first..start)
    })
}

/// Whether it is the gateway or reserved.
pub(super) fn is_set_aside(pool: &IpamConfig, address: IpAddr) -> bool {
    pool.gateway == Some(address) || pool.reserved.values().any(|reserved| *reserved == address)
}

/// Whether the user may name it: any usable one of the subnet, whether or not the range has it.
pub(super) fn may_be_asked_for(pool: &IpamConfig, address: IpAddr) -> bool {
    pool.subnet.is_some_and(|subnet| {
        let (first, last) = usable(subnet);
        subnet.contains(address) && (first..=last).contains(&number_of(address))
    }) && !is_set_aside(pool, address)
}
