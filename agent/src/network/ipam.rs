//! Which subnet a network gets, and which address an endpoint. Pure: what is taken is an argument.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address with the length of its subnet's prefix; of a subnet, the first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Addresses as numbers, in which they can be counted.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Prefix {
    /// `None` for a length that the address can't have.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (length <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, length })
    }

    /// The address, with the bits behind the prefix.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// In bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether of IPv4.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    fn bits(self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    /// How many addresses, less one.
    fn span(self) -> u128 {
        u128::MAX.checked_shr(u32::from(128 - (self.bits() - self.length))).unwrap_or(0)
    }

    fn with(self, value: u128) -> IpAddr {
        if self.is_ipv4() {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)))
        } else {
            IpAddr::V6(Ipv6Addr::from(value))
        }
    }

    /// The subnet's first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.with(number(self.address) & !self.span())
    }

    /// The subnet's last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.with(number(self.address) | self.span())
    }

    /// The subnet.
    #[must_use]
    pub fn subnet(self) -> Self {
        Self { address: self.first(), length: self.length }
    }

    /// Whether the address is in the subnet.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && number(self.first()) == number(address) & !self.span()
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = text.split_once('/').ok_or(())?;
        if length.starts_with('+') || (length.len() > 1 && length.starts_with('0')) {
            return Err(());
        }
        Self::new(address.parse().map_err(|_| ())?, length.parse().map_err(|_| ())?).ok_or(())
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom(format!("no subnet: {text}")))
    }
}

/// Where networks without a subnet of the user's get theirs: equal parts of larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The whole.
    pub base: Prefix,
    /// The length of a part's prefix.
    pub size: u8,
}

/// dockerd's: 172.17 to 172.31 as /16, 192.168 in /20.
#[must_use]
pub fn default_pools() -> Vec<Pool> {
    let pool = |a, b, length, size| Pool {
        base: Prefix { address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), length },
        size,
    };
    vec![
        pool(172, 17, 16, 16),
        pool(172, 18, 16, 16),
        pool(172, 19, 16, 16),
        pool(172, 20, 14, 16),
        pool(172, 24, 14, 16),
        pool(172, 28, 14, 16),
        pool(192, 168, 16, 20),
    ]
}

/// The first part of the pools that overlaps none of `taken`.
#[must_use]
pub fn free_subnet(pools: &[Pool], taken: &[Prefix], ipv4: bool) -> Option<Prefix> {
    let pools = pools.iter().filter(|pool| pool.base.is_ipv4() == ipv4 && pool.size >= pool.base.length);
    pools.into_iter().find_map(|pool| {
        let part = Prefix { address: pool.base.first(), length: pool.size };
        let last = number(pool.base.last());
        let mut start = number(part.address);
        loop {
            let candidate = Prefix { address: part.with(start), length: pool.size };
            let Some(blocking) = taken.iter().find(|taken| candidate.overlaps(**taken)) else {
                return Some(candidate);
            };
            // Behind what is in the way: a large one is not tried part by part.
            let behind = number(blocking.last()).max(number(candidate.last())).checked_add(1)?;
            start = behind.checked_add(part.span())? & !part.span();
            if start > last {
                return None;
            }
        }
    })
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The whole.
    pub subnet: Prefix,
    /// Where addresses are given out of.
    pub range: Option<Prefix>,
    /// The containers' way out, which is the bridge's address; `None` when there is none.
    pub gateway: Option<IpAddr>,
    /// The bridge's address where the way out is another machine.
    #[serde(default)]
    pub host: Option<IpAddr>,
    /// Never given out.
    pub reserved: BTreeSet<IpAddr>,
}

impl Subnet {
    /// One without anything else.
    #[must_use]
    pub fn of(subnet: Prefix) -> Self {
        Self { subnet, range: None, gateway: None, host: None, reserved: BTreeSet::new() }
    }

    /// Whether an endpoint may have the address: in the subnet, neither its number nor its broadcast address, nobody else's.
    #[must_use]
    pub fn is_free(&self, address: IpAddr, taken: &BTreeSet<IpAddr>) -> bool {
        let edge = self.subnet.is_ipv4()
            && self.subnet.length() < 31
            && (address == self.subnet.first() || address == self.subnet.last());
        let zero = !self.subnet.is_ipv4() && address == self.subnet.first();
        self.subnet.contains(address)
            && !edge
            && !zero
            && self.gateway != Some(address)
            && self.host != Some(address)
            && !self.reserved.contains(&address)
            && !taken.contains(&address)
    }

    /// The lowest free address of the range.
    #[must_use]
    pub fn free_address(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        self.free_address_from(None, taken)
    }

    /// The lowest free address of the range that is not before `from`.
    #[must_use]
    pub fn free_address_from(&self, from: Option<IpAddr>, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let range = self.range.unwrap_or(self.subnet);
        let first = number(range.first());
        let (mut at, last) = (from.map_or(first, |from| number(from).max(first)), number(range.last()));
        while at <= last {
            let address = range.with(at);
            if self.is_free(address, taken) {
                return Some(address);
            }
            at = at.checked_add(1)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn subnet(text: &str) -> Subnet {
        Subnet::of(prefix(text))
    }

    #[test]
    fn edges() {
        let whole = prefix("172.17.3.4/16");
        assert_eq!((whole.first(), whole.last()), ([172, 17, 0, 0].into(), [172, 17, 255, 255].into()));
        assert!(whole.contains([172, 17, 9, 9].into()) && !whole.contains([172, 18, 0, 0].into()));
        assert!(!whole.contains("::1".parse().unwrap()));
        assert_eq!(prefix("0.0.0.0/0").last(), IpAddr::from([255, 255, 255, 255]));
        assert_eq!(prefix("::/0").last(), IpAddr::from([0xffff_u16; 8]));
        assert_eq!(prefix("10.0.0.1/32").last(), IpAddr::from([10, 0, 0, 1]));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/08", "10.0.0.0/+8", "x/8"]
        {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pools_are_dockerds() {
        let pools = default_pools();
        let mut taken = vec![prefix("172.19.0.0/24")];
        let mut given = Vec::new();
        while let Some(subnet) = free_subnet(&pools, &taken, true) {
            taken.push(subnet);
            given.push(subnet.to_string());
        }
        assert_eq!(given.len(), 14 + 16);
        assert_eq!((given[0].as_str(), given[2].as_str()), ("172.17.0.0/16", "172.20.0.0/16"));
        assert_eq!((given[14].as_str(), given[29].as_str()), ("192.168.0.0/20", "192.168.240.0/20"));
        assert_eq!(free_subnet(&pools, &[prefix("0.0.0.0/0")], true), None);
        assert_eq!(free_subnet(&pools, &[], false), None);
    }

    #[test]
    fn the_lowest_free_address() {
        let mut network = subnet("172.17.0.0/29");
        network.gateway = Some([172, 17, 0, 1].into());
        network.reserved = BTreeSet::from([[172, 17, 0, 3].into()]);
        let mut taken = BTreeSet::new();
        let mut given = Vec::new();
        while let Some(address) = network.free_address(&taken) {
            let _new = taken.insert(address);
            given.push(address.to_string());
        }
        assert_eq!(given, ["172.17.0.2", "172.17.0.4", "172.17.0.5", "172.17.0.6"]);
        network.range = Some(prefix("172.17.0.4/31"));
        assert_eq!(network.free_address(&BTreeSet::new()), Some([172, 17, 0, 4].into()));
        assert_eq!(subnet("fd00::/64").free_address(&BTreeSet::new()), "fd00::1".parse().ok());
    }

    proptest! {
        #[test]
        fn a_free_subnet_is_in_its_pool_and_overlaps_nothing(
            base in any::<u32>(), length in 8_u8..20, size in 0_u8..8,
            taken in proptest::collection::vec((any::<u32>(), 8_u8..=32), 0..20),
        ) {
            let base = Prefix::new(IpAddr::V4(base.into()), length).unwrap().subnet();
            let taken: Vec<_> = taken.into_iter()
                .map(|(address, length)| Prefix::new(IpAddr::V4(address.into()), length).unwrap()).collect();
            let pool = Pool { base, size: length + size };
            if let Some(found) = free_subnet(&[pool], &taken, true) {
                prop_assert!(base.contains(found.first()) && base.contains(found.last()));
                prop_assert_eq!(found, found.subnet());
                prop_assert!(taken.iter().all(|taken| !found.overlaps(*taken)));
            } else {
                let parts = (0..1_u32 << size).map(|part| {
                    let IpAddr::V4(first) = base.first() else { unreachable!() };
                    Prefix::new(IpAddr::V4((u32::from(first) + (part << (32 - length - size))).into()), length + size).unwrap()
                });
                for part in parts {
                    prop_assert!(taken.iter().any(|taken| part.overlaps(*taken)), "{part} was free");
                }
            }
        }

        #[test]
        fn subnets_print_as_they_are_read(address in any::<u128>(), length in 0_u8..=128) {
            let prefix = Prefix::new(IpAddr::V6(address.into()), length).unwrap();
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            prop_assert!(prefix.contains(prefix.first()) && prefix.contains(prefix.last()));
        }
    }
}
