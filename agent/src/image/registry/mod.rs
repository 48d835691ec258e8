//! Registries: where an image's repository is, whom we are there, and what it says.
//!
//! [`auth`] knows who, [`connection`], [`proxy`] and [`tls`] how, [`repository`] speaks the distribution protocol; [`pull`] and [`push`]
//! are what users ask for. Async: only what unpacks is handed to threads that may block.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Semaphore;

pub mod auth;
mod connection;
mod login;
mod origin;
pub mod proxy;
pub mod pull;
pub mod push;
mod repository;
pub mod search;
mod tls;
mod token;
mod transfer;
mod upload;

pub use repository::Distribution;

use connection::{Host, Scheme};
use proxy::Proxies;
use tls::Trust;

use super::digest::Digest;
use super::reference::{DEFAULT_DOMAIN, Reference};

use crate::locks::locked;

/// Docker's own registry.
const DOCKER_HOST: &str = "registry-1.docker.io";
/// Layers that are fetched at once, as dockerd's default has it.
const DOWNLOADS: usize = 3;
/// Layers that one push sends at once.
const UPLOADS: usize = 5;
/// As often as a broken connection is made again without a byte more.
const ATTEMPTS: usize = 5;

/// What the daemon's settings say of registries.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Hosts with ports, and networks: HTTP, and certificates that are not looked at.
    pub insecure: Vec<String>,
    /// Asked before Docker's own.
    pub mirrors: Vec<String>,
    /// A folder of certificates for each host; `/etc/docker/certs.d` for `None`.
    pub certificates: Option<PathBuf>,
    /// What is between us and them.
    pub proxies: Arc<Proxies>,
    /// Layers fetched at once; 0 for three.
    pub downloads: usize,
    /// Layers sent at once by one push; 0 for five.
    pub uploads: usize,
    /// As often as a layer is tried without a byte more; 0 for five times.
    pub attempts: usize,
}

/// What is known of registries while the daemon runs.
#[derive(Debug)]
pub(super) struct Registries {
    settings: Mutex<Settings>,
    slots: Arc<Semaphore>,
    /// Layers on their way, shared by everyone who wants them.
    transfers: Mutex<HashMap<(Digest, transfer::Asked), Weak<transfer::Transfer>>>,
}

impl Default for Registries {
    fn default() -> Self {
        Self {
            settings: Mutex::default(),
            slots: Arc::new(Semaphore::new(DOWNLOADS)),
            transfers: Mutex::default(),
        }
    }
}

/// A place where a repository may be.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    host: Host,
    /// In front of the repository's name in addresses.
    prefix: String,
    /// Another's copy: it is not told who we are.
    mirror: bool,
    certificates: PathBuf,
    proxies: Arc<Proxies>,
}

impl Settings {
    fn endpoints(&self, domain: &str) -> Vec<Endpoint> {
        let folder = self.certificates.clone().unwrap_or_else(|| "/etc/docker/certs.d".into());
        let endpoint = |host: Host, prefix: &str, mirror: bool| Endpoint {
            certificates: folder.join(&host.authority),
            proxies: Arc::clone(&self.proxies),
            prefix: prefix.trim_end_matches('/').to_owned(),
            host,
            mirror,
        };
        let mut found = Vec::new();
        if domain == DEFAULT_DOMAIN {
            for mirror in &self.mirrors {
                let url = if mirror.contains("://") { mirror.clone() } else { format!("https://{mirror}") };
                if let Some((mut host, path)) = Host::of_url(&url, Trust::Verified) {
                    if self.is_insecure(&host.authority) {
                        host.trust = Trust::Anyone;
                    }
                    found.push(endpoint(host, &path, true));
                }
            }
        }
        let authority = if domain == DEFAULT_DOMAIN { DOCKER_HOST } else { domain };
        let insecure = self.is_insecure(domain);
        let trust = if insecure { Trust::Anyone } else { Trust::Verified };
        let host = |scheme| Host { scheme, authority: authority.to_owned(), trust };
        found.push(endpoint(host(Scheme::Https), "", false));
        if insecure {
            found.push(endpoint(host(Scheme::Http), "", false));
        }
        found
    }

    /// Loopback is, and what the settings name.
    fn is_insecure(&self, authority: &str) -> bool {
        let (name, _) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (authority, ""),
        };
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        name == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self.insecure.iter().any(|insecure| {
                insecure == authority || address.is_some_and(|address| in_network(address, insecure))
            })
    }
}

/// Whether an address is in `address/bits`.
fn in_network(address: IpAddr, network: &str) -> bool {
    let Some((base, bits)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let shifted = |value: u128, width: u32| value.checked_shr(width.saturating_sub(bits)).unwrap_or(0);
    match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => {
            let wide = |address: std::net::Ipv4Addr| u128::from(address.to_bits());
            shifted(wide(address), 32) == shifted(wide(base), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(base)) => {
            shifted(address.to_bits(), 128) == shifted(base.to_bits(), 128)
        }
        _ => false,
    }
}

/// What is not set is the default.
fn or(setting: usize, default: usize) -> usize {
    if setting == 0 { default } else { setting }
}

impl Registries {
    /// Changes what the settings say; transfers on their way go on.
    pub(super) fn set(&self, settings: Settings) {
        let wanted = or(settings.downloads, DOWNLOADS);
        let mut present = locked(&self.settings);
        let before = or(present.downloads, DOWNLOADS);
        if wanted > before {
            self.slots.add_permits(wanted - before);
        } else {
            let _fewer = self.slots.forget_permits(before - wanted);
        }
        *present = settings;
    }

    /// As many layers as one push may send at once.
    fn uploads(&self) -> usize {
        or(locked(&self.settings).uploads, UPLOADS)
    }

    /// As often as a layer is tried.
    fn attempts(&self) -> usize {
        or(locked(&self.settings).attempts, ATTEMPTS)
    }

    fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        self.endpoints_of(&reference.domain)
    }

    fn endpoints_of(&self, domain: &str) -> Vec<Endpoint> {
        locked(&self.settings).endpoints(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_follow_the_settings() {
        let settings = Settings {
            insecure: vec!["reg:5000".into(), "10.0.0.0/8".into()],
            mirrors: vec!["https://mirror/prefix/".into()],
            ..Settings::default()
        };
        let urls = |domain: &str| -> Vec<String> {
            settings.endpoints(domain).iter().map(|at| at.host.url(&format!("{}/v2/", at.prefix))).collect()
        };
        assert_eq!(urls("docker.io"), ["https://mirror/prefix/v2/", "https://registry-1.docker.io/v2/"]);
        assert_eq!(urls("ghcr.io"), ["https://ghcr.io/v2/"]);
        for insecure in ["reg:5000", "10.1.2.3:80", "localhost:5000", "127.0.0.9", "[::1]:5000"] {
            assert_eq!(urls(insecure).len(), 2, "{insecure}");
        }
        assert_eq!(urls("11.1.2.3:80").len(), 1);
        assert!(settings.endpoints("ghcr.io")[0].certificates.ends_with("certs.d/ghcr.io"));
    }
}
