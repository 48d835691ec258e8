//! Which addresses of a network endpoints have, and the next that is free: found without a look at all that are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ipam::{Prefix, Subnet};

/// Of one network.
#[derive(Debug, Default)]
pub(super) struct Taken {
    addresses: BTreeSet<IpAddr>,
    /// Those that more than one has, and how many more: a record that a killed daemon left may name what is another's by now.
    shared: BTreeMap<IpAddr, u32>,
    /// By subnet: nothing of its range is free before this one.
    free_from: BTreeMap<Prefix, IpAddr>,
}

impl Taken {
    /// The lowest that nobody has; it is not taken yet.
    pub(super) fn free(&mut self, subnet: &Subnet) -> Option<IpAddr> {
        let from = self.free_from.get(&subnet.subnet).copied();
        let found = subnet.free_address_from(from, &self.addresses)?;
        let _before = self.free_from.insert(subnet.subnet, found);
        Some(found)
    }

    /// Whether an endpoint may have this one.
    pub(super) fn is_free(&self, subnet: &Subnet, address: IpAddr) -> bool {
        subnet.is_free(address, &self.addresses)
    }

    /// An endpoint has it.
    pub(super) fn insert(&mut self, address: IpAddr) {
        if !self.addresses.insert(address) {
            *self.shared.entry(address).or_default() += 1;
        }
    }

    /// It has it no more.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if let Some(others) = self.shared.get_mut(&address) {
            *others -= 1;
            if *others == 0 {
                let _none = self.shared.remove(&address);
            }
            return;
        }
        let _had = self.addresses.remove(&address);
        for (subnet, from) in &mut self.free_from {
            if subnet.contains(address) && address < *from {
                *from = address;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_given_again_when_it_is_back() {
        let mut taken = Taken::default();
        let mut subnet = Subnet::of("10.0.0.0/16".parse().unwrap());
        subnet.gateway = Some([10, 0, 0, 1].into());
        for last in 2..200_u8 {
            let address = taken.free(&subnet).unwrap();
            assert_eq!(address, IpAddr::from([10, 0, 0, last]));
            taken.insert(address);
        }
        taken.give_back([10, 0, 0, 7].into());
        taken.give_back([10, 0, 0, 5].into());
        for last in [5, 7, 200_u8] {
            let address = taken.free(&subnet).unwrap();
            assert_eq!(address, IpAddr::from([10, 0, 0, last]));
            taken.insert(address);
        }
        assert!(!taken.is_free(&subnet, [10, 0, 0, 5].into()));
    }

    #[test]
    fn what_two_have_is_free_when_both_are_gone() {
        let (mut taken, address) = (Taken::default(), IpAddr::from([10, 0, 0, 2]));
        let subnet = Subnet::of("10.0.0.0/16".parse().unwrap());
        taken.insert(address);
        taken.insert(address);
        taken.give_back(address);
        assert!(!taken.is_free(&subnet, address));
        taken.give_back(address);
        assert!(taken.is_free(&subnet, address));
    }
}
