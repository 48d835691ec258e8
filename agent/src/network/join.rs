//! A container's start and end in the network: its sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;

use ketch_engine_api::network::{EndpointSettings, NetworkSettings, PortBinding};

use super::files::Files;
use super::firewall::Forward;
use super::link::Links;
use super::naming::open_server;
use super::record::{Driver, Network, Role, Sandbox};
use super::request::{Connect, Join, Joined, Mode};
use super::resolver::Resolver;
use super::{Networks, State, namespace, refused};
use crate::error::{Error, Result};
use crate::random;

impl Networks {
    /// Makes a container's sandbox. One that is left from an earlier start is removed first.
    ///
    /// # Errors
    /// A network that is not there, an address or port that can't be had, or the kernel's; nothing is left of it. The text
    /// is the whole that dockerd answers to the start.
    pub fn join(&self, join: &Join) -> Result<Joined> {
        if let Mode::Container(other) = &join.mode {
            return self.join_other(other);
        }
        self.leave(&join.container)?;
        self.join_own(join).map_err(|error| {
            if let Err(second) = self.leave(&join.container) {
                tracing::warn!("undoing the sandbox of {}: {second}", join.container);
            }
            Error::new(error.kind, format!("failed to set up container networking: {error}"))
        })
    }

    fn join_other(&self, other: &str) -> Result<Joined> {
        let state = self.state();
        let sandbox = state.sandboxes.get(other).ok_or_else(|| {
            Error::conflict(format!("cannot join network namespace of a non running container: {other}"))
        })?;
        let files = Files::of(&sandbox.folder);
        Ok(Joined {
            namespace: sandbox.namespace.clone(),
            settings: NetworkSettings::default(),
            hosts: files.hosts,
            hostname: files.hostname,
            resolv_conf: files.resolv_conf,
        })
    }

    fn join_own(&self, join: &Join) -> Result<Joined> {
        let id = random::id()?;
        let namespace = (join.mode != Mode::Host).then(|| self.0.settings.namespaces.join(&id[..12]));
        let mut sandbox = Sandbox {
            id,
            container: join.container.clone(),
            name: join.name.clone(),
            hostname: join.hostname.clone(),
            domain: join.domain.clone(),
            namespace,
            folder: join.folder.clone(),
            endpoints: Vec::new(),
            published: Vec::new(),
            exposed: join.exposed.iter().cloned().collect(),
            bindings: bindings(join),
            hosts: Vec::new(),
            resolver: Resolver::of(join, &self.0.settings, !self.state().asks_the_daemon(join))?,
            resolv_conf: String::new(),
            service: join.service.clone(),
            is_closed: false,
        };
        let (wiring, has_names) = {
            // All addresses are taken before anything is made, and remembered.
            let mut state = self.state();
            for (network, asked) in state.wanted(join)? {
                let place = join.places.get(&network.id).cloned();
                let endpoint = state.endpoint(&sandbox, &network, Connect { asked, place })?;
                sandbox.endpoints.push(endpoint);
            }
            state.add_way_out(&mut sandbox)?;
            sandbox.hosts = self.further_hosts(join, &state)?;
            self.remember(&mut state, sandbox.clone())?;
            (state.wiring(&sandbox)?, state.has_names(&sandbox))
        };
        // Without the lock: others start meanwhile.
        let server = match &sandbox.namespace {
            Some(path) => {
                let mut host = Links::open().map_err(|error| refused(&error))?;
                namespace::create(path, join.made.as_deref(), || {
                    bring_loopback_up()?;
                    wiring.make(&mut host)?;
                    has_names.then(open_server).transpose()
                })?
            }
            None => None,
        };
        let mut state = self.state();
        self.publish(&mut state, &join.container)?;
        self.write_files(&mut state, &join.container)?;
        Files::of(&sandbox.folder).give(join.owner)?;
        self.serve_names(&mut state, &join.container, server)?;
        drop(state);
        // Whoever may not come in finds it closed before it runs.
        self.renew_doors(&sandbox)?;
        let state = self.state();
        let settings = state.settings(&join.container).unwrap_or_default();
        self.tell_of_all("connect", &sandbox, state);
        let files = Files::of(&sandbox.folder);
        Ok(Joined {
            namespace: sandbox.namespace,
            settings,
            hosts: files.hosts,
            hostname: files.hostname,
            resolv_conf: files.resolv_conf,
        })
    }

    /// Tells of the container in each of its networks, once the lock is let go.
    fn tell_of_all(&self, action: &'static str, sandbox: &Sandbox, state: MutexGuard<'_, State>) {
        let networks: Vec<_> = sandbox
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.role == Role::Member)
            .filter_map(|endpoint| state.networks.get(&endpoint.network).cloned())
            .collect();
        drop(state);
        for network in networks {
            self.tell(action, &network, Some(&sandbox.container));
        }
    }

    /// Removes a container's sandbox; one that is not there is well.
    ///
    /// # Errors
    /// The kernel's or the disk's: what is left is removed at the next start, the container's or the daemon's.
    pub fn leave(&self, container: &str) -> Result<()> {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        drop(state.servers.remove(container));
        self.forget_names(&sandbox);
        let gone: Vec<Forward> = sandbox.published.iter().map(|published| published.forward).collect();
        state.ports.give_back(container, &gone);
        if let Some(known) = state.sandboxes.get_mut(container) {
            known.published.clear();
        }
        drop(state);
        self.change_forwards(&gone, &[])?;
        self.take_down(&sandbox)?;
        if let Some(path) = &sandbox.namespace {
            namespace::remove(path)?;
        }
        let mut state = self.state();
        state.forget(container);
        self.hold_places(Some(&sandbox), None);
        self.unlink_later(sandbox.clone())?;
        self.tell_of_all("disconnect", &sandbox, state);
        if sandbox.endpoints.iter().any(|endpoint| endpoint.space.is_some()) {
            // Nothing new is led to it from now on, whatever the managers know of it.
            self.renew_overlays();
        } else if let Err(error) = self.renew_doors(&sandbox) {
            tracing::warn!("published ports of {container}: {error}");
        }
        Ok(())
    }

    /// What a running container has now; `None`: it has no sandbox of its own.
    #[must_use]
    pub fn settings(&self, container: &str) -> Option<NetworkSettings> {
        self.state().settings(container)
    }
}

impl State {
    /// The networks that a container is to be in, its mode's first, the others by name.
    fn wanted(&self, join: &Join) -> Result<Vec<(Network, EndpointSettings)>> {
        let first = match &join.mode {
            Mode::Host => "host",
            Mode::None => "none",
            Mode::Network(name) => name,
            Mode::Container(_) => return Ok(Vec::new()),
        };
        let main = self.find(first)?.clone();
        let mut asked = EndpointSettings::default();
        let mut others = Vec::new();
        for (name, settings) in &join.endpoints {
            // `default` is what the CLI calls the mode's network.
            if name == "default" || name == first {
                asked = settings.clone();
                continue;
            }
            let network = self.find(name)?;
            if network.id == main.id {
                asked = settings.clone();
            } else if matches!(join.mode, Mode::Network(_)) {
                others.push((network.clone(), settings.clone()));
            }
        }
        others.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        others.insert(0, (main, asked));
        Ok(others)
    }

    /// Whether a container that is to join will have a server of its own.
    fn asks_the_daemon(&self, join: &Join) -> bool {
        self.wanted(join).is_ok_and(|wanted| wanted.iter().any(|(network, _)| network.has_names()))
    }

    /// Whether the container has a server of its own.
    pub(super) fn has_names(&self, sandbox: &Sandbox) -> bool {
        sandbox
            .endpoints
            .iter()
            .filter_map(|endpoint| self.networks.get(&endpoint.network))
            .any(Network::has_names)
    }

    pub(super) fn is_host(&self, sandbox: &Sandbox) -> bool {
        sandbox
            .endpoints
            .iter()
            .filter_map(|endpoint| self.networks.get(&endpoint.network))
            .any(|network| network.driver == Driver::Host)
    }
}

/// What is to be published, by port: of the exposed ones only, as dockerd.
fn bindings(join: &Join) -> BTreeMap<String, Vec<PortBinding>> {
    let exposed: BTreeSet<&String> = join.exposed.iter().collect();
    let mut wanted = BTreeMap::new();
    for port in exposed {
        let mut given = join.bindings.get(port).cloned().flatten().unwrap_or_default();
        if given.is_empty() && join.publish_all {
            given.push(PortBinding::default());
        }
        if !given.is_empty() {
            let _none = wanted.insert(port.clone(), given);
        }
    }
    wanted
}

fn bring_loopback_up() -> Result<()> {
    let mut links = Links::open().map_err(|error| refused(&error))?;
    // The first of every namespace.
    links.up(1).map_err(|error| refused(&error))
}
