//! A container's published ports: which of its endpoints they lead to, at which of the host's addresses, and that they do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ketch_engine_api::network::PortBinding;

use super::firewall::{Forward, GatewayMode, Transport};
use super::options::BridgeOptions;
use super::ports::{Carried, Wanted};
use super::record::{Endpoint, Published, Sandbox};
use super::{Networks, State, bridge_of};
use crate::error::{Error, Kind, Result};

/// The endpoint by which a family of addresses leaves: ports of its network's bridge lead to it.
#[derive(Clone, Debug)]
struct Door {
    options: BridgeOptions,
    endpoint: Endpoint,
}

/// By family.
#[derive(Clone, Debug, Default)]
pub(super) struct Doors {
    ipv4: Option<Door>,
    ipv6: Option<Door>,
}

impl Doors {
    fn leads_to(&self, address: IpAddr) -> bool {
        let doors = [&self.ipv4, &self.ipv6];
        doors.into_iter().flatten().any(|door| door.endpoint.addresses().contains(&address))
    }

    fn first(&self) -> Option<&Door> {
        self.ipv4.as_ref().or(self.ipv6.as_ref())
    }
}

/// Where a port leads to from one of the host's addresses.
enum Way {
    /// By a port of the host, to this address.
    Translated(SocketAddr),
    /// By the container's own address.
    Open(SocketAddr),
}

impl Networks {
    /// Takes the container's ports anew, where they lead elsewhere than they did, and has the packet filter know.
    pub(super) fn publish(&self, state: &mut State, container: &str) -> Result<()> {
        let Some(mut sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        if sandbox.bindings.is_empty() && sandbox.published.is_empty() {
            return Ok(());
        }
        let doors = state.doors(&sandbox);
        let mut published = sandbox.published.iter();
        if !sandbox.published.is_empty() && published.all(|one| doors.leads_to(one.forward.container.ip())) {
            return Ok(());
        }
        let gone: Vec<Forward> = sandbox.published.drain(..).map(|published| published.forward).collect();
        state.ports.give_back(container, &gone);
        let taken = self.take_all(state, &sandbox, &doors);
        let new = match &taken {
            Ok(new) => new.as_slice(),
            Err(_) => &[],
        };
        sandbox.published.extend_from_slice(new);
        let forwards: Vec<Forward> = new.iter().map(|published| published.forward).collect();
        self.remember(state, sandbox)?;
        self.change_forwards(&gone, &forwards)?;
        taken.map(drop)
    }

    /// All of them, or none.
    fn take_all(&self, state: &mut State, sandbox: &Sandbox, doors: &Doors) -> Result<Vec<Published>> {
        let mut all = Vec::new();
        for (port, given) in &sandbox.bindings {
            for binding in given {
                match self.take(state, sandbox, doors, (port, binding)) {
                    Ok(taken) => {
                        all.extend(
                            taken.into_iter().map(|forward| Published { port: port.clone(), forward }),
                        );
                    }
                    Err(error) => {
                        let taken: Vec<Forward> = all.iter().map(|published| published.forward).collect();
                        state.ports.give_back(&sandbox.container, &taken);
                        return Err(error);
                    }
                }
            }
        }
        Ok(all)
    }

    fn take(
        &self,
        state: &mut State,
        sandbox: &Sandbox,
        doors: &Doors,
        (port, binding): (&str, &PortBinding),
    ) -> Result<Vec<Forward>> {
        let invalid = || Error::invalid(format!("invalid port specification: {port:?}"));
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: u16 = number.parse().map_err(|_| invalid())?;
        let transport = Transport::of(protocol).ok_or_else(invalid)?;
        let ports = host_ports(&binding.host_port)
            .ok_or_else(|| Error::invalid(format!("invalid port specification: {:?}", binding.host_port)))?;
        let Some(first) = doors.first() else { return Ok(Vec::new()) };
        let default = first.options.host_binding.map_or(self.0.settings.publish_at, IpAddr::V4);
        let any_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let hosts = match binding.host_ip.parse::<IpAddr>() {
            Ok(host) => vec![host],
            Err(_) if !binding.host_ip.is_empty() => {
                return Err(Error::invalid(format!("invalid IP address: {}", binding.host_ip)));
            }
            Err(_) if default.is_unspecified() && host_has_ipv6() => vec![default, any_ipv6],
            Err(_) => vec![default],
        };
        let (mut forwards, mut wanted) = (Vec::new(), Vec::new());
        for host in hosts {
            match way(doors, host, (transport, number)) {
                Some(Way::Translated(to)) => wanted.push((host, to)),
                Some(Way::Open(container)) => {
                    let any = if host.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { any_ipv6 };
                    forwards.push(Forward { transport, host: SocketAddr::new(any, 0), container });
                }
                None => {}
            }
        }
        if !wanted.is_empty() {
            let wanted = Wanted { transport, hosts: wanted, ports, carried: Carried::Here };
            let taken = state.ports.take(&sandbox.container, &wanted).map_err(|error| {
                let message = format!(
                    "driver failed programming external connectivity on endpoint {} ({}): {error}",
                    sandbox.name, first.endpoint.id
                );
                Error::new(Kind::Internal, message)
            })?;
            forwards.extend(taken);
        }
        Ok(forwards)
    }
}

/// From an address of one family to the container's of the same. From IPv6 it may lead to a container that has none, by way of
/// the daemon; not the reverse.
fn way(doors: &Doors, host: IpAddr, (transport, port): (Transport, u16)) -> Option<Way> {
    let own = |door: &Door| {
        let address = if host.is_ipv4() {
            door.endpoint.ipv4.map(IpAddr::V4)
        } else {
            door.endpoint.ipv6.map(IpAddr::V6)
        };
        let to = SocketAddr::new(address?, port);
        match door.options.mode(host.is_ipv4()) {
            GatewayMode::Nat | GatewayMode::NatUnprotected => Some(Way::Translated(to)),
            GatewayMode::Routed => Some(Way::Open(to)),
            GatewayMode::Isolated => None,
        }
    };
    let door = if host.is_ipv4() { &doors.ipv4 } else { &doors.ipv6 };
    if let Some(door) = door {
        return own(door);
    }
    let door = doors.ipv4.as_ref().filter(|_| host.is_ipv6() && transport != Transport::Sctp)?;
    let is_isolated = door.options.mode_ipv4 == GatewayMode::Isolated;
    let to = door.endpoint.ipv4.filter(|_| !is_isolated)?;
    Some(Way::Translated(SocketAddr::new(to.into(), port)))
}

impl State {
    /// By which endpoints the container leaves, as far as they are a bridge's.
    fn doors(&self, sandbox: &Sandbox) -> Doors {
        let door = |ipv4: bool| {
            let route = self.route(sandbox, ipv4)?;
            let endpoint = sandbox.endpoints.iter().find(|one| one.interface == route.interface)?;
            let options = bridge_of(self.networks.get(&endpoint.network)?)?;
            Some(Door { options, endpoint: endpoint.clone() })
        };
        Doors { ipv4: door(true), ipv6: door(false) }
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

pub(super) fn host_has_ipv6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|value| value.trim() == "0")
}
