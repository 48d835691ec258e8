//! A container's `hosts`, `hostname` and `resolv.conf`, which are bound into it: their text, and how they are written.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::record::{Resolver, Sandbox};
use crate::error::{Error, Result};

/// Where a sandbox's own server answers.
pub(super) const NAME_SERVER: &str = "127.0.0.11";
/// What is used when the host has none that a container could reach, as dockerd does.
const PUBLIC_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

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
}

/// In place: the file is bound into the container, which would not see another at its path.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::internal(format_args!("writing {}", path.display()), &error))
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
    let own = if sandbox.domain.is_empty() {
        sandbox.hostname.clone()
    } else {
        format!("{0}.{1} {0}", sandbox.hostname, sandbox.domain)
    };
    for endpoint in &sandbox.endpoints {
        for address in [endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6)].into_iter().flatten() {
            text.push_str(&format!("{address}\t{own}\n"));
        }
    }
    text
}

/// What resolv.conf(5) says.
pub(super) fn parse_resolv_conf(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
            Some("options") => resolver.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    resolver
}

/// Whether a server can be asked from another namespace: not one of the host's loopback addresses.
fn is_reachable(server: &str) -> bool {
    server.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
}

/// Of a container that asks the host's servers itself.
pub(super) fn direct(mut resolver: Resolver, overridden: bool) -> Resolver {
    if !overridden {
        resolver.servers.retain(|server| is_reachable(server));
    }
    if resolver.servers.is_empty() {
        resolver.servers = PUBLIC_SERVERS.map(str::to_owned).to_vec();
    }
    resolver
}

/// Of a container that asks the daemon.
pub(super) fn embedded(resolver: &Resolver) -> Resolver {
    let mut options = resolver.options.clone();
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        // Names without a dot are containers': they are not tried with the search list first.
        options.push("ndots:0".to_owned());
    }
    Resolver { servers: vec![NAME_SERVER.to_owned()], search: resolver.search.clone(), options }
}

/// The text of resolv.conf(5).
pub(super) fn resolv_conf(resolver: &Resolver) -> String {
    let mut text = "# Written by the engine when the container starts.\n\n".to_owned();
    for server in &resolver.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // `--dns-search .`: no list at all.
    if !resolver.search.is_empty() && resolver.search != ["."] {
        text.push_str(&format!("search {}\n", resolver.search.join(" ")));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_the_hosts_only() {
        let host =
            parse_resolv_conf("# x\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a b\noptions edns0\n");
        assert_eq!(host.servers, ["127.0.0.53", "9.9.9.9"]);
        assert_eq!(direct(host.clone(), false).servers, ["9.9.9.9"]);
        assert_eq!(direct(host.clone(), true).servers, ["127.0.0.53", "9.9.9.9"]);
        assert_eq!(direct(Resolver::default(), false).servers, PUBLIC_SERVERS);
        let text = resolv_conf(&embedded(&host));
        assert!(text.ends_with("\nnameserver 127.0.0.11\nsearch a b\noptions edns0 ndots:0\n"), "{text}");
    }

    #[test]
    fn a_dot_is_no_search_list() {
        let resolver = Resolver { search: vec![".".to_owned()], ..Resolver::default() };
        assert!(!resolv_conf(&embedded(&resolver)).contains("search"));
    }
}
