//! A container's start and end in the network: its sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use ketch_engine_api::network::{EndpointSettings, NetworkSettings, PortBinding, PortMap};

use super::dns::{Listening, Sockets};
use super::files::{self, Files, NAME_SERVER};
use super::firewall::redirect_names;
use super::link::Links;
use super::record::{Driver, Resolver, SANDBOXES, Sandbox};
use super::{Networks, State, namespace, refused};
use crate::error::{Error, Kind, Result};
use crate::random;

/// Where a container's namespace is from (`HostConfig.NetworkMode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The host's.
    Host,
    /// One with nothing.
    None,
    /// That of another, by its id or name as the user gave it.
    Container(String),
    /// Its own, in this network and what others it is connected to.
    Network(String),
}

impl Mode {
    /// Of its text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "" | "default" | "bridge" => Self::Network("bridge".to_owned()),
            "host" => Self::Host,
            "none" => Self::None,
            _ => match text.strip_prefix("container:") {
                Some(other) => Self::Container(other.to_owned()),
                None => Self::Network(text.to_owned()),
            },
        }
    }
}

/// A container that another knows by a name of its own, in the network `bridge`.
#[derive(Clone, Debug)]
pub struct LinkTo {
    /// The other's id.
    pub container: String,
    /// Its name.
    pub name: String,
    /// What it is called.
    pub alias: String,
}

/// What a container wants of the network.
#[derive(Clone, Debug)]
pub struct Join {
    /// The container's id.
    pub container: String,
    /// Its name, without a slash.
    pub name: String,
    /// Of its UTS namespace.
    pub hostname: String,
    /// The same; mostly empty.
    pub domain: String,
    /// Whose namespace; [`Mode::Container`] has the other's full id.
    pub mode: Mode,
    /// By network: name or id. The mode's is among them whether or not it is named.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// `HostConfig.PortBindings`.
    pub bindings: PortMap,
    /// `Config.ExposedPorts`: `port/protocol`.
    pub exposed: Vec<String>,
    /// Every exposed port that has no binding gets one.
    pub publish_all: bool,
    /// Only in the network `bridge`.
    pub links: Vec<LinkTo>,
    /// `name:address`; the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// `HostConfig.Dns`.
    pub servers: Vec<String>,
    /// `HostConfig.DnsSearch`.
    pub search: Vec<String>,
    /// `HostConfig.DnsOptions`.
    pub options: Vec<String>,
    /// Where the container's files are written.
    pub folder: PathBuf,
}

/// What it got.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The file of its namespace; `None`: the host's.
    pub namespace: Option<PathBuf>,
    /// For its inspection.
    pub settings: NetworkSettings,
    /// To be bound to `/etc/hosts`.
    pub hosts: PathBuf,
    /// To be bound to `/etc/hostname`.
    pub hostname: PathBuf,
    /// To be bound to `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

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
            resolver: self.resolver(join)?,
        };
        {
            // All addresses are taken before anything is made, and remembered.
            let mut state = self.state();
            for (network, asked) in state.wanted(join)? {
                let endpoint = state.endpoint(&sandbox, &network, asked)?;
                sandbox.endpoints.push(endpoint);
            }
            sandbox.hosts = self.further_hosts(join, &state)?;
            self.0.store.put(SANDBOXES, &sandbox.container, &sandbox)?;
            let _none = state.sandboxes.insert(sandbox.container.clone(), sandbox.clone());
        }
        if let Some(path) = &sandbox.namespace {
            namespace::create(path, bring_loopback_up)?;
        }
        let mut state = self.state();
        for endpoint in &sandbox.endpoints {
            state.plug(&sandbox, endpoint)?;
        }
        state.choose_gateways(&sandbox, None)?;
        self.publish(&mut state, &join.container)?;
        self.write_files(&mut state, &join.container, join.mode == Mode::Host)?;
        self.serve_names(&mut state, &join.container)?;
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
    /// The kernel's or the store's: what is left is removed at the next start, the container's or the daemon's.
    pub fn leave(&self, container: &str) -> Result<()> {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        drop(state.servers.remove(container));
        self.forget_names(&sandbox);
        state.ports.give_back(container);
        if let Some(known) = state.sandboxes.get_mut(container) {
            known.published.clear();
        }
        if !sandbox.published.is_empty() {
            self.write_rules(&mut state)?;
        }
        for endpoint in sandbox.endpoints.iter().filter(|endpoint| !endpoint.link.is_empty()) {
            // With its peer, whatever still holds the namespace.
            state.links.remove(&endpoint.link).map_err(|error| refused(&error))?;
        }
        if let Some(path) = &sandbox.namespace {
            namespace::remove(path)?;
        }
        self.0.store.remove(SANDBOXES, container)?;
        drop(state.sandboxes.remove(container));
        self.tell_of_all("disconnect", &sandbox, state);
        Ok(())
    }

    /// What a running container has now; `None`: it has no sandbox of its own.
    #[must_use]
    pub fn settings(&self, container: &str) -> Option<NetworkSettings> {
        self.state().settings(container)
    }

    /// What a container asks: its own settings, the daemon's, the host's.
    fn resolver(&self, join: &Join) -> Result<Resolver> {
        let host = files::parse_resolv_conf(&files::of_host("/etc/resolv.conf")?);
        let first = |own: &[String], daemon: &[String], host: Vec<String>| {
            if !own.is_empty() {
                own.to_vec()
            } else if !daemon.is_empty() {
                daemon.to_vec()
            } else {
                host
            }
        };
        let settings = &self.0.settings;
        Ok(Resolver {
            servers: first(&join.servers, &settings.servers, host.servers),
            search: first(&join.search, &settings.search, host.search),
            options: first(&join.options, &settings.options, host.options),
        })
    }

    /// The lines of `--add-host` and of links.
    fn further_hosts(&self, join: &Join, state: &State) -> Result<Vec<(String, String)>> {
        let mut lines = Vec::new();
        for given in &join.extra_hosts {
            let (name, address) = given
                .split_once(':')
                .ok_or_else(|| Error::invalid(format!("bad format for add-host: {given:?}")))?;
            if address == "host-gateway" {
                let gateway = self.0.settings.host_gateway.or_else(|| {
                    state.networks.values().find(|network| network.is_default_bridge())?.gateway(true)
                });
                let gateway = gateway.ok_or_else(|| {
                    Error::internal(
                        "unable to derive the IP value for host-gateway",
                        &std::io::Error::from(std::io::ErrorKind::NotFound),
                    )
                })?;
                lines.push((gateway.to_string(), name.to_owned()));
            } else {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                lines.push((address.to_owned(), name.to_owned()));
            }
        }
        for link in &join.links {
            let other = state.sandboxes.get(&link.container);
            let address = other.and_then(|other| {
                other.endpoints.iter().find_map(|endpoint| {
                    state.networks.get(&endpoint.network)?.is_default_bridge().then_some(endpoint.ipv4)?
                })
            });
            let Some(address) = address else {
                return Err(Error::new(
                    Kind::Internal,
                    format!(
                        "Cannot link to a non running container: /{} AS /{}/{}",
                        link.name, join.name, link.alias
                    ),
                ));
            };
            let mut names = vec![link.alias.clone()];
            let hostname = other.map(|other| other.hostname.clone()).unwrap_or_default();
            names.extend([hostname, link.name.clone()].into_iter().filter(|name| *name != link.alias));
            lines.push((address.to_string(), names.join(" ")));
        }
        Ok(lines)
    }

    /// Writes the container's files.
    pub(super) fn write_files(&self, state: &mut State, container: &str, of_host: bool) -> Result<()> {
        let Some(sandbox) = state.sandboxes.get(container) else { return Ok(()) };
        let paths = Files::of(&sandbox.folder);
        files::write(&paths.hostname, &format!("{}\n", sandbox.hostname))?;
        let (hosts, resolver) = if of_host {
            let mut hosts = files::of_host("/etc/hosts")?;
            if !hosts.ends_with('\n') && !hosts.is_empty() {
                hosts.push('\n');
            }
            for (address, names) in &sandbox.hosts {
                hosts.push_str(&format!("{address}\t{names}\n"));
            }
            (hosts, sandbox.resolver.clone())
        } else if state.has_names(sandbox) {
            (files::hosts(sandbox), files::embedded(&sandbox.resolver))
        } else {
            (files::hosts(sandbox), files::direct(sandbox.resolver.clone(), false))
        };
        files::write(&paths.hosts, &hosts)?;
        files::write(&paths.resolv_conf, &files::resolv_conf(&resolver))
    }

    /// Opens the container's server, if it is in a network that has names, and tells the others of it.
    pub(super) fn serve_names(&self, state: &mut State, container: &str) -> Result<()> {
        let Some(sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        self.tell_names(state, &sandbox);
        let Some(path) = sandbox.namespace.as_deref().filter(|_| state.has_names(&sandbox)) else {
            return Ok(());
        };
        if !state.servers.contains_key(container) {
            let server = self.listen(path, container)?;
            drop(state.servers.insert(container.to_owned(), server));
        }
        Ok(())
    }

    fn listen(&self, path: &Path, container: &str) -> Result<Listening> {
        let sockets = namespace::enter(path, || {
            let address: Ipv4Addr = NAME_SERVER.parse().unwrap_or(Ipv4Addr::LOCALHOST);
            let failed = |error| Error::internal("opening the container's name server", &error);
            let sockets = Sockets::open(address).map_err(failed)?;
            let (udp, tcp) = sockets.ports().map_err(failed)?;
            redirect_names(address, udp, tcp).map_err(|error| refused(&error))?;
            Ok(sockets)
        })?;
        sockets
            .serve(&self.0.runtime, container, &self.0.names)
            .map_err(|error| Error::internal("serving the container's names", &error))
    }
}

impl State {
    /// The networks that a container is to be in, its mode's first, the others by name.
    fn wanted(&self, join: &Join) -> Result<Vec<(super::Network, EndpointSettings)>> {
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

    /// Whether the container has a server of its own.
    fn has_names(&self, sandbox: &Sandbox) -> bool {
        sandbox
            .endpoints
            .iter()
            .filter_map(|endpoint| self.networks.get(&endpoint.network))
            .any(super::Network::has_names)
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

/// Of an open namespace's file.
pub(super) fn open_namespace(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).map_err(|error| {
        Error::internal(format_args!("opening the network namespace {}", path.display()), &error)
    })
}

/// The addresses of an endpoint.
pub(super) fn addresses(endpoint: &super::record::Endpoint) -> Vec<IpAddr> {
    [endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6)].into_iter().flatten().collect()
}

/// Borrowed for a message.
pub(super) fn borrowed(file: &std::fs::File) -> std::os::fd::BorrowedFd<'_> {
    file.as_fd()
}
