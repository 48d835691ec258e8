//! What a build's request asks for.

use std::collections::BTreeMap;

use ketch_engine_api::host_config::{HostConfig, LogConfig, Resources, Ulimit};

use crate::image::reference::Reference;
use crate::image::registry::auth::Credentials;
use crate::image::spec::Platform;

/// Who the client is to each registry.
#[derive(Clone, Debug, Default)]
pub struct Logins(pub BTreeMap<String, Credentials>);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The image's names.
    pub tags: Vec<Reference>,
    /// The last stage.
    pub target: String,
    /// What it is for.
    pub platform: Option<Platform>,
    /// The variables of ARG.
    pub args: BTreeMap<String, Option<String>>,
    /// Labels of the last stage.
    pub labels: BTreeMap<String, String>,
    /// Images whose history is a cache.
    pub cache_from: Vec<String>,
    /// Whether steps that were done are done again.
    pub no_cache: bool,
    /// Whether images are pulled though they are here.
    pub pull: bool,
    /// Whether a step's container goes when it has succeeded.
    pub remove: bool,
    /// Whether it always goes.
    pub force_remove: bool,
    /// Whether only the image's id is told.
    pub quiet: bool,
    /// Whether the id is told as data, too.
    pub aux: bool,
    /// Containers' network.
    pub network: String,
    /// Containers' /dev/shm, in bytes.
    pub shm_size: i64,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    /// Containers' limits.
    pub resources: Resources,
    /// And of their processes.
    pub ulimits: Option<Vec<Ulimit>>,
    /// For pulls.
    pub logins: Logins,
}

impl Logins {
    /// Those for the registry of an image.
    #[must_use]
    pub fn of(&self, reference: &Reference) -> Credentials {
        let host = reference.domain.as_str();
        let host = if host == "docker.io" { "index.docker.io" } else { host };
        let named = |key: &str| {
            let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
            key.split('/').next() == Some(host)
        };
        let found =
            self.0.get(host).or_else(|| self.0.iter().find(|(key, _)| named(key)).map(|(_, found)| found));
        found.cloned().unwrap_or_default().completed()
    }
}

impl Options {
    /// What a step's container gets of the host.
    #[must_use]
    pub fn host_config(&self) -> HostConfig {
        let network = if self.network.is_empty() { "default" } else { &self.network };
        HostConfig {
            log_config: LogConfig { kind: "none".to_owned(), config: None },
            network_mode: network.to_owned(),
            shm_size: self.shm_size,
            extra_hosts: (!self.extra_hosts.is_empty()).then(|| self.extra_hosts.clone()),
            resources: Resources { ulimits: self.ulimits.clone(), ..self.resources.clone() },
            ..HostConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_by_their_registry() {
        let login = |name: &str| Credentials { username: name.to_owned(), ..Credentials::default() };
        let all = [("https://index.docker.io/v1/", login("hub")), ("http://r.test:5000", login("own"))];
        let logins = Logins(all.map(|(key, login)| (key.to_owned(), login)).into());
        for (image, name) in [("busybox", "hub"), ("r.test:5000/a", "own"), ("r.test/a", "")] {
            assert_eq!(logins.of(&image.parse().unwrap()).username, name, "{image}");
        }
    }
}
