//! A container in one network: what may be asked for, and what it gets: addresses, names of its interfaces, its own names. Nothing
//! is made here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ketch_engine_api::network::EndpointSettings;

use super::ipam::Prefix;
use super::link::{mac_from, mac_of, mac_text};
use super::overlay::mac_for;
use super::record::{Driver, Endpoint, Network, Role, Sandbox};
use super::request::Connect;
use super::{Networks, State, backing, bridge_of};
use crate::error::{Error, Kind, Result};
use crate::random;

const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

impl Networks {
    /// Whether an endpoint can be meant so in a network: at the container's creation, and before it is connected.
    ///
    /// # Errors
    /// dockerd's texts.
    pub fn check_endpoint(&self, network: &Network, asked: &EndpointSettings) -> Result<()> {
        check(network, asked)
    }
}

pub(super) fn check(network: &Network, asked: &EndpointSettings) -> Result<()> {
    if !asked.mac_address.is_empty() && mac_from(&asked.mac_address).is_none() {
        return Err(Error::invalid(format!("invalid MAC address {}", asked.mac_address)));
    }
    let mut errors = Vec::new();
    let ipam = asked.ipam_config.clone().unwrap_or_default();
    let given = [("IPv4", true, &ipam.ipv4_address), ("IPv6", false, &ipam.ipv6_address)];
    let given: Vec<_> = given.into_iter().filter(|(_, _, text)| !text.is_empty()).collect();
    if !given.is_empty() && !network.has_names() {
        errors.push("user specified IP address is supported on user defined networks only".to_owned());
    }
    for (family, ipv4, text) in given {
        let address = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == ipv4);
        if address.is_none() {
            errors.push(format!("invalid {family} address: {text}"));
        }
        let configured = configured(network);
        if !configured.iter().any(|subnet| subnet.is_ipv4() == ipv4) {
            errors.push(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            );
        } else if !address.is_some_and(|address| configured.iter().any(|subnet| subnet.contains(address))) {
            errors.push(format!("no configured subnet or ip-range contain the IP address {text}"));
        }
    }
    if !network.has_names() && asked.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        errors.push(
            "network-scoped alias is supported only for containers in user defined networks".to_owned(),
        );
    }
    errors.extend(settings_of(asked).filter_map(|setting| sysctl(setting, "").err()));
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::invalid(format!("invalid endpoint settings:\n{one}"))),
        several => {
            let lines: Vec<_> = several.iter().map(|line| format!("* {line}")).collect();
            Err(Error::invalid(format!("invalid endpoint settings:\n{}", lines.join("\n"))))
        }
    }
}

/// The subnets that the user gave: those that the daemon chose are shown with their gateways, but come from its pools.
fn configured(network: &Network) -> Vec<Prefix> {
    let chosen = &network.chosen;
    network.subnets.iter().map(|subnet| subnet.subnet).filter(|subnet| !chosen.contains(subnet)).collect()
}

impl State {
    /// A new endpoint with its addresses. Nothing is made.
    pub(super) fn endpoint(
        &mut self,
        sandbox: &Sandbox,
        network: &Network,
        wanted: impl Into<Connect>,
    ) -> Result<Endpoint> {
        let Connect { asked, place } = wanted.into();
        let ipam = asked.ipam_config.clone().unwrap_or_default();
        let (mut ipv4, mut ipv6) = (None, None);
        let has_addresses = network.driver.has_addresses();
        if network.is_overlay() {
            (ipv4, ipv6) = given_by_the_cluster(network, &asked)?;
        } else if has_addresses {
            let taken = self.taken.entry(network.id.clone()).or_default();
            for (wanted, is_ipv4, text) in
                [(network.ipv4, true, &ipam.ipv4_address), (network.ipv6, false, &ipam.ipv6_address)]
            {
                let subnets = || network.subnets.iter().filter(|subnet| subnet.subnet.is_ipv4() == is_ipv4);
                if !wanted {
                    continue;
                }
                let address = match text.parse::<IpAddr>() {
                    Ok(address) if subnets().any(|subnet| taken.is_free(subnet, address)) => address,
                    Ok(_) => return Err(Error::new(Kind::Forbidden, "Address already in use")),
                    Err(_) => subnets().find_map(|subnet| taken.free(subnet)).ok_or_else(|| {
                        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
                        let message = format!(
                            "no available {family} addresses on this network's address pools: {} ({})",
                            network.name, network.id
                        );
                        Error::new(Kind::Internal, message)
                    })?,
                };
                match address {
                    IpAddr::V4(address) => ipv4 = Some(address),
                    IpAddr::V6(address) => ipv6 = Some(address),
                }
            }
        }
        let mac = match (mac_from(&asked.mac_address), ipv4) {
            _ if !has_addresses || network.driver == Driver::Ipvlan => String::new(),
            // The others are not told: it follows from the address.
            _ if network.is_overlay() => mac_text(mac_for(&both(ipv4, ipv6)).unwrap_or_default()),
            (Some(mac), _) => mac_text(mac),
            (None, Some(address)) => mac_text(mac_of(address)),
            (None, None) => mac_text(backing::mac()?),
        };
        let link = if matches!(network.driver, Driver::Bridge | Driver::Overlay) {
            format!("veth{}", &random::digits(4)?[..7])
        } else {
            String::new()
        };
        Ok(Endpoint {
            id: random::id()?,
            network: network.id.clone(),
            link,
            interface: if has_addresses { interface(sandbox, network, &asked) } else { String::new() },
            mac,
            ipv4,
            ipv6,
            names: if network.has_names() { names(sandbox, &asked) } else { Vec::new() },
            links: self.links_of(&asked),
            asked,
            space: network.is_overlay().then(|| self.spaces.join(&network.id)),
            role: Role::Member,
            place: place.filter(|_| network.is_overlay()),
        })
    }

    fn links_of(&self, asked: &EndpointSettings) -> Vec<(String, String)> {
        let pairs = asked.links.iter().flatten();
        pairs
            .map(|text| {
                let (other, alias) = text.split_once(':').unwrap_or((text, text));
                let other = other.trim_start_matches('/');
                // The other may be named by its id, under which the server does not know it.
                let named = self.sandboxes.values().find(|sandbox| sandbox.container == other);
                (alias.to_owned(), named.map_or_else(|| other.to_owned(), |sandbox| sandbox.name.clone()))
            })
            .collect()
    }
}

fn both(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Vec<IpAddr> {
    [ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6)].into_iter().flatten().collect()
}

/// In an overlay network the cluster's managers give addresses, and here they are only looked at.
fn given_by_the_cluster(
    network: &Network,
    asked: &EndpointSettings,
) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    if let Some(refusal) = network.spanned.as_ref().and_then(|spanned| spanned.refusal.as_ref()) {
        return Err(Error::new(Kind::Forbidden, refusal.clone()));
    }
    let ipam = asked.ipam_config.clone().unwrap_or_default();
    let (ipv4, ipv6) = (ipam.ipv4_address.parse().ok(), ipam.ipv6_address.parse().ok());
    let is_in = |address: &IpAddr| network.subnets.iter().any(|subnet| subnet.subnet.contains(*address));
    let given = both(ipv4, ipv6);
    if given.is_empty() || !given.iter().all(is_in) {
        let message =
            format!("no manager of the cluster has given an address in the network {}", network.name);
        return Err(Error::new(Kind::Internal, message));
    }
    Ok((ipv4, ipv6))
}

/// The one that is asked for, or the first that the container has not: `eth0`, `eth1`...
fn interface(sandbox: &Sandbox, network: &Network, asked: &EndpointSettings) -> String {
    if let Some(name) = asked.driver_opts.as_ref().and_then(|options| options.get(INTERFACE_NAME)) {
        return name.clone();
    }
    let prefix = bridge_of(network).map_or_else(|| "eth".to_owned(), |options| options.interface_prefix);
    let free = |name: &String| sandbox.endpoints.iter().all(|endpoint| endpoint.interface != *name);
    (0..).map(|number: u32| format!("{prefix}{number}")).find(free).unwrap_or(prefix)
}

/// Its name, the aliases, the short id, and its hostname, each once.
fn names(sandbox: &Sandbox, asked: &EndpointSettings) -> Vec<String> {
    let short = sandbox.container[..12.min(sandbox.container.len())].to_owned();
    let mut names = vec![sandbox.name.clone()];
    let further = asked.aliases.iter().flatten().cloned().chain([short, sandbox.hostname.clone()]);
    for name in further {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn settings_of(asked: &EndpointSettings) -> impl Iterator<Item = &str> {
    let given = asked.driver_opts.as_ref().and_then(|options| options.get(SYSCTLS));
    given.map(String::as_str).into_iter().flat_map(|given| given.split(','))
}

/// `com.docker.network.endpoint.sysctls`: `net.ipv4.conf.IFNAME.log_martians=1,...`, of its own interface only: paths and values.
pub(super) fn sysctls(endpoint: &Endpoint) -> Result<Vec<(String, String)>> {
    settings_of(&endpoint.asked)
        .map(|setting| sysctl(setting, &endpoint.interface).map_err(Error::invalid))
        .collect()
}

fn sysctl(setting: &str, interface: &str) -> Result<(String, String), String> {
    let unknown = || {
        format!(
            "unrecognised network interface sysctl '{setting}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
        )
    };
    let (name, value) = setting.split_once('=').ok_or_else(unknown)?;
    let parts: Vec<&str> = name.split('.').collect();
    // Nothing that leads out of the folder.
    let is_plain = |part: &str| part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    match parts.as_slice() {
        ["net", family @ ("ipv4" | "ipv6" | "mpls"), kind, "IFNAME", file]
            if is_plain(kind) && is_plain(file) =>
        {
            Ok((format!("/proc/sys/net/{family}/{kind}/{interface}/{file}"), value.to_owned()))
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_of_the_own_interface() {
        assert_eq!(
            sysctl("net.ipv4.conf.IFNAME.log_martians=1", "eth3"),
            Ok(("/proc/sys/net/ipv4/conf/eth3/log_martians".to_owned(), "1".to_owned()))
        );
        for other in [
            "zz",
            "net.ipv4.conf.eth0.log_martians=1",
            "kernel.a.b.IFNAME.c=1",
            "net.ipv4.conf.IFNAME.../x=1",
        ] {
            assert!(
                sysctl(other, "eth0").unwrap_err().starts_with("unrecognised network interface sysctl '")
            );
        }
    }
}
