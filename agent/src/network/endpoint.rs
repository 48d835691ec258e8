//! A container in one network: its addresses, its pair of interfaces, its ports and names; also while it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ketch_engine_api::network::{EndpointSettings, PortBinding};

use super::dns::View;
use super::dns::names::Holder;
use super::firewall::{GatewayMode, Transport};
use super::ipam::Prefix;
use super::join::{addresses, borrowed, open_namespace};
use super::link::{Links, Pair, mac_from, mac_of, mac_text};
use super::ports::Wanted;
use super::record::{Driver, Endpoint, Network, Published, SANDBOXES, Sandbox};
use super::{Networks, State, bridge_of, namespace, refused, set};
use crate::error::{Error, Kind, Result};
use crate::random;

impl Networks {
    /// Whether an endpoint can be meant so in a network: at the container's creation, and before it is connected.
    ///
    /// # Errors
    /// dockerd's texts.
    pub fn check_endpoint(&self, network: &Network, asked: &EndpointSettings) -> Result<()> {
        check(network, asked)
    }

    /// Connects a running container to a further network.
    ///
    /// # Errors
    /// It is in it, an address can't be had, or the kernel's; nothing is left of it.
    pub fn connect(&self, name: &str, container: &str, asked: EndpointSettings) -> Result<()> {
        let mut state = self.state();
        let network = state.find(name)?.clone();
        let sandbox = state
            .sandboxes
            .get(container)
            .cloned()
            .ok_or_else(|| Error::conflict(format!("container {container} is not running")))?;
        if sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            let message =
                format!("endpoint with name {} already exists in network {}", sandbox.name, network.name);
            return Err(Error::new(Kind::Forbidden, message));
        }
        check(&network, &asked)?;
        let endpoint = state.endpoint(&sandbox, &network, asked)?;
        let mut with = sandbox.clone();
        with.endpoints.push(endpoint.clone());
        self.0.store.put(SANDBOXES, container, &with)?;
        let _before = state.sandboxes.insert(container.to_owned(), with.clone());
        let done = state
            .plug(&with, &endpoint)
            .and_then(|()| state.choose_gateways(&with, Some(&sandbox)))
            .and_then(|()| self.after_change(&mut state, container));
        if let Err(error) = done {
            if let Err(second) = self.unplug(&mut state, container, &network) {
                tracing::warn!("undoing an endpoint of {container}: {second}");
            }
            return Err(error);
        }
        drop(state);
        self.tell("connect", &network, Some(container));
        Ok(())
    }

    /// Takes a running container out of a network.
    ///
    /// # Errors
    /// It is not in it, or the kernel's.
    pub fn disconnect(&self, name: &str, container: &str) -> Result<()> {
        let mut state = self.state();
        let network = state.find(name)?.clone();
        let is_in = state
            .sandboxes
            .get(container)
            .is_some_and(|sandbox| sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id));
        if !is_in {
            let message = format!("container {container} is not connected to network {name}");
            return Err(Error::new(Kind::Forbidden, message));
        }
        self.unplug(&mut state, container, &network)?;
        self.after_change(&mut state, container)?;
        drop(state);
        self.tell("disconnect", &network, Some(container));
        Ok(())
    }

    /// A running container has another name, which its networks' servers answer to from now on.
    ///
    /// # Errors
    /// The store's.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        let mut state = self.state();
        let Some(mut sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        self.forget_names(&sandbox);
        let before = std::mem::replace(&mut sandbox.name, name.to_owned());
        for own in sandbox.endpoints.iter_mut().flat_map(|endpoint| endpoint.names.iter_mut()) {
            if *own == before {
                name.clone_into(own);
            }
        }
        self.0.store.put(SANDBOXES, container, &sandbox)?;
        self.tell_names(&state, &sandbox);
        let _before = state.sandboxes.insert(container.to_owned(), sandbox);
        Ok(())
    }

    fn unplug(&self, state: &mut State, container: &str, network: &Network) -> Result<()> {
        let Some(mut sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        let before = sandbox.clone();
        self.0.names.remove(container, &network.id);
        for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.network == network.id) {
            if !endpoint.link.is_empty() {
                state.links.remove(&endpoint.link).map_err(|error| refused(&error))?;
            }
        }
        sandbox.endpoints.retain(|endpoint| endpoint.network != network.id);
        self.0.store.put(SANDBOXES, container, &sandbox)?;
        let _before = state.sandboxes.insert(container.to_owned(), sandbox.clone());
        state.choose_gateways(&sandbox, Some(&before))
    }

    /// Ports, files and names follow the container's endpoints.
    fn after_change(&self, state: &mut State, container: &str) -> Result<()> {
        self.publish(state, container)?;
        self.write_files(state, container, false)?;
        self.serve_names(state, container)
    }

    /// Takes the container's ports anew, where they lead elsewhere than they did, and writes the rules.
    pub(super) fn publish(&self, state: &mut State, container: &str) -> Result<()> {
        let Some(mut sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        let main = state.publishing(&sandbox);
        let same = main.as_ref().is_some_and(|(_, endpoint)| {
            let own = addresses(endpoint);
            !sandbox.published.is_empty()
                && sandbox.published.iter().all(|one| own.contains(&one.forward.container.ip()))
        });
        if same {
            return Ok(());
        }
        if !sandbox.published.is_empty() {
            state.ports.give_back(container);
            sandbox.published.clear();
        }
        if let Some((network, endpoint)) = &main {
            for (port, given) in &sandbox.bindings {
                for binding in given {
                    let wanted = self.wanted_port(network, endpoint, port, binding)?;
                    let taken = state.ports.take(container, &wanted).map_err(|error| {
                        let message = format!(
                            "driver failed programming external connectivity on endpoint {} ({}): {error}",
                            sandbox.name, endpoint.id
                        );
                        Error::new(Kind::Internal, message)
                    })?;
                    let published = |forward| Published { port: port.clone(), forward };
                    sandbox.published.extend(taken.into_iter().map(published));
                }
            }
        }
        self.0.store.put(SANDBOXES, container, &sandbox)?;
        let _before = state.sandboxes.insert(container.to_owned(), sandbox);
        self.write_rules(state)
    }

    fn wanted_port(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        port: &str,
        binding: &PortBinding,
    ) -> Result<Wanted> {
        let invalid = || Error::invalid(format!("invalid port specification: {port:?}"));
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: u16 = number.parse().map_err(|_| invalid())?;
        let transport = Transport::of(protocol).ok_or_else(invalid)?;
        let ports = host_ports(&binding.host_port)
            .ok_or_else(|| Error::invalid(format!("invalid port specification: {:?}", binding.host_port)))?;
        let default = bridge_of(network).and_then(|options| options.host_binding).map(IpAddr::V4);
        let default = default.unwrap_or(self.0.settings.publish_at);
        let any_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let hosts = match binding.host_ip.parse::<IpAddr>() {
            Ok(host) => vec![host],
            Err(_) if !binding.host_ip.is_empty() => {
                return Err(Error::invalid(format!("invalid IP address: {}", binding.host_ip)));
            }
            Err(_) if default.is_unspecified() && host_has_ipv6() => vec![default, any_ipv6],
            Err(_) => vec![default],
        };
        let hosts = hosts.into_iter().filter_map(|host| {
            let own =
                if host.is_ipv4() { endpoint.ipv4.map(IpAddr::V4) } else { endpoint.ipv6.map(IpAddr::V6) };
            // An IPv6 address of the host may lead to a container that has none, by way of the daemon; not the reverse.
            let other =
                endpoint.ipv4.map(IpAddr::V4).filter(|_| host.is_ipv6() && transport == Transport::Tcp);
            Some((host, SocketAddr::new(own.or(other)?, number)))
        });
        Ok(Wanted { transport, hosts: hosts.collect(), ports })
    }

    pub(super) fn tell_names(&self, state: &State, sandbox: &Sandbox) {
        let mut view = View::default();
        for endpoint in &sandbox.endpoints {
            let Some(network) = state.networks.get(&endpoint.network) else { continue };
            if network.driver == Driver::Bridge && !network.internal {
                view.servers =
                    sandbox.resolver.servers.iter().filter_map(|server| server.parse().ok()).collect();
            }
            if !network.has_names() {
                continue;
            }
            view.networks.push(network.id.clone());
            let links = endpoint.links.iter();
            view.links.extend(links.map(|(alias, other)| (alias.clone(), network.id.clone(), other.clone())));
            self.0.names.add(Holder {
                container: &sandbox.container,
                network: &network.id,
                network_name: &network.name,
                names: &endpoint.names,
                addresses: &addresses(endpoint),
            });
        }
        self.0.names.set_view(&sandbox.container, Some(view));
    }

    pub(super) fn forget_names(&self, sandbox: &Sandbox) {
        for endpoint in &sandbox.endpoints {
            self.0.names.remove(&sandbox.container, &endpoint.network);
        }
        self.0.names.set_view(&sandbox.container, None);
    }
}

/// `None` inside: any; `None`: no port or range.
fn host_ports(text: &str) -> Option<Option<RangeInclusive<u16>>> {
    if matches!(text, "" | "0") {
        return Some(None);
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then_some(Some(low..=high))
}

fn host_has_ipv6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|value| value.trim() == "0")
}

/// Whether bridged frames meet the packet filter as routed packets do (br_netfilter): a published port that leads back to
/// the container which asked has to leave by the port that it came in by.
fn frames_are_filtered() -> bool {
    std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|value| value.trim() == "1")
}

fn check(network: &Network, asked: &EndpointSettings) -> Result<()> {
    let mut errors = Vec::new();
    let ipam = asked.ipam_config.clone().unwrap_or_default();
    let given: Vec<&String> =
        [&ipam.ipv4_address, &ipam.ipv6_address].into_iter().filter(|text| !text.is_empty()).collect();
    if !given.is_empty() && !network.has_names() {
        errors.push("user specified IP address is supported on user defined networks only".to_owned());
    }
    for text in given {
        let Ok(address) = text.parse::<IpAddr>() else {
            errors.push(format!("invalid IP address: {text}"));
            continue;
        };
        let configured = configured(network);
        if !configured.iter().any(|subnet| subnet.is_ipv4() == address.is_ipv4()) {
            errors.push(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            );
        } else if !configured.iter().any(|subnet| subnet.contains(address)) {
            errors.push(format!("no configured subnet or ip-range contain the IP address {address}"));
        }
    }
    if !asked.mac_address.is_empty() && mac_from(&asked.mac_address).is_none() {
        errors.push(format!("invalid MAC address: {}", asked.mac_address));
    }
    if !network.has_names() && asked.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        errors.push("network-scoped aliases are only supported for user-defined networks".to_owned());
    }
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
        &self,
        sandbox: &Sandbox,
        network: &Network,
        asked: EndpointSettings,
    ) -> Result<Endpoint> {
        let ipam = asked.ipam_config.clone().unwrap_or_default();
        let (mut ipv4, mut ipv6) = (None, None);
        if network.driver == Driver::Bridge {
            let taken = self.taken(&network.id);
            for (wanted, is_ipv4, text) in
                [(network.ipv4, true, &ipam.ipv4_address), (network.ipv6, false, &ipam.ipv6_address)]
            {
                let subnets = || network.subnets.iter().filter(|subnet| subnet.subnet.is_ipv4() == is_ipv4);
                if !wanted {
                    continue;
                }
                let address = match text.parse::<IpAddr>() {
                    Ok(address) if subnets().any(|subnet| subnet.is_free(address, &taken)) => address,
                    Ok(_) => return Err(Error::new(Kind::Forbidden, "Address already in use")),
                    Err(_) => subnets().find_map(|subnet| subnet.free_address(&taken)).ok_or_else(|| {
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
            _ if network.driver != Driver::Bridge => String::new(),
            (Some(mac), _) => mac_text(mac),
            (None, Some(address)) => mac_text(mac_of(address)),
            (None, None) => mac_text(super::bridge_mac()?),
        };
        let link = if network.driver == Driver::Bridge {
            format!("veth{}", &random::digits(4)?[..7])
        } else {
            String::new()
        };
        Ok(Endpoint {
            id: random::id()?,
            network: network.id.clone(),
            link,
            interface: if network.driver == Driver::Bridge {
                interface(sandbox, network)
            } else {
                String::new()
            },
            mac,
            ipv4,
            ipv6,
            names: if network.has_names() { names(sandbox, &asked) } else { Vec::new() },
            links: self.links_of(&asked),
            asked,
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

    /// Makes an endpoint's interfaces, with addresses.
    pub(super) fn plug(&mut self, sandbox: &Sandbox, endpoint: &Endpoint) -> Result<()> {
        let Some(network) = self.networks.get(&endpoint.network).cloned() else { return Ok(()) };
        let (Some(options), Some(path)) = (bridge_of(&network), &sandbox.namespace) else { return Ok(()) };
        let master = self.links.index(&options.name).map_err(|error| refused(&error))?;
        let master = master.ok_or_else(|| {
            Error::new(
                Kind::Internal,
                format!("the bridge {} of the network {} is gone", options.name, network.name),
            )
        })?;
        let file = open_namespace(path)?;
        self.links
            .pair(&Pair {
                name: &endpoint.link,
                master,
                mtu: options.mtu.unwrap_or(1500),
                peer: &endpoint.interface,
                peer_mac: mac_from(&endpoint.mac).unwrap_or_default(),
                peer_namespace: borrowed(&file),
                isolated: !options.icc,
                hairpin: frames_are_filtered(),
            })
            .map_err(|error| refused(&error))?;
        let subnets: Vec<Prefix> = addresses(endpoint)
            .into_iter()
            .filter_map(|address| {
                let subnet = network.subnets.iter().find(|subnet| subnet.subnet.contains(address))?;
                Prefix::new(address, subnet.subnet.length())
            })
            .collect();
        let (interface, sysctls) = (&endpoint.interface, sysctls(endpoint));
        namespace::enter(path, || {
            let mut links = Links::open().map_err(|error| refused(&error))?;
            let disabled = if endpoint.ipv6.is_some() { "0" } else { "1" };
            set(&format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), disabled)?;
            for (path, value) in &sysctls {
                set(path, value)?;
            }
            let index = links.index(interface).map_err(|error| refused(&error))?.ok_or_else(|| {
                Error::new(
                    Kind::Internal,
                    format!("the interface {interface} did not arrive in its namespace"),
                )
            })?;
            for address in &subnets {
                links.address(index, *address).map_err(|error| refused(&error))?;
            }
            links.up(index).map_err(|error| refused(&error))
        })
    }

    /// Gives the container the way out of that endpoint which is to have it: the highest priority, then the first name.
    pub(super) fn choose_gateways(&self, sandbox: &Sandbox, before: Option<&Sandbox>) -> Result<()> {
        let Some(path) = sandbox.namespace.as_deref() else { return Ok(()) };
        let wanted: Vec<_> =
            [true, false].into_iter().filter_map(|ipv4| self.gateway(sandbox, ipv4)).collect();
        let had: Vec<_> = before
            .map(|before| [true, false].into_iter().filter_map(|ipv4| self.gateway(before, ipv4)).collect())
            .unwrap_or_default();
        if wanted == had {
            return Ok(());
        }
        namespace::enter(path, || {
            let mut links = Links::open().map_err(|error| refused(&error))?;
            let known: BTreeMap<_, _> = links
                .list()
                .map_err(|error| refused(&error))?
                .into_iter()
                .map(|link| (link.name, link.index))
                .collect();
            for (interface, gateway) in had.iter().filter(|route| !wanted.contains(route)) {
                if let Some(index) = known.get(interface) {
                    links.remove_default_route(*index, *gateway).map_err(|error| refused(&error))?;
                }
            }
            for (interface, gateway) in wanted.iter().filter(|route| !had.contains(route)) {
                if let Some(index) = known.get(interface) {
                    links.default_route(*index, *gateway).map_err(|error| refused(&error))?;
                }
            }
            Ok(())
        })
    }

    fn gateway(&self, sandbox: &Sandbox, ipv4: bool) -> Option<(String, IpAddr)> {
        let mut candidates: Vec<_> = sandbox
            .endpoints
            .iter()
            .filter(|endpoint| if ipv4 { endpoint.ipv4.is_some() } else { endpoint.ipv6.is_some() })
            .filter_map(|endpoint| {
                let network = self.networks.get(&endpoint.network).filter(|network| !network.internal)?;
                let gateway = network.gateway(ipv4)?;
                let order = (-endpoint.asked.gw_priority, network.name.clone());
                Some((order, (endpoint.interface.clone(), gateway)))
            })
            .collect();
        candidates.sort();
        candidates.into_iter().next().map(|(_, route)| route)
    }

    /// The endpoint whose ports are published: that with the way out.
    fn publishing(&self, sandbox: &Sandbox) -> Option<(Network, Endpoint)> {
        let (interface, _) = self.gateway(sandbox, true).or_else(|| self.gateway(sandbox, false))?;
        let endpoint = sandbox.endpoints.iter().find(|endpoint| endpoint.interface == interface)?;
        let network = self.networks.get(&endpoint.network)?;
        let routed = bridge_of(network).is_some_and(|options| options.mode_ipv4 == GatewayMode::Isolated);
        (!routed).then(|| (network.clone(), endpoint.clone()))
    }
}

/// The first name that the container has not: `eth0`, `eth1`...
fn interface(sandbox: &Sandbox, network: &Network) -> String {
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

/// `com.docker.network.endpoint.sysctls`: `net.ipv4.conf.IFNAME.log_martians=1,...`, of its own interface only.
fn sysctls(endpoint: &Endpoint) -> Vec<(String, String)> {
    let given = endpoint
        .asked
        .driver_opts
        .as_ref()
        .and_then(|options| options.get("com.docker.network.endpoint.sysctls"));
    given
        .map(String::as_str)
        .unwrap_or_default()
        .split(',')
        .filter_map(|setting| {
            let (name, value) = setting.split_once('=')?;
            let mut parts = name.split('.');
            let known = parts.next() == Some("net")
                && matches!(parts.next(), Some("ipv4" | "ipv6" | "mpls"))
                && matches!(parts.next(), Some("conf" | "neigh"))
                && parts.next() == Some("IFNAME");
            let file = parts.next().filter(|_| known && parts.next().is_none())?;
            let clean = file.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            let path = name.replace('.', "/").replace("IFNAME", &endpoint.interface);
            clean.then(|| (format!("/proc/sys/{path}"), value.to_owned()))
        })
        .collect()
}
