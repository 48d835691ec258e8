//! Networks, and what containers have of them: addresses, namespaces, published ports, names.
//!
//! ```text
//! create / list / remove     networks in the store; each bridge network has a bridge on the host      [create, ipam, link]
//!                            or a parent for its containers' interfaces              [backing, device, options]
//! join / leave               a sandbox: a namespace's file, interfaces for each network   [join, namespace, endpoint, plug]
//!                            the container's files, ports and names                       [files, resolver, publish, ports, naming, dns]
//! connect / disconnect       the same for one network of a running container              [connect]
//! any of them                the packet filter's tables, anew or by element               [firewall]
//! ```
//! What will be is written down before the kernel is asked for it, networks to the store and sandboxes to files of their own
//! ([`records`]), and is forgotten after the kernel has let it go: a daemon that is killed between the two finds at its next
//! start what has to go. The lock is held to decide and to remember, not while a sandbox is made or removed in the kernel; and
//! nothing that a container's start does grows with the number of others.
//!
//! Calls block: `engine` makes them off the runtime's threads. Knows neither the API nor containers; the names in errors are
//! those that clients see.

mod backing;
mod carrier;
mod connect;
mod create;
mod device;
mod dns;
mod endpoint;
mod files;
pub mod firewall;
mod forwarding;
pub mod ipam;
mod join;
mod link;
mod machine;
mod namespace;
mod naming;
pub mod netlink;
mod options;
pub mod overlay;
mod ownership;
mod places;
mod plug;
mod ports;
mod publish;
mod reconcile;
pub mod record;
mod records;
pub mod relay;
mod request;
mod resolver;
pub mod settings;
mod show;
mod subnets;
mod taken;
#[cfg(test)]
mod tests;
mod unlink;
mod xfrm;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use ketch_cluster::id::TaskId;
use ketch_engine_api::network::NetworkCreateRequest;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::create::Given;
use self::dns::{Listening, Names};
use self::firewall::{Bridge, Firewall, Forward, Guard, Narrows};
use self::ipam::{Pool, Prefix};
use self::link::Links;
use self::netlink::NetlinkError;
use self::ports::Ports;
use self::record::{NETWORKS, Network, Sandbox};
use self::records::Records;
use self::relay::Relay;
use self::settings::Settings;
use self::taken::Taken;
use crate::error::{Error, Kind, Result};
use crate::events::Events;
use crate::locks::locked;
use crate::random;
use crate::store::Store;
use crate::timestamp::Timestamp;

pub use self::machine::Local;
pub use self::request::{Connect, Join, Joined, LinkTo, Mode};

use self::backing::bridge_of;

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
    firewall: Firewall,
    records: Records,
    names: Arc<Names>,
    /// The cluster's tasks that are places of containers here.
    places: watch::Sender<BTreeSet<String>>,
    guard: Guard,
    narrows: Narrows,
    /// Tasks of services that say who reaches them.
    closing: Mutex<BTreeSet<TaskId>>,
    /// Of the mesh's ports whose tasks are told who connects.
    relay: Relay,
    /// Taken before the state's.
    overlays: Mutex<overlay::Held>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the namespaces of overlay networks are.
    spaces: PathBuf,
    /// By id.
    networks: BTreeMap<String, Network>,
    /// By container.
    sandboxes: HashMap<String, Sandbox>,
    /// By network.
    taken: HashMap<String, Taken>,
    servers: HashMap<String, Listening>,
    ports: Ports,
}

/// Whether encrypted networks can be served: the kernel has ESP and its cipher. Looked for once.
#[must_use]
pub fn can_encrypt() -> bool {
    xfrm::is_supported()
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

    /// How many published ports have tasks that are told who connects, and how often a process was started for any.
    #[must_use]
    pub fn relayed(&self) -> (usize, u64) {
        self.0.relay.figures()
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
        let mut links = Links::open().map_err(|error| refused(&error))?;
        let routes = links.routes().map_err(|error| refused(&error))?;
        let mut network = create::network(
            request,
            Given {
                id: random::id()?,
                created: Timestamp::now().to_string(),
                networks: &mut state.networks.values(),
                pools: &self.0.settings.pools,
                default_options: &self.0.settings.default_options,
                routes,
                pool_ipv6: self.pool_ipv6(),
            },
        )?;
        backing::look(&mut network)?;
        self.0.store.put(NETWORKS, &network.id, &network)?;
        let id = network.id.clone();
        let _none = state.networks.insert(id.clone(), network.clone());
        let made = backing::make(&network, self.0.settings.firewall).and_then(|()| {
            self.prepare_forwarding(network.ipv6)?;
            self.write_bridges(&state)
        });
        if let Err(error) = made {
            // Not before the bridge is gone: a record that is left is removed with its bridge later.
            let undone = backing::remove(&network);
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
        if network.is_overlay() {
            let message = format!("network {} is the cluster's: a manager removes it", network.name);
            return Err(Error::new(Kind::Forbidden, message));
        }
        let active: Vec<String> = state
            .endpoints(&network.id)
            .map(|(sandbox, endpoint)| format!("name:{:?} id:{:?}", sandbox.name, &endpoint.id[..12]))
            .chain(state.door_in(&network))
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
        backing::remove(&network)?;
        drop(state.networks.remove(&network.id));
        drop(state.taken.remove(&network.id));
        self.0.store.remove(NETWORKS, &network.id)?;
        self.write_bridges(&state)?;
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
                    && !network.is_overlay()
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

    /// Has the packet filter know the bridges.
    fn write_bridges(&self, state: &State) -> Result<()> {
        let bridges = state.bridges();
        let names = bridges.iter().map(|bridge| bridge.name.clone()).collect();
        self.0.guard.set_bridges(names).map_err(|error| refused(&error))?;
        self.0.firewall.set_bridges(bridges).map_err(|error| refused(&error))
    }

    /// Has the packet filter forget some published ports, and know others.
    fn change_forwards(&self, gone: &[Forward], new: &[Forward]) -> Result<()> {
        self.0.firewall.change(gone, new).map_err(|error| refused(&error))?;
        for forwards in [gone, new] {
            // It is only a delay that this saves a client.
            if let Err(error) = firewall::forget_connections(forwards) {
                tracing::warn!("{error}: {}", error.errno);
            }
        }
        Ok(())
    }

    /// A sandbox as it is to be from now on.
    fn remember(&self, state: &mut State, sandbox: Sandbox) -> Result<()> {
        self.0.records.put(&sandbox)?;
        self.hold_places(state.sandboxes.get(&sandbox.container), Some(&sandbox));
        state.set(sandbox);
        Ok(())
    }

    fn remember_network(&self, state: &mut State, network: Network) -> Result<()> {
        if state.networks.get(&network.id).is_some_and(|known| *known == network) {
            return Ok(());
        }
        self.0.store.put(NETWORKS, &network.id, &network)?;
        let _before = state.networks.insert(network.id.clone(), network);
        Ok(())
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

    /// A sandbox that is new, or has changed.
    fn set(&mut self, sandbox: Sandbox) {
        let new = addresses_of(&sandbox);
        let before = self.sandboxes.insert(sandbox.container.clone(), sandbox);
        let gone = before.as_ref().map(addresses_of).unwrap_or_default();
        for (network, address) in gone.iter().filter(|one| !new.contains(one)) {
            self.taken.entry(network.clone()).or_default().give_back(*address);
        }
        for (network, address) in new.into_iter().filter(|one| !gone.contains(one)) {
            self.taken.entry(network).or_default().insert(address);
        }
    }

    /// A sandbox that is gone.
    fn forget(&mut self, container: &str) {
        let gone = self.sandboxes.remove(container).as_ref().map(addresses_of).unwrap_or_default();
        for (network, address) in gone {
            if let Some(taken) = self.taken.get_mut(&network) {
                taken.give_back(address);
            }
        }
    }

    fn bridges(&self) -> Vec<Bridge> {
        let bridges = self.networks.values().filter_map(|network| {
            let options = bridge_of(network)?;
            Some(Bridge {
                name: options.name,
                subnets: network.subnets.iter().map(|subnet| subnet.subnet).collect(),
                internal: network.internal,
                icc: options.icc,
                masquerade: options.masquerade,
                sources: options.sources,
                trusted: options.trusted,
                mode_ipv4: options.mode_ipv4,
                mode_ipv6: options.mode_ipv6,
            })
        });
        bridges.collect()
    }
}

/// Each with its network.
fn addresses_of(sandbox: &Sandbox) -> Vec<(String, IpAddr)> {
    let endpoints = sandbox.endpoints.iter();
    endpoints
        .flat_map(|endpoint| {
            endpoint.addresses().into_iter().map(|address| (endpoint.network.clone(), address))
        })
        .collect()
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
