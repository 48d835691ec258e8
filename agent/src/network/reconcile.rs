//! The daemon's start: networks of the store get their bridges, sandboxes of containers that still run get their ports, names
//! and rules back, and whatever else an earlier daemon has left is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex};

use ketch_engine_api::network::{Ipam, IpamConfig, Map};
use tokio::runtime::Handle;
use tracing::warn;

use super::firewall::Firewall;
use super::ipam::{Prefix, Subnet, free_subnet};
use super::link::Links;
use super::ports::Ports;
use super::record::{
    BRIDGE_NAME, DAEMON, DEFAULT_BRIDGE, Driver, ENABLE_ICC, ENABLE_MASQUERADE, HOST_BINDING, MTU, NETWORKS,
    Network, SANDBOXES, Sandbox,
};
use super::settings::{DefaultBridge, Settings};
use super::{Networks, Shared, State, namespace, refused, set};
use crate::error::{Error, Kind, Result};
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
        let firewall = settings.firewall.then(|| Firewall::open(&instance)).transpose();
        let state = State {
            networks: store.all::<Network>(NETWORKS)?.into_iter().collect(),
            sandboxes: store.all::<Sandbox>(SANDBOXES)?.into_iter().collect(),
            servers: BTreeMap::new(),
            ports: Ports::new(runtime.clone()),
            links: Links::open().map_err(|error| refused(&error))?,
        };
        let networks = Self(Arc::new(Shared {
            firewall: firewall.map_err(|error| refused(&error))?,
            settings,
            store,
            events,
            runtime,
            instance,
            names: Arc::default(),
            state: Mutex::new(state),
        }));
        networks.restore()?;
        Ok(networks)
    }

    fn restore(&self) -> Result<()> {
        let mut state = self.state();
        self.make_predefined(&mut state)?;
        if self.0.settings.forwarding {
            set("/proc/sys/net/ipv4/ip_forward", "1")?;
        }
        for network in state.networks.values().cloned().collect::<Vec<_>>() {
            // One network that can't be had keeps no others from work.
            if let Err(error) = state.make_bridge(&network) {
                warn!("the network {}: {error}", network.name);
            }
            if network.ipv6 && self.0.settings.forwarding {
                set("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
            }
        }
        let sandboxes: Vec<Sandbox> = state.sandboxes.values().cloned().collect();
        drop(state);
        for sandbox in sandboxes {
            // A machine that was started anew has none of them.
            let gone = sandbox.namespace.as_deref().is_some_and(|path| !namespace::is_bound(path));
            if gone {
                self.leave(&sandbox.container)?;
            }
        }
        self.remove_strangers()?;
        let mut state = self.state();
        self.write_rules(&mut state)?;
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
        for published in &sandbox.published {
            state.ports.take_one(container, published.forward).map_err(|error| {
                Error::new(Kind::Internal, format!("port {}: {error}", published.forward.host))
            })?;
        }
        self.serve_names(state, container)
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
            namespace::remove(&path)?;
        }
        Ok(())
    }

    fn make_predefined(&self, state: &mut State) -> Result<()> {
        for (name, driver) in [("none", Driver::Null), ("host", Driver::Host)] {
            if !state.networks.values().any(|network| network.name == name) {
                self.remember(state, predefined(name, driver)?)?;
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
        let mut network = match known {
            Some(network) => network,
            None => predefined("bridge", Driver::Bridge)?,
        };
        network.options = options(&settings);
        network.subnets = self.default_subnets(state, &settings, &network)?;
        network.ipv6 = settings.subnet_ipv6.is_some();
        let shown = network.subnets.iter().map(|subnet| IpamConfig {
            subnet: subnet.subnet.to_string(),
            ip_range: subnet.range.map(|range| range.to_string()).unwrap_or_default(),
            gateway: subnet.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            auxiliary_addresses: None,
        });
        network.ipam = Ipam { driver: "default".to_owned(), options: None, config: Some(shown.collect()) };
        self.remember(state, network)
    }

    fn remember(&self, state: &mut State, network: Network) -> Result<()> {
        if state.networks.get(&network.id).is_some_and(|known| *known == network) {
            return Ok(());
        }
        self.0.store.put(NETWORKS, &network.id, &network)?;
        let _before = state.networks.insert(network.id.clone(), network);
        Ok(())
    }

    /// `--bip`, the address that the bridge has already, what it had at the last start, or the first free of the pools.
    fn default_subnets(
        &self,
        state: &mut State,
        settings: &DefaultBridge,
        network: &Network,
    ) -> Result<Vec<Subnet>> {
        let index = state.links.index(&settings.name).map_err(|error| refused(&error))?;
        let had = match index {
            Some(index) => state.links.addresses(index).map_err(|error| refused(&error))?,
            None => Vec::new(),
        };
        let had = had.into_iter().find(|address| address.is_ipv4());
        let before = network.subnets.iter().find(|subnet| subnet.subnet.is_ipv4());
        let before = before.and_then(|subnet| Prefix::new(subnet.gateway?, subnet.subnet.length()));
        let address = match settings.address.or(had).or(before) {
            Some(address) => address,
            None => {
                let mut taken = state.links.routes().map_err(|error| refused(&error))?;
                let others = state.networks.values().flat_map(|network| &network.subnets);
                taken.extend(others.map(|subnet| subnet.subnet));
                let subnet = free_subnet(&self.0.settings.pools, &taken, true).ok_or_else(|| {
                    Error::invalid("all predefined address pools have been fully subnetted")
                })?;
                let empty = Subnet { subnet, range: None, gateway: None, reserved: BTreeSet::new() };
                empty
                    .free_address(&BTreeSet::new())
                    .and_then(|gateway| Prefix::new(gateway, subnet.length()))
                    .unwrap_or(subnet)
            }
        };
        if let (Some(index), Some(had)) = (index, had)
            && had != address
        {
            state.links.remove_address(index, had).map_err(|error| refused(&error))?;
        }
        let mut subnets = vec![Subnet {
            subnet: address.subnet(),
            range: settings.range.filter(|range| address.contains(range.first())),
            gateway: Some(settings.gateway.unwrap_or(address.address())),
            // A gateway that is another machine leaves the bridge its own address.
            reserved: BTreeSet::from([address.address()]),
        }];
        subnets.extend(settings.subnet_ipv6.map(|subnet| {
            let mut subnet = Subnet { subnet, range: None, gateway: None, reserved: BTreeSet::new() };
            subnet.gateway = subnet.free_address(&BTreeSet::new());
            subnet
        }));
        Ok(subnets)
    }
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
        options: Map::new(),
        labels: Map::new(),
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
