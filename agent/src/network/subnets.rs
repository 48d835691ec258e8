//! A new network's subnets: those that the user gave are checked, in dockerd's texts, and those that the daemon chose are shown.

use std::net::IpAddr;

use ketch_engine_api::network::{Ipam, IpamConfig};

use super::ipam::{Prefix, Subnet};
use super::record::{Driver, Network};
use crate::error::{Error, Kind, Result};

/// What no single subnet shows to be wrong.
pub(super) fn check_together(network: &Network) -> Result<()> {
    for (number, subnet) in network.subnets.iter().enumerate() {
        let others = &network.subnets[number + 1..];
        if others.iter().any(|other| other.subnet.overlaps(subnet.subnet)) {
            return Err(Error::new(
                Kind::Forbidden,
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        let is_second = others.iter().any(|other| other.subnet.is_ipv4() == subnet.subnet.is_ipv4());
        if network.driver == Driver::Bridge && is_second {
            return Err(Error::new(Kind::Forbidden, "bridge driver doesn't support multiple subnets"));
        }
    }
    let given = network.ipam.config.iter().flatten();
    let named = given.flat_map(|config| config.auxiliary_addresses.iter().flatten());
    for (name, text) in named {
        let is_gateway = network
            .subnets
            .iter()
            .any(|subnet| subnet.gateway == text.parse().ok() && subnet.gateway.is_some());
        if is_gateway {
            return Err(Error::new(
                Kind::Internal,
                format!("failed to allocate secondary ip address ({name}:{text}): Address already in use"),
            ));
        }
    }
    Ok(())
}

/// Subnets that the daemon chose are shown with their gateways, behind those of the user.
pub(super) fn show_chosen(network: &mut Network) {
    let mut shown = network.ipam.config.take().unwrap_or_default();
    shown.extend(network.subnets.iter().filter(|subnet| network.chosen.contains(&subnet.subnet)).map(
        |subnet| IpamConfig {
            subnet: subnet.subnet.to_string(),
            gateway: subnet.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            ..IpamConfig::default()
        },
    ));
    network.ipam.config = Some(shown);
}

/// The user's subnets.
pub(super) fn checked(ipam: &Ipam, (ipv4, ipv6): (bool, bool)) -> Result<Vec<Subnet>> {
    let mut errors = Vec::new();
    let mut subnets = Vec::new();
    for config in ipam.config.iter().flatten() {
        if let Some(subnet) = checked_subnet(config, &mut errors) {
            // Of a family that the network is not to have: shown, and not used.
            if !(if subnet.subnet.is_ipv4() { ipv4 } else { ipv6 }) {
                continue;
            }
            subnets.push(subnet);
        }
    }
    match errors.as_slice() {
        [] => Ok(subnets),
        [one] => Err(Error::invalid(format!("invalid network config:\n{one}"))),
        several => {
            let lines: Vec<_> = several.iter().map(|line| format!("* {line}")).collect();
            Err(Error::invalid(format!("invalid network config:\n{}", lines.join("\n"))))
        }
    }
}

fn checked_subnet(config: &IpamConfig, errors: &mut Vec<String>) -> Option<Subnet> {
    let text = &config.subnet;
    let Ok(subnet) = text.parse::<Prefix>() else {
        errors.push(format!("invalid subnet {text}: invalid CIDR block notation"));
        return None;
    };
    if subnet != subnet.subnet() {
        errors.push(format!("invalid subnet {subnet}: it should be {}", subnet.subnet()));
    }
    let subnet = subnet.subnet();
    let mut range = None;
    if !config.ip_range.is_empty() {
        let text = &config.ip_range;
        match text.parse::<Prefix>() {
            Err(()) => errors.push(format!("invalid ip-range {text}: invalid CIDR block notation")),
            Ok(given) if given != given.subnet() => {
                errors.push(format!("invalid ip-range {given}: it should be {}", given.subnet()));
            }
            Ok(given) if !subnet.contains(given.address()) => {
                errors.push(format!(
                    "invalid ip-range {given}: parent subnet {subnet} doesn't contain ip-range"
                ));
            }
            Ok(given) if given.length() < subnet.length() => {
                errors.push(format!(
                    "invalid ip-range {given}: CIDR block is bigger than its parent subnet {subnet}"
                ));
            }
            Ok(given) => range = Some(given),
        }
    }
    let mut address = |kind: &str, text: &str| match text.parse::<IpAddr>() {
        Err(_) => {
            errors.push(format!("invalid {kind}: invalid address"));
            None
        }
        Ok(address) if !subnet.contains(address) => {
            errors.push(format!("invalid {kind}: parent subnet {subnet} doesn't contain this address"));
            None
        }
        Ok(address) => Some(address),
    };
    let gateway = Some(config.gateway.as_str())
        .filter(|text| !text.is_empty())
        .and_then(|text| address(&format!("gateway {text}"), text));
    let reserved = config
        .auxiliary_addresses
        .iter()
        .flatten()
        .filter_map(|(name, text)| address(&format!("auxiliary address {name}"), text))
        .collect();
    Some(Subnet { subnet, range, gateway, host: None, reserved })
}
