//! The daemon's start: networks of the store get their bridges, sandboxes of containers that still run get their ports, names
//! and rules back, and whatever else an earlier daemon has left is removed.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex};

use ketch_engine_api::network::{Ipam, IpamConfig, Map};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;

use super::firewall::{Firewall, Forward, Guard, Narrows};
use super::ipam::{Pool, Prefix, Subnet, free_subnet};
use super::link::Links;
use super::options::{BRIDGE_NAME, DEFAULT_BRIDGE, ENABLE_ICC, ENABLE_MASQUERADE, HOST_BINDING, MTU};
use super::ports::Ports;
use super::record::{DAEMON, Driver, NETWORKS, Network, Sandbox};
use super::records::Records;
use super::settings::{DefaultBridge, Settings};
use super::{Networks, Shared, State, backing, namespace, ownership, refused};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::random;
use crate::store::Store;
use crate::timestamp::Timestamp;

impl Networks {
    /// Opens the networks of a store: makes `bridge`, `host` and `none`, all bridges, and the rules. Containers that do not
    /// run are said by [`Self::keep`]. Called on the runtime, which serves names and ports.
    ///
    /// # Errors
    /// The store's or the kernel's.
    pub fn open(settings: Settings, store: Store, events: Arc<Events>) -> Result<Self> {
        let folder = &settings.namespaces;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(folder)
            .map_err(|error| Error::internal(format_args!("making {}", folder.display()), &error))?;
        let instance = instance(&store)?;
        let runtime = Handle::try_current()
            .map_err(|error| Error::internal("opening the networks outside of the runtime", &error))?;
        let firewall = Firewall::open(&instance, settings.firewall, settings.direct_routing)
            .map_err(|error| refused(&error))?;
        let records = Records::open(settings.sandboxes.clone())?;
        let mut state = State {
            spaces: settings.spaces.clone(),
            networks: store.all::<Network>(NETWORKS)?.into_iter().collect(),
            sandboxes: HashMap::new(),
            taken: HashMap::new(),
            servers: HashMap::new(),
            ports: Ports::new(runtime.clone(), settings.firewall),
        };
        let mut places = BTreeSet::new();
        for sandbox in records.all()? {
            places.extend(sandbox.places().cloned());
            state.set(sandbox);
        }
        let networks = Self(Arc::new(Shared {
            settings,
            store,
            events,
            runtime,
            firewall,
            records,
            names: Arc::default(),
            places: watch::Sender::new(places),
            guard: Guard::of(&instance),
            narrows: Narrows::of(&instance),
            closing: Mutex::default(),
            relay: super::relay::Relay::default(),
            instance,
            overlays: Mutex::default(),
            state: Mutex::new(state),
        }));
        networks.restore()?;
        Ok(networks)
    }

    fn restore(&self) -> Result<()> {
        let mut state = self.state();
        self.make_predefined(&mut state)?;
        let mut ipv6 = false;
        for network in state.networks.values() {
            // One network that can't be had keeps no others from work.
            match backing::make(network, self.0.settings.firewall) {
                Err(error) if network.is_default_bridge() => {
                    let message = format!(
                        "Error initializing network controller: error creating default \"bridge\" network: {error}"
                    );
                    return Err(Error::new(error.kind, message));
                }
                Err(error) => warn!("the network {}: {error}", network.name),
                Ok(()) => ownership::mark(network, &self.0.instance)?,
            }
            ipv6 |= network.ipv6;
        }
        let closed = self.have_forwarded(ipv6)?;
        let sandboxes: Vec<Sandbox> = state.sandboxes.values().cloned().collect();
        drop(state);
        for sandbox in sandboxes {
            // A machine that was started anew has none of them.
            let gone = sandbox.namespace.as_deref().is_some_and(|path| !namespace::is_bound(path));
            if gone && let Err(error) = self.leave(&sandbox.container) {
                warn!("the network of the container {}: {error}", sandbox.container);
            }
        }
        self.remove_strangers()?;
        // The mesh's ports lead to tasks by the rules of the daemon before, until ours are there: its table narrows them, too.
        if !self.0.narrows.is_there().map_err(|error| refused(&error))? {
            self.narrow_residents()?;
        }
        let state = self.state();
        let forwards: Vec<Forward> = state
            .sandboxes
            .values()
            .flat_map(|sandbox| sandbox.published.iter().map(|published| published.forward))
            .collect();
        let begun = self.0.firewall.begin(state.bridges(), &forwards, closed);
        begun.map_err(|error| refused(&error))?;
        drop(state);
        self.narrow_residents()?;
        let mut state = self.state();
        let containers: Vec<String> = state.sandboxes.keys().cloned().collect();
        for container in containers {
            if let Err(error) = self.resume(&mut state, &container) {
                warn!("the network of the container {container}: {error}");
            }
        }
        Ok(())
    }

    /// Removes the sandboxes of all containers but these, which run.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub fn keep(&self, running: &BTreeSet<String>) -> Result<()> {
        let gone: Vec<String> = self
            .state()
            .sandboxes
            .keys()
            .filter(|container| !running.contains(*container))
            .cloned()
            .collect();
        for container in gone {
            self.leave(&container)?;
        }
        Ok(())
    }

    /// Takes ports again and serves names again, which ended with the daemon that did before.
    fn resume(&self, state: &mut State, container: &str) -> Result<()> {
        let Some(sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        for published in sandbox.published.iter().filter(|one| one.forward.host.port() != 0) {
            // Somebody else has it by now; the others, and the names, are served all the same.
            if let Err(error) = state.ports.take_one(container, published.forward) {
                warn!("the port {} of the container {container}: {error}", published.forward.host);
            }
        }
        self.serve_names(state, container, None)
    }

    /// Files of namespaces that no sandbox has.
    fn remove_strangers(&self) -> Result<()> {
        let state = self.state();
        let known: BTreeSet<_> =
            state.sandboxes.values().filter_map(|sandbox| sandbox.namespace.clone()).collect();
        let folder = &self.0.settings.namespaces;
        let entries = fs::read_dir(folder)
            .map_err(|error| Error::internal(format_args!("reading {}", folder.display()), &error))?;
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| !known.contains(path)) {
            // What somebody else holds there is no reason not to start.
            if let Err(error) = namespace::remove(&path) {
                warn!("{error}");
            }
        }
        Ok(())
    }

    fn make_predefined(&self, state: &mut State) -> Result<()> {
        for (name, driver) in [("none", Driver::Null), ("host", Driver::Host)] {
            if !state.networks.values().any(|network| network.name == name) {
                self.remember_network(state, predefined(name, driver)?)?;
            }
        }
        let known = state.networks.values().find(|network| network.name == "bridge").cloned();
        let Some(settings) = self.0.settings.bridge.clone() else {
            // `--bridge none`: it was there under other settings.
            if let Some(network) = known {
                drop(state.networks.remove(&network.id));
                self.0.store.remove(NETWORKS, &network.id)?;
            }
            return Ok(());
        };
        let before = known.as_ref().and_then(|network| network.options.get(BRIDGE_NAME)).cloned();
        let settings = ownership::settle(&self.0.instance, &settings, before.as_deref())?;
        let mut network = match known {
            Some(network) => network,
            None => predefined("bridge", Driver::Bridge)?,
        };
        network.options = options(&settings);
        network.ipv6 = settings.ipv6;
        let mut given = vec![self.default_subnet(state, &settings, (&network, true))?];
        if settings.ipv6 {
            given.push(self.default_subnet(state, &settings, (&network, false))?);
        }
        // What the user gave is shown first.
        let mut shown = given.clone();
        shown.sort_by_key(|given| given.is_chosen);
        let shown = shown.iter().map(|given| IpamConfig {
            subnet: given.subnet.subnet.to_string(),
            ip_range: given.subnet.range.map(|range| range.to_string()).unwrap_or_default(),
            gateway: given.shown_gateway(),
            auxiliary_addresses: given.shown_auxiliary(),
        });
        network.ipam = Ipam { driver: "default".to_owned(), options: None, config: Some(shown.collect()) };
        network.chosen =
            given.iter().filter(|given| given.is_chosen).map(|given| given.subnet.subnet).collect();
        network.subnets = given.into_iter().map(|given| given.subnet).collect();
        self.remember_network(state, network)
    }

    /// Of a family: `--bip`, the range that is named, the address that the bridge has already, what it had at the last start, or
    /// the first free of the pools.
    fn default_subnet(
        &self,
        state: &State,
        settings: &DefaultBridge,
        (network, ipv4): (&Network, bool),
    ) -> Result<Given> {
        let mut links = Links::open().map_err(|error| refused(&error))?;
        let index = links.index(&settings.name).map_err(|error| refused(&error))?;
        let had = match index {
            Some(index) => links.addresses(index).map_err(|error| refused(&error))?,
            None => Vec::new(),
        };
        let had = had.into_iter().find(|had| had.is_ipv4() == ipv4 && !is_link_local(*had));
        let range = if ipv4 { settings.range } else { settings.range_ipv6 };
        let first_of = |subnet: Prefix| {
            let gateway = Subnet::of(subnet).free_address(&BTreeSet::new());
            gateway.and_then(|gateway| Prefix::new(gateway, subnet.length())).unwrap_or(subnet)
        };
        let named = if ipv4 { settings.address } else { settings.address_ipv6 };
        let told = named.or_else(|| {
            let is_in = |had: Prefix| range.is_none_or(|range| had.contains(range.first()));
            had.filter(|had| is_in(*had)).is_none().then(|| range.map(first_of))?
        });
        let is_chosen =
            told.is_none() && range.is_none() && had.is_none_or(|had| network.chosen.contains(&had.subnet()));
        let before = network.subnets.iter().find(|subnet| subnet.subnet.is_ipv4() == ipv4);
        let before =
            before.and_then(|subnet| Prefix::new(subnet.host.or(subnet.gateway)?, subnet.subnet.length()));
        let address = match told.or(had).or(before) {
            Some(address) => address,
            None => first_of(self.free(state, &mut links, ipv4)?),
        };
        if let (Some(index), Some(had)) = (index, had)
            && had != address
        {
            links.remove_address(index, had).map_err(|error| refused(&error))?;
        }
        let mut subnet = Subnet::of(address.subnet());
        subnet.range = range.filter(|range| address.contains(range.first()));
        subnet.gateway = Some(address.address());
        let gateway = settings.gateways[usize::from(!ipv4)];
        if let Some(gateway) = gateway {
            if !address.contains(gateway) {
                let name = if ipv4 { "DefaultGatewayIPv4" } else { "DefaultGatewayIPv6" };
                let message = format!(
                    "Error initializing network controller: error creating default \"bridge\" network: auxiliary address: ({name}:{gateway}) must belong to the master pool: {}",
                    address.subnet()
                );
                return Err(Error::invalid(message));
            }
            (subnet.gateway, subnet.host) = (Some(gateway), Some(address.address()));
        }
        Ok(Given {
            subnet,
            is_chosen,
            is_ranged: range.is_some() && named.is_none() && had.is_none(),
            gateway,
        })
    }

    /// A subnet that nobody has.
    fn free(&self, state: &State, links: &mut Links, ipv4: bool) -> Result<Prefix> {
        let mut taken = links.routes().map_err(|error| refused(&error))?;
        let others = state.networks.values().flat_map(|network| &network.subnets);
        taken.extend(others.map(|subnet| subnet.subnet));
        let own: Vec<Pool> = self.pool_ipv6().into_iter().collect();
        let pools = if ipv4 { &self.0.settings.pools } else { &own };
        free_subnet(pools, &taken, ipv4)
            .ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))
    }
}

/// A subnet of the network `bridge`, and whose choice it is.
#[derive(Clone, Debug)]
struct Given {
    subnet: Subnet,
    /// The daemon's.
    is_chosen: bool,
    /// It follows from the range that containers get.
    is_ranged: bool,
    /// The way out that is another machine.
    gateway: Option<std::net::IpAddr>,
}

impl Given {
    fn shown_gateway(&self) -> String {
        let own = self.subnet.host.or(self.subnet.gateway).filter(|_| !self.is_ranged);
        own.map(|gateway| gateway.to_string()).unwrap_or_default()
    }

    fn shown_auxiliary(&self) -> Option<Map> {
        let gateway = self.gateway.filter(|_| !self.is_chosen)?;
        let name = if gateway.is_ipv4() { "DefaultGatewayIPv4" } else { "DefaultGatewayIPv6" };
        Some(Map::from([(name.to_owned(), gateway.to_string())]))
    }
}

fn is_link_local(prefix: Prefix) -> bool {
    matches!(prefix.address(), std::net::IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

fn instance(store: &Store) -> Result<String> {
    let known = store.all::<String>(DAEMON)?.into_iter().find(|(key, _)| key == "instance");
    if let Some((_, instance)) = known {
        return Ok(instance);
    }
    let instance = random::digits(4)?;
    store.put(DAEMON, "instance", &instance)?;
    Ok(instance)
}

fn predefined(name: &str, driver: Driver) -> Result<Network> {
    Ok(Network {
        id: random::id()?,
        name: name.to_owned(),
        created: Timestamp::now().to_string(),
        driver,
        ipv4: true,
        ipv6: false,
        ipam: Ipam { driver: "default".to_owned(), options: None, config: None },
        subnets: Vec::new(),
        chosen: Vec::new(),
        internal: false,
        attachable: false,
        config_from: String::new(),
        config_only: false,
        made_link: false,
        options: Map::new(),
        labels: Map::new(),
        spanned: None,
    })
}

fn options(settings: &DefaultBridge) -> Map {
    let pairs = [
        (DEFAULT_BRIDGE, "true".to_owned()),
        (ENABLE_ICC, settings.icc.to_string()),
        (ENABLE_MASQUERADE, settings.masquerade.to_string()),
        (HOST_BINDING, "0.0.0.0".to_owned()),
        (BRIDGE_NAME, settings.name.clone()),
        (MTU, settings.mtu.to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}
