//! The addresses that the machine itself has, as the kernel lists them: what a node of a cluster listens at and is reached by.

use std::net::IpAddr;

use super::Networks;
use super::link::Links;
use super::netlink::NetlinkError;

/// netdevice(7).
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;

/// An address of one of the machine's interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The interface's name.
    pub interface: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// Whether the interface is up, and no loopback.
    pub is_outside: bool,
    /// Whether one of the daemon's networks has it.
    pub is_of_network: bool,
}

impl Networks {
    /// All of them, interface after interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn machine_addresses(&self) -> Result<Vec<Local>, NetlinkError> {
        // Overlays have bridges in namespaces of their own: their subnets may be those of the machine's own network.
        let of_node = self.list().into_iter().filter(|network| !network.is_overlay());
        let subnets: Vec<_> = of_node.flat_map(|network| network.subnets).collect();
        let mut links = Links::open()?;
        let mut found = Vec::new();
        for link in links.list()? {
            for address in links.addresses(link.index)? {
                let address = address.address();
                found.push(Local {
                    interface: link.name.clone(),
                    address,
                    is_outside: link.flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP,
                    is_of_network: subnets.iter().any(|subnet| subnet.subnet.contains(address)),
                });
            }
        }
        Ok(found)
    }
}
