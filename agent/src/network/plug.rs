//! A container's interfaces: what they will be is decided under the lock, as plain data; they are made by a thread in the
//! container's namespace, with a socket of the host's for what begins there. Neither looks at other containers.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use super::device::{Offshoot, Pair};
use super::endpoint::sysctls;
use super::firewall::OwnedPort;
use super::ipam::Prefix;
use super::link::{Links, Mac, mac_from};
use super::options::{Child, ParentOptions};
use super::record::{Endpoint, Network, Sandbox};
use super::{State, bridge_of, overlay, refused, set};
use crate::error::{Error, Kind, Result};

/// What is to be made in a namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Wiring {
    pub(super) interfaces: Vec<Interface>,
    /// Which it had, and has no more.
    pub(super) gone: Vec<Route>,
    pub(super) routes: Vec<Route>,
}

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    name: String,
    of: Of,
    mac: Option<Mac>,
    mtu: Option<u32>,
    addresses: Vec<Prefix>,
    ipv6: bool,
    sysctls: Vec<(String, String)>,
}

/// What is at its other end.
#[derive(Clone, Debug)]
enum Of {
    Bridge {
        /// The namespace that it is in; `None`: the host's.
        space: Option<PathBuf>,
        name: String,
        network: String,
        link: String,
        isolated: bool,
        hairpin: bool,
    },
    Parent {
        name: String,
        kind: Child,
    },
}

/// The way to everywhere of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: String,
    ipv4: bool,
    /// `None`: the link itself.
    gateway: Option<IpAddr>,
}

/// Whether bridged frames meet the packet filter as routed packets do (br_netfilter): a published port that leads back to
/// the container which asked has to leave by the port that it came in by.
fn frames_are_filtered() -> bool {
    std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|value| value.trim() == "1")
}

impl State {
    /// All interfaces of a new sandbox.
    pub(super) fn wiring(&self, sandbox: &Sandbox) -> Result<Wiring> {
        let interfaces = sandbox.endpoints.iter().filter_map(|endpoint| self.interface(endpoint).transpose());
        Ok(Wiring {
            interfaces: interfaces.collect::<Result<_>>()?,
            gone: Vec::new(),
            routes: self.routes(sandbox),
        })
    }

    /// What changes when a sandbox has other endpoints than before.
    pub(super) fn rewiring(&self, sandbox: &Sandbox, before: &Sandbox) -> Result<Wiring> {
        let is_new = |endpoint: &&Endpoint| before.endpoints.iter().all(|it| it.id != endpoint.id);
        let new = sandbox.endpoints.iter().filter(is_new);
        let interfaces = new.filter_map(|endpoint| self.interface(endpoint).transpose());
        let (had, wanted) = (self.routes(before), self.routes(sandbox));
        Ok(Wiring {
            interfaces: interfaces.collect::<Result<_>>()?,
            gone: had.iter().filter(|route| !wanted.contains(route)).cloned().collect(),
            routes: wanted.iter().filter(|route| !had.contains(route)).cloned().collect(),
        })
    }

    fn interface(&self, endpoint: &Endpoint) -> Result<Option<Interface>> {
        let Some(network) = self.networks.get(&endpoint.network) else { return Ok(None) };
        if !network.driver.has_addresses() {
            return Ok(None);
        }
        let (of, mtu) = match bridge_of(network) {
            None if network.is_overlay() => (
                Of::Bridge {
                    space: endpoint.space.clone(),
                    name: overlay::BRIDGE.to_owned(),
                    network: network.name.clone(),
                    link: endpoint.link.clone(),
                    isolated: false,
                    hairpin: false,
                },
                network.spanned.as_ref().map(|spanned| spanned.mtu),
            ),
            Some(options) => (
                Of::Bridge {
                    space: None,
                    name: options.name,
                    network: network.name.clone(),
                    link: endpoint.link.clone(),
                    // Where frames meet the packet filter, its rules keep containers apart: an isolated port would keep
                    // one from what another has published, too.
                    isolated: !options.icc && !frames_are_filtered(),
                    hairpin: frames_are_filtered(),
                },
                Some(options.mtu.unwrap_or(1500)),
            ),
            None => {
                let options = ParentOptions::of(network)?;
                (Of::Parent { name: options.parent, kind: options.kind }, options.mtu)
            }
        };
        let with_length = |address: IpAddr| {
            let subnet = network.subnets.iter().find(|subnet| subnet.subnet.contains(address))?;
            Prefix::new(address, subnet.subnet.length())
        };
        Ok(Some(Interface {
            name: endpoint.interface.clone(),
            of,
            mac: mac_from(&endpoint.mac),
            mtu,
            addresses: endpoint.addresses().into_iter().filter_map(with_length).collect(),
            ipv6: endpoint.ipv6.is_some(),
            sysctls: sysctls(endpoint)?,
        }))
    }

    fn routes(&self, sandbox: &Sandbox) -> Vec<Route> {
        [true, false].into_iter().filter_map(|ipv4| self.route(sandbox, ipv4)).collect()
    }

    /// By the endpoint that has the highest priority, then the first name.
    pub(super) fn route(&self, sandbox: &Sandbox, ipv4: bool) -> Option<Route> {
        let has = |endpoint: &&Endpoint| if ipv4 { endpoint.ipv4.is_some() } else { endpoint.ipv6.is_some() };
        let candidates = sandbox.endpoints.iter().filter(has).filter_map(|endpoint| {
            let network = self.networks.get(&endpoint.network).filter(|network| !network.internal)?;
            let gateway = gateway(network, ipv4)?;
            let route = Route { interface: endpoint.interface.clone(), ipv4, gateway };
            Some(((-endpoint.asked.gw_priority, &network.name), route))
        });
        candidates.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, route)| route)
    }
}

/// `None`: no way out; `None` inside: the link itself.
fn gateway(network: &Network, ipv4: bool) -> Option<Option<IpAddr>> {
    let is_routed = !network.options.is_empty()
        && bridge_of(network).is_none()
        && ParentOptions::of(network).is_ok_and(|options| options.kind.is_routed());
    if is_routed { Some(None) } else { network.gateway(ipv4).map(Some) }
}

impl Wiring {
    /// Makes it, in the calling thread's namespace; `host`: of the host's.
    pub(super) fn make(&self, host: &mut Links) -> Result<()> {
        let own = File::open("/proc/thread-self/ns/net")
            .map_err(|error| Error::internal("opening the thread's own network namespace", &error))?;
        let mut links = Links::open().map_err(|error| refused(&error))?;
        for interface in &self.interfaces {
            interface.make(host, &mut links, own.as_fd())?;
        }
        for (routes, adding) in [(&self.gone, false), (&self.routes, true)] {
            for route in routes {
                let Some(index) = links.index(&route.interface).map_err(|error| refused(&error))? else {
                    continue;
                };
                let way = (route.ipv4, route.gateway);
                let changed = if adding {
                    links.default_route(index, way)
                } else {
                    links.remove_default_route(index, way)
                };
                changed.map_err(|error| refused(&error))?;
            }
        }
        Ok(())
    }
}

impl Interface {
    fn make(&self, host: &mut Links, links: &mut Links, namespace: BorrowedFd<'_>) -> Result<()> {
        self.begin(host, namespace)?;
        let name = &self.name;
        set(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), if self.ipv6 { "0" } else { "1" })?;
        let end = match &self.of {
            Of::Bridge { link, .. } => link,
            Of::Parent { .. } => name,
        };
        for (path, value) in &self.sysctls {
            if !std::path::Path::new(path).exists() {
                let message =
                    format!("failed to add interface {end} to sandbox: {path} is not a sysctl file");
                return Err(Error::new(Kind::Internal, message));
            }
            set(path, value)?;
        }
        let index = links.index(name).map_err(|error| refused(&error))?.ok_or_else(|| {
            Error::new(Kind::Internal, format!("the interface {name} did not arrive in its namespace"))
        })?;
        for address in &self.addresses {
            links.address(index, *address).map_err(|error| refused(&error))?;
        }
        links.up(index).map_err(|error| refused(&error))
    }

    /// Makes it from the host's side.
    fn begin(&self, host: &mut Links, namespace: BorrowedFd<'_>) -> Result<()> {
        match &self.of {
            Of::Bridge { space: Some(space), network, .. } => {
                // The pair's other end is made there, by a thread that is there.
                let mut inside = overlay::links_of(space, network)?;
                self.pair(&mut inside, namespace)?;
                self.port().map_or(Ok(()), |port| overlay::pin(space, &mut inside, &port))
            }
            Of::Bridge { .. } => self.pair(host, namespace),
            Of::Parent { name, kind } => self.offshoot(host, namespace, (name, *kind)),
        }
    }

    /// The host's end, and what may be said by it.
    fn port(&self) -> Option<OwnedPort> {
        let Of::Bridge { link, .. } = &self.of else { return None };
        let addresses = self.addresses.iter().map(|address| address.address()).collect();
        Some(OwnedPort { link: link.clone(), mac: self.mac?, addresses })
    }

    fn pair(&self, host: &mut Links, namespace: BorrowedFd<'_>) -> Result<()> {
        let Of::Bridge { name, network, link, isolated, hairpin, .. } = &self.of else { return Ok(()) };
        let gone = || {
            let message = format!("the bridge {name} of the network {network} is gone");
            Error::new(Kind::Internal, message)
        };
        let master = host.index(name).map_err(|error| refused(&error))?.ok_or_else(gone)?;
        let made = host.pair(&Pair {
            name: link,
            master,
            mtu: self.mtu.unwrap_or(1500),
            peer: &self.name,
            peer_mac: self.mac.unwrap_or_default(),
            peer_namespace: namespace,
            isolated: *isolated,
            hairpin: *hairpin,
        });
        made.map_err(|error| match error.errno {
                    Errno::INVAL => Error::new(
                        Kind::Internal,
                        format!(
                            "failed to add interface {link} to sandbox: error renaming interface \"{link}\" to {:?}: invalid argument",
                            self.name
                        ),
                    ),
                    _ => refused(&error),
                })
    }

    fn offshoot(
        &self,
        host: &mut Links,
        namespace: BorrowedFd<'_>,
        (name, kind): (&str, Child),
    ) -> Result<()> {
        let gone =
            || Error::new(Kind::Internal, format!("-o parent interface was not found on the host: {name}"));
        let parent = host.index(name).map_err(|error| refused(&error))?.ok_or_else(gone)?;
        let offshoot = Offshoot { parent, kind, name: &self.name, mac: self.mac, mtu: self.mtu, namespace };
        host.offshoot(&offshoot).map_err(|error| {
            let word = if matches!(kind, Child::Macvlan { .. }) { "macvlan" } else { "ipvlan" };
            let message = format!("failed to create the {word} port: {}", error.words());
            Error::new(Kind::Internal, message)
        })
    }
}
