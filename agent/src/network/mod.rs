//! Networks, and what containers have of them: addresses, namespaces, published ports, names.
//!
//! ```text
//! create / list / remove     networks in the store; each bridge network has a bridge on the host      [create, ipam, link]
//! join / leave               a sandbox: a namespace's file, a pair of interfaces for each network     [join, namespace]
//!                            the container's files, ports and names                       [files, ports, dns]
//! connect / disconnect       the same for one network of a running container
//! any of them                the packet filter's tables, anew or by element               [firewall]
//! ```
//! What will be is written to the store before the kernel is asked for it, and is forgotten after the kernel has let it go: a
//! daemon that is killed between the two finds at its next start what has to go.
//!
//! Calls block: `engine` makes them off the runtime's threads. Knows neither the API nor containers; the names in errors are
//! those that clients see.

mod create;
mod dns;
mod endpoint;
mod files;
pub mod firewall;
pub mod ipam;
mod join;
mod link;
mod namespace;
pub mod netlink;
mod ports;
mod reconcile;
pub mod record;
pub mod settings;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ketch_engine_api::network::NetworkCreateRequest;
use tokio::runtime::Handle;

use self::create::Given;
use self::dns::{Listening, Names};
use self::firewall::{Bridge, Firewall, Ruleset};
use self::ipam::{Pool, Prefix};
use self::link::Links;
use self::netlink::NetlinkError;
use self::ports::Ports;
use self::record::{BridgeOptions, Driver, NETWORKS, Network, Sandbox};
use self::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::events::Events;
use crate::locks::locked;
use crate::random;
use crate::store::Store;
use crate::timestamp::Timestamp;

pub use self::join::{Join, Joined, LinkTo, Mode};

/// All networks; clones share them.
#[derive(Clone, Debug)]
pub struct Networks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    store: Store,
    events: Arc<Events>,
    runtime: Handle,
    /// Eight hexadecimal digits that are this daemon's, for ever.
    instance: String,
    firewall: Option<Firewall>,
    names: Arc<Names>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By id.
    networks: BTreeMap<String, Network>,
    /// By container.
    sandboxes: BTreeMap<String, Sandbox>,
    servers: BTreeMap<String, Listening>,
    ports: Ports,
    /// Of the host's namespace.
    links: Links,
}

/// What becomes of an error of the kernel.
fn refused(error: &NetlinkError) -> Error {
    Error::internal(&error.action, &error.errno)
}

fn no_such_network(name: &str) -> Error {
    Error::not_found(format!("network {name} not found"))
}

impl Networks {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0.state)
    }

    /// A network by id, name, or a part of its id that no other begins with.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn find(&self, name: &str) -> Result<Network> {
        self.state().find(name).cloned()
    }

    /// All networks, the newest first, `bridge`, `host` and `none` last among those of one time.
    #[must_use]
    pub fn list(&self) -> Vec<Network> {
        self.state().networks.values().cloned().collect()
    }

    /// Makes a network, and gives its id.
    ///
    /// # Errors
    /// It can't be meant, collides with another, or the kernel refuses its bridge.
    pub fn create(&self, request: NetworkCreateRequest) -> Result<String> {
        let mut state = self.state();
        let routes = state.links.routes().map_err(|error| refused(&error))?;
        let network = create::network(
            request,
            Given {
                id: random::id()?,
                created: Timestamp::now().to_string(),
                networks: &mut state.networks.values(),
                pools: &self.0.settings.pools,
                routes,
                pool_ipv6: self.pool_ipv6(),
            },
        )?;
        self.0.store.put(NETWORKS, &network.id, &network)?;
        let id = network.id.clone();
        let _none = state.networks.insert(id.clone(), network.clone());
        let made = state.make_bridge(&network).and_then(|()| self.write_rules(&mut state));
        if let Err(error) = made {
            // Not before the bridge is gone: a record that is left is removed with its bridge later.
            let undone = state.remove_bridge(&network);
            drop(state.networks.remove(&id));
            if undone.is_ok() {
                self.0.store.remove(NETWORKS, &id)?;
            }
            return Err(error);
        }
        drop(state);
        self.tell("create", &network, None);
        Ok(id)
    }

    /// Removes a network, and gives it.
    ///
    /// # Errors
    /// It is none, is predefined, or has endpoints.
    pub fn remove(&self, name: &str) -> Result<Network> {
        let mut state = self.state();
        let network = state.find(name)?.clone();
        if network.is_predefined() {
            let message = format!("{} is a pre-defined network and cannot be removed", network.name);
            return Err(Error::new(Kind::Forbidden, message));
        }
        let active: Vec<String> = state
            .endpoints(&network.id)
            .map(|(sandbox, endpoint)| format!("name:{:?} id:{:?}", sandbox.name, &endpoint.id[..12]))
            .collect();
        if !active.is_empty() {
            let message = format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                active.join(", ")
            );
            return Err(Error::new(Kind::Forbidden, message));
        }
        if let Some(user) =
            state.networks.values().find(|other| network.config_only && other.config_from == network.name)
        {
            let message = format!(
                "error while removing network: configuration network {:?} is in use by network {:?}",
                network.name, user.name
            );
            return Err(Error::new(Kind::Forbidden, message));
        }
        state.remove_bridge(&network)?;
        drop(state.networks.remove(&network.id));
        self.0.store.remove(NETWORKS, &network.id)?;
        self.write_rules(&mut state)?;
        drop(state);
        self.tell("destroy", &network, None);
        Ok(network)
    }

    /// Removes the networks without endpoints of which `unwanted` says so, and gives their names.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn prune(&self, unwanted: impl Fn(&Network) -> bool) -> Result<Vec<String>> {
        let candidates: Vec<Network> = {
            let state = self.state();
            let unused = |network: &&Network| {
                !network.is_predefined()
                    && !network.config_only
                    && state.endpoints(&network.id).next().is_none()
            };
            state.networks.values().filter(unused).filter(|network| unwanted(network)).cloned().collect()
        };
        let mut names = Vec::new();
        for network in candidates {
            match self.remove(&network.id) {
                Ok(network) => names.push(network.name),
                // It is used since, or gone.
                Err(error) if matches!(error.kind, Kind::Forbidden | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether a container runs in the network.
    #[must_use]
    pub fn is_used(&self, network: &Network) -> bool {
        self.state().endpoints(&network.id).next().is_some()
    }

    fn tell(&self, action: &'static str, network: &Network, container: Option<&str>) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.name().to_owned()),
        ]);
        attributes.extend(container.map(|container| ("container".to_owned(), container.to_owned())));
        self.0.events.publish("network", action, &network.id, attributes);
    }

    /// fd + 40 bits of this daemon (RFC 4193): its own subnets, the same after each start.
    fn pool_ipv6(&self) -> Option<Pool> {
        let bits = u128::from(u32::from_str_radix(&self.0.instance, 16).ok()?);
        let base = IpAddr::from((0xfd_u128 << 120 | bits << 88).to_be_bytes());
        Some(Pool { base: Prefix::new(base, 48)?, size: 64 })
    }

    /// Makes the packet filter say what the state says.
    fn write_rules(&self, state: &mut State) -> Result<()> {
        let Some(firewall) = &self.0.firewall else { return Ok(()) };
        firewall.apply(state.ruleset()).map_err(|error| refused(&error))
    }
}

impl State {
    fn find(&self, name: &str) -> Result<&Network> {
        if let Some(network) =
            self.networks.get(name).or_else(|| self.networks.values().find(|network| network.name == name))
        {
            return Ok(network);
        }
        let mut found =
            self.networks.values().filter(|network| !name.is_empty() && network.id.starts_with(name));
        match (found.next(), found.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => {
                let count = found.count() + 2;
                Err(Error::invalid(format!(
                    "network {name} is ambiguous ({count} matches found based on ID prefix)"
                )))
            }
            (None, _) => Err(no_such_network(name)),
        }
    }

    fn endpoints<'a>(
        &'a self,
        network: &'a str,
    ) -> impl Iterator<Item = (&'a Sandbox, &'a record::Endpoint)> {
        self.sandboxes.values().flat_map(move |sandbox| {
            sandbox
                .endpoints
                .iter()
                .filter(move |endpoint| endpoint.network == network)
                .map(move |endpoint| (sandbox, endpoint))
        })
    }

    /// Which addresses of a network endpoints have.
    fn taken(&self, network: &str) -> BTreeSet<IpAddr> {
        self.endpoints(network)
            .flat_map(|(_, endpoint)| [endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6)])
            .flatten()
            .collect()
    }

    fn ruleset(&self) -> Ruleset {
        let bridges = self.networks.values().filter_map(|network| {
            let options = bridge_of(network)?;
            Some(Bridge {
                name: options.name,
                subnets: network.subnets.iter().map(|subnet| subnet.subnet).collect(),
                internal: network.internal,
                icc: options.icc,
                masquerade: options.masquerade,
                mode_ipv4: options.mode_ipv4,
                mode_ipv6: options.mode_ipv6,
            })
        });
        let mut forwards: Vec<_> = self
            .sandboxes
            .values()
            .flat_map(|sandbox| sandbox.published.iter().map(|published| published.forward))
            .collect();
        forwards.sort_unstable();
        forwards.dedup();
        Ruleset { bridges: bridges.collect(), forwards }
    }

    /// The network's bridge with its addresses, up. One that is there is made to be so.
    fn make_bridge(&mut self, network: &Network) -> Result<()> {
        let Some(options) = bridge_of(network) else { return Ok(()) };
        let made = self.links.bridge(&options.name, bridge_mac()?, options.mtu.unwrap_or(1500));
        let index = made.map_err(|error| refused(&error))?;
        let path = |family: &str, file: &str| format!("/proc/sys/net/{family}/conf/{}/{file}", options.name);
        // Published ports of loopback addresses: the packets leave by the bridge with such a source.
        set(&path("ipv4", "route_localnet"), "1")?;
        if network.ipv6 {
            set(&path("ipv6", "disable_ipv6"), "0")?;
            set(&path("ipv6", "accept_ra"), "0")?;
        }
        let isolated = |ipv4: bool| {
            let mode = if ipv4 { options.mode_ipv4 } else { options.mode_ipv6 };
            network.internal && mode == firewall::GatewayMode::Isolated
        };
        for subnet in &network.subnets {
            let Some(gateway) = subnet.gateway.filter(|gateway| !isolated(gateway.is_ipv4())) else {
                continue;
            };
            if let Some(address) = Prefix::new(gateway, subnet.subnet.length()) {
                self.links.address(index, address).map_err(|error| refused(&error))?;
            }
        }
        Ok(())
    }

    fn remove_bridge(&mut self, network: &Network) -> Result<()> {
        match bridge_of(network) {
            Some(options) => self.links.remove(&options.name).map_err(|error| refused(&error)),
            None => Ok(()),
        }
    }
}

/// The options of a network that has a bridge. They have been checked when it was made.
fn bridge_of(network: &Network) -> Option<BridgeOptions> {
    (network.driver == Driver::Bridge && !network.config_only)
        .then(|| BridgeOptions::of(&network.id, &network.options).ok())?
}

/// One of its own: a bridge without one takes that of a port, and changes it with its ports.
fn bridge_mac() -> Result<link::Mac> {
    let mut mac = [0; 6];
    let _filled = rustix::rand::getrandom(&mut mac[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::internal("asking for randomness", &error))?;
    mac[0] = (mac[0] & 0xfc) | 2;
    Ok(mac)
}

/// Writes a setting of the kernel, if it has it.
fn set(path: &str, value: &str) -> Result<()> {
    match std::fs::write(path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format_args!("writing {value} to {path}"), &error))
        }
        _ => Ok(()),
    }
}
