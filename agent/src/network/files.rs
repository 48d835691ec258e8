//! A container's `hosts`, `hostname` and `resolv.conf`, which are bound into it: what is in the first, and how they are written.
//! [`super::resolver`] has the text of the last.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::record::{Role, Sandbox};
use super::request::{Join, LinkTo, Mode};
use super::{Networks, State};
use crate::error::{Error, Kind, Result};

const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The files of a folder.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) hosts: PathBuf,
    pub(super) hostname: PathBuf,
    pub(super) resolv_conf: PathBuf,
}

impl Files {
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            hosts: folder.join("hosts"),
            hostname: folder.join("hostname"),
            resolv_conf: folder.join("resolv.conf"),
        }
    }

    /// Whose they are to be; they are written in place from now on, and stay so.
    pub(super) fn give(&self, (user, group): (u32, u32)) -> Result<()> {
        // The daemon's own they are already.
        if (user, group) == (0, 0) {
            return Ok(());
        }
        for path in [&self.hosts, &self.hostname, &self.resolv_conf] {
            match std::os::unix::fs::lchown(path, Some(user), Some(group)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::internal(
                        format_args!("changing the owner of {}", path.display()),
                        &error,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// In place: the file is bound into the container, which would not see another at its path.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::internal(format_args!("writing {}", path.display()), &error))
}

/// Whether a file that a container may write to, as much as it likes, holds this text.
fn is_still(path: &Path, text: &str) -> bool {
    let mut now = Vec::with_capacity(text.len() + 1);
    let most = u64::try_from(text.len() + 1).unwrap_or(u64::MAX);
    fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut now)).is_ok()
        && now == text.as_bytes()
}

/// A file of the host, or nothing when it has none.
pub(super) fn of_host(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| Error::internal(format_args!("reading {path}"), &error)),
    }
}

/// The hosts file: the local names, the user's, those of links, the container's own.
pub(super) fn hosts(sandbox: &Sandbox) -> String {
    let mut text = LOCAL_NAMES.to_owned();
    for (address, names) in &sandbox.hosts {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    let full = match sandbox.domain.as_str() {
        "" => sandbox.hostname.clone(),
        domain => format!("{}.{domain}", sandbox.hostname),
    };
    let own = match full.split_once('.') {
        Some((first, _)) => format!("{full} {first}"),
        None => full,
    };
    for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.role == Role::Member) {
        for address in [endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6)].into_iter().flatten() {
            text.push_str(&format!("{address}\t{own}\n"));
        }
    }
    text
}

impl Networks {
    /// Writes the container's files; what it has changed in its resolv.conf stays.
    pub(super) fn write_files(&self, state: &mut State, container: &str) -> Result<()> {
        let Some(sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        let paths = Files::of(&sandbox.folder);
        write(&paths.hostname, &format!("{}\n", sandbox.hostname))?;
        let (own, resolver, ipv6) = (hosts(&sandbox), &sandbox.resolver, sandbox.has_ipv6());
        let (hosts, resolv_conf) = if state.is_host(&sandbox) {
            let mut hosts = of_host("/etc/hosts")?;
            if !hosts.ends_with('\n') && !hosts.is_empty() {
                hosts.push('\n');
            }
            for (address, names) in &sandbox.hosts {
                hosts.push_str(&format!("{address}\t{names}\n"));
            }
            (hosts, resolver.of_the_host())
        } else if state.has_names(&sandbox) {
            (own, resolver.embedded(ipv6))
        } else {
            (own, resolver.direct(ipv6))
        };
        write(&paths.hosts, &hosts)?;
        let is_changed =
            !sandbox.resolv_conf.is_empty() && !is_still(&paths.resolv_conf, &sandbox.resolv_conf);
        if is_changed || resolv_conf == sandbox.resolv_conf {
            return Ok(());
        }
        write(&paths.resolv_conf, &resolv_conf)?;
        self.remember(state, Sandbox { resolv_conf, ..sandbox })
    }

    /// The lines of `--add-host` and of links, which only the network `bridge` has.
    pub(super) fn further_hosts(&self, join: &Join, state: &State) -> Result<Vec<(String, String)>> {
        let mut lines = Vec::new();
        for given in &join.extra_hosts {
            let (name, address) = given
                .split_once(':')
                .ok_or_else(|| Error::invalid(format!("bad format for add-host: {given:?}")))?;
            if address == "host-gateway" {
                lines.extend(
                    self.host_gateways(state)?
                        .into_iter()
                        .map(|gateway| (gateway.to_string(), name.to_owned())),
                );
            } else {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                lines.push((address.to_owned(), name.to_owned()));
            }
        }
        if join.mode == Mode::of("bridge") {
            for link in &join.links {
                lines.push(linked(join, link, state)?);
            }
        }
        Ok(lines)
    }

    /// `--host-gateway-ip`, or the default bridge's addresses.
    fn host_gateways(&self, state: &State) -> Result<Vec<IpAddr>> {
        let mut gateways = self.0.settings.host_gateways.clone();
        if gateways.is_empty() {
            let bridge = state.networks.values().find(|network| network.is_default_bridge());
            gateways.extend(
                bridge.into_iter().flat_map(|bridge| [bridge.gateway(true), bridge.gateway(false)]).flatten(),
            );
        }
        if gateways.is_empty() {
            return Err(Error::new(Kind::Internal, "unable to derive the IP value for host-gateway"));
        }
        Ok(gateways)
    }
}

fn linked(join: &Join, link: &LinkTo, state: &State) -> Result<(String, String)> {
    let other = state.sandboxes.get(&link.container);
    let address = other.and_then(|other| {
        other.endpoints.iter().find_map(|endpoint| {
            state.networks.get(&endpoint.network)?.is_default_bridge().then_some(endpoint.ipv4)?
        })
    });
    let Some(address) = address else {
        if other.is_some() {
            let text = format!("container {} not attached to default bridge network", link.container);
            return Err(Error::new(Kind::Internal, text));
        }
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
    Ok((address.to_string(), names.join(" ")))
}
