//! Why something can't be given out now. Its text is what a task that waits for it says of itself.

use std::net::IpAddr;

use crate::id::NetworkId;
use crate::objects::endpoint::Protocol;
use crate::objects::network::Subnet;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("network {0} not found")]
    NetworkNotFound(NetworkId),
    #[error("the cluster has no ingress network")]
    NoIngress,
    #[error("network {network} has no subnet: {subnet} overlaps with {theirs} of network {other}")]
    Overlap { network: String, subnet: Subnet, theirs: Subnet, other: String },
    #[error("network {network} has no subnet: none is left in the cluster's address pools")]
    NoSubnet { network: String },
    #[error("network {network} has no subnet: {fault}")]
    BadPool { network: String, fault: PoolFault },
    #[error("network {network} has no VXLAN identifier: {fault}")]
    BadVni { network: String, fault: VniFault },
    #[error("no address is free in {subnet} of network {network}")]
    NoAddress { network: String, subnet: Subnet },
    #[error("address {address} of network {network} is in use")]
    AddressInUse { network: String, address: IpAddr },
    #[error("address {address} can't be given in network {network}")]
    NoSuchAddress { network: String, address: IpAddr },
    #[error("port {port}/{} is published by service {other}", protocol.name())]
    PortInUse { port: u16, protocol: Protocol, other: String },
    #[error("port {port}/{} is published twice", protocol.name())]
    PortTwice { port: u16, protocol: Protocol },
    #[error("no port from 30000 to 32767 is left for {}", protocol.name())]
    NoPort { protocol: Protocol },
}

/// What is wrong with the addresses that a network asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PoolFault {
    #[error("a range, a gateway or reserved addresses need a subnet")]
    WithoutSubnet,
    #[error("it may have one of each address family, and asks for a second one with {0}")]
    SecondOfFamily(Subnet),
    #[error("{part} is not in {subnet}")]
    Outside { part: String, subnet: Subnet },
    #[error("there is no IPAM driver {0}")]
    Driver(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum VniFault {
    #[error("{0:?} is not a number from 1 to 16777215")]
    Malformed(String),
    #[error("{0} is that of another network")]
    InUse(u32),
    #[error("all are in use")]
    NoneLeft,
}
