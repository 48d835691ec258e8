//! The daemon's settings: flags and `daemon.json` over what dockerd's are without either. Those that a reload may change are
//! [`Live`]; all others are decided when the daemon starts.

mod checks;
mod live;
mod read;
mod sections;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use serde_json::Value;

use read::Read;

use crate::daemon_json::{self, Values};
use crate::flags::Flags;
use crate::locks::{reading, writing};
use crate::logs::LogConfig;

pub use crate::daemon_json::without_credentials;
pub use crate::host::Host;
pub use live::Live;
pub use sections::{Containers, DaemonLog, LayerSharing, Network, Proxies, Tls};

/// The file that is read where no flag names one, and which may be missing.
pub const DEFAULT_FILE: &str = "/etc/ketchd/daemon.json";

/// Who of the node's cluster may reach its tasks' containers by the Engine API. They run what managers say in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterAccess {
    /// Users of managers.
    Managers,
    /// Those of this node alone.
    Nobody,
}

/// Settings that are decided when the daemon starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// What outlives the machine's restart: images, containers, volumes, the store.
    pub data_root: PathBuf,
    /// What does not: sockets, bundles, fifos.
    pub exec_root: PathBuf,
    /// Where the daemon's process id is written.
    pub pidfile: PathBuf,
    /// Where the API is served.
    pub hosts: Vec<Host>,
    /// Of unix sockets; one that is not there is an error only where a setting names it.
    pub group: Option<String>,
    /// Of `tcp://`.
    pub tls: Tls,
    /// Where Prometheus may ask.
    pub metrics: Option<String>,
    /// The runtime's binary.
    pub runtime: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Of the daemon's own log.
    pub log: DaemonLog,
    /// Where containers' output goes that nobody has said it for.
    pub log_driver: LogConfig,
    /// What clients are told.
    pub experimental: bool,
    /// What networks depend on.
    pub network: Network,
    /// What containers get that ask for nothing else.
    pub containers: Containers,
    /// For registries.
    pub proxies: Proxies,
    /// Of this node.
    pub generic_resources: Vec<String>,
    /// Where the node of a cluster is reached: an address or an interface; empty: it is found out.
    pub swarm_advertise: String,
    /// Whether managers of its cluster may reach its tasks' containers.
    pub cluster_access: ClusterAccess,
    /// What the node gives of its images to others of its cluster; none: it gives nothing, and asks only registries.
    pub layer_sharing: Option<LayerSharing>,
    /// What a reload may change.
    pub live: Arc<RwLock<Arc<Live>>>,
    /// The file of settings, and whether a flag names it.
    pub file: (PathBuf, bool),
    /// What the flags said, which a reload compares the file with.
    pub given: Values,
}

impl Config {
    /// What flags and file say together.
    ///
    /// # Errors
    /// What makes no sense: dockerd's texts.
    pub fn load(flags: &Flags) -> Result<Self, String> {
        let named = flags.config_file.is_some();
        let file = flags.config_file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let values = merged(&file, named, &flags.given)?;
        Self::of(&values, (file, named), flags.given.clone())
    }

    fn of(values: &Values, file: (PathBuf, bool), given: Values) -> Result<Self, String> {
        let values = Read(values);
        let exec_root = values.path("exec-root").unwrap_or_else(|| "/run/ketchd".into());
        let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
        let beside = beside.unwrap_or_default();
        let tls = values.tls();
        let mut hosts = Vec::new();
        for text in values.list("hosts") {
            let host = Host::parse(&text, tls.enabled == Some(true))?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if hosts.is_empty() {
            hosts.push(Host::default());
        }
        let live = values.live()?;
        let config = Self {
            data_root: values.path("data-root").unwrap_or_else(|| "/var/lib/ketchd".into()),
            // Beside the folder, or in it: instances with roots of their own need no more flags.
            pidfile: values.path("pidfile").unwrap_or_else(|| match exec_root.as_path() {
                root if root == Path::new("/run/ketchd") => "/run/ketchd.pid".into(),
                root => root.join("ketchd.pid"),
            }),
            exec_root,
            hosts,
            group: values.some("group"),
            tls,
            metrics: values.some("metrics-addr"),
            runtime: beside.join("ketch"),
            shim: beside.join("containerd-shim-ketch-v2"),
            log: DaemonLog {
                level: values.text_or("log-level", "info").to_lowercase(),
                json: values.text("log-format") == "json",
            },
            log_driver: LogConfig {
                driver: values.text_or("log-driver", "json-file"),
                options: values.map("log-opts"),
            },
            experimental: values.flag("experimental", false),
            network: values.network()?,
            containers: values.containers(),
            proxies: Proxies {
                http: values.text("http-proxy"),
                https: values.text("https-proxy"),
                none: values.text("no-proxy"),
            },
            generic_resources: values.list("node-generic-resources"),
            swarm_advertise: values.text("swarm-default-advertise-addr"),
            cluster_access: match values.flag("cluster-container-access", true) {
                true => ClusterAccess::Managers,
                false => ClusterAccess::Nobody,
            },
            layer_sharing: values.layer_sharing()?,
            live: Arc::new(RwLock::new(Arc::new(live))),
            file,
            given,
        };
        values.check(&config)?;
        Ok(config)
    }

    /// The settings that a reload may change, as they are now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&reading(&self.live))
    }

    /// Reads the file again, and takes what may change; what the file no longer says stays as it was.
    ///
    /// # Errors
    /// The file's; nothing is changed then.
    pub fn reload(&self) -> Result<Arc<Live>, String> {
        let mut values = self.given.clone();
        values.extend(of_file(&self.file.0, self.file.1, &self.given)?);
        Read(&values).unserved()?;
        let fresh = Self::of(&values, self.file.clone(), self.given.clone())
            .map_err(|error| format!("file configuration validation failed: {error}"))?
            .live();
        let mut now = writing(&self.live);
        let kept = Arc::clone(&now);
        let changed = fresh.over(&kept, |key| values.contains_key(key));
        *now = Arc::new(changed);
        Ok(Arc::clone(&now))
    }
}

/// What the file says; one that no flag names may be missing.
fn of_file(file: &Path, named: bool, given: &Values) -> Result<Values, String> {
    match daemon_json::read(file, given) {
        Err(_) if !named && !file.exists() => Ok(Values::new()),
        read => read.map_err(|error| {
            format!("unable to configure the Docker daemon with file {}: {error}", file.display())
        }),
    }
}

/// Flags and file together.
fn merged(file: &Path, named: bool, given: &Values) -> Result<Values, String> {
    let mut values = of_file(file, named, given)?;
    for (key, value) in given {
        match (values.get_mut(key), value) {
            (Some(Value::Object(all)), Value::Object(more)) => all.extend(more.clone()),
            _ => drop(values.insert(key, value.clone())),
        }
    }
    Ok(values)
}

/// Refuses what is asked for and not served, before the daemon starts: `--validate` takes it, as dockerd's does.
///
/// # Errors
/// It, and why.
pub fn served(flags: &Flags) -> Result<(), String> {
    let named = flags.config_file.is_some();
    let file = flags.config_file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    Read(&merged(&file, named, &flags.given)?).unserved()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn load(line: &str) -> Result<Config, String> {
        let line = format!("--config-file /dev/null {line}");
        Config::load(&Flags::parse("ketchd", line.split_whitespace().map(str::to_owned))?)
    }

    #[test]
    fn without_flags() {
        let config = load("").unwrap();
        assert_eq!(config.data_root, Path::new("/var/lib/ketchd"));
        assert_eq!(config.pidfile, Path::new("/run/ketchd.pid"));
        assert_eq!(config.hosts, [Host::default()]);
        assert_eq!(config.log_driver.driver, "json-file");
        let live = config.live();
        assert_eq!(
            (live.max_concurrent_downloads, live.shutdown_timeout, live.default_shm_size),
            (3, 15, 64 << 20)
        );
        assert!(
            config.network.icc && config.network.iptables && config.network.ip_masq && !config.network.ipv6
        );
    }

    #[test]
    fn flags_are_typed() {
        let config = load(
            "--exec-root /x --icc=false --default-address-pool base=10.0.0.0/8,size=24 --default-ulimit nofile=1:2 --dns 1.1.1.1",
        )
        .unwrap();
        assert_eq!(config.pidfile, Path::new("/x/ketchd.pid"));
        assert!(!config.network.icc);
        assert_eq!(config.network.pools, [("10.0.0.0/8".to_owned(), 24)]);
        assert_eq!(config.containers.ulimits["nofile"], (1, 2));
        assert_eq!(config.network.dns, [IpAddr::from([1, 1, 1, 1])]);
    }

    #[test]
    fn refusals_are_dockerds() {
        for (line, text) in [
            ("--log-level bad", "invalid logging level: bad"),
            ("--log-format xml", "invalid log format: xml"),
            ("--label a=1 --label a=2", "conflict labels for a=2 and a=1"),
            (
                "--default-ipc-mode host",
                "IPC mode \"host\" is not supported as default value; use \"shareable\" or \"private\"",
            ),
            (
                "--default-cgroupns-mode x",
                "invalid default cgroup namespace (x): use \"host\" or \"private\"",
            ),
            ("--exec-opt x", "invalid exec-opt (x): must be formatted 'opt=value'"),
            ("--exec-opt a=b", "invalid exec-opt (a=b): unknown option: 'a'"),
            ("--log-opt x=y", "failed to set log opts: unknown log opt 'x' for json-file log driver"),
            ("--max-concurrent-downloads -1", "invalid max concurrent downloads: -1"),
            (
                "--config-file /nonexistent",
                "unable to configure the Docker daemon with file /nonexistent: open /nonexistent: no such file or directory",
            ),
        ] {
            assert_eq!(load(line).map(|_| ()), Err(text.to_owned()), "{line}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_at_the_start() {
        for (line, wanted) in [
            ("--authorization-plugin x", "failed to validate authorization plugin: plugin \"x\" not found"),
            ("--storage-driver btrfs", "error initializing graphdriver: driver not supported: btrfs"),
            ("--rootless", "--rootless is not served by ketchd"),
        ] {
            let line = format!("--config-file /dev/null {line}");
            let flags = Flags::parse("ketchd", line.split_whitespace().map(str::to_owned)).unwrap();
            assert!(Config::load(&flags).is_ok(), "{line}");
            assert_eq!(served(&flags), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn reloading_takes_what_may_change() {
        let folder = crate::scratch::Folder::new("config");
        let file = folder.path().join("daemon.json");
        std::fs::write(&file, r#"{"labels":["a=b"],"max-concurrent-downloads":7,"data-root":"/one"}"#)
            .unwrap();
        let line = format!("--config-file {} --debug", file.display());
        let flags = Flags::parse("ketchd", line.split_whitespace().map(str::to_owned)).unwrap();
        let config = Config::load(&flags).unwrap();
        assert_eq!(config.live().max_concurrent_downloads, 7);
        std::fs::write(&file, r#"{"registry-mirrors":["https://m"],"data-root":"/two"}"#).unwrap();
        let live = config.reload().unwrap();
        assert_eq!(live.labels, ["a=b"]);
        assert_eq!((live.max_concurrent_downloads, live.debug), (3, true));
        assert_eq!(live.attributes()["registry-mirrors"], r#"["https://m"]"#);
        assert_eq!(config.data_root, Path::new("/one"));
        std::fs::write(&file, r#"{"debug":false}"#).unwrap();
        assert!(
            config.reload().unwrap_err().contains("specified both as a flag and in the configuration file")
        );
        assert_eq!(config.live().registry_mirrors, ["https://m"]);
    }
}
