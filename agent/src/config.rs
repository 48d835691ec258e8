//! The daemon's settings: flags and `daemon.json` over what dockerd's are without either. Those that a reload may change are
//! [`Live`]; all others are decided when the daemon starts.

mod checks;
mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
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

/// The file that is read where no flag names one, and which may be missing.
pub const DEFAULT_FILE: &str = "/etc/ketchd/daemon.json";

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
    /// What a reload may change.
    pub live: Arc<RwLock<Arc<Live>>>,
    /// The file of settings, and whether a flag names it.
    pub file: (PathBuf, bool),
    /// What the flags said, which a reload compares the file with.
    pub given: Values,
}

/// Settings that a reload may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Whether the log says more.
    pub debug: bool,
    /// `KEY=value`.
    pub labels: Vec<String>,
    /// Containers outlive the daemon whatever it says; clients are told it.
    pub live_restore: bool,
    /// How long the daemon's end may take, in seconds; negative: as long as it takes.
    pub shutdown_timeout: i64,
    /// Layers that one pull gets at once.
    pub max_concurrent_downloads: usize,
    /// Layers that one push sends at once.
    pub max_concurrent_uploads: usize,
    /// How often a layer is tried.
    pub max_download_attempts: usize,
    /// Registries without TLS, or with certificates that nobody vouches for: hosts, and CIDRs.
    pub insecure_registries: Vec<String>,
    /// Of Docker Hub: URLs.
    pub registry_mirrors: Vec<String>,
    /// By name: the path of the binary. `ketch`, `runc` and `io.containerd.runc.v2` are there without being named.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Of containers that ask for none.
    pub default_runtime: String,
    /// Of `/dev/shm`, in bytes.
    pub default_shm_size: u64,
    /// `private` or `shareable`.
    pub default_ipc_mode: String,
    /// `private` or `host`.
    pub default_cgroupns_mode: String,
    /// By name.
    pub features: BTreeMap<String, bool>,
    /// Whether containers that turn unhealthy are restarted without asking for it by label.
    pub restart_unhealthy: bool,
    /// What the files of one layer of an image may have, in bytes; none: as much as fits on the disk.
    pub max_layer_size: Option<u64>,
    /// How many files one layer of an image may have.
    pub max_layer_files: Option<u64>,
}

/// Of the daemon's own log.
#[derive(Clone, Debug)]
pub struct DaemonLog {
    /// `debug`, `info`, `warn`, `error`, `fatal`, `panic` or `trace`.
    pub level: String,
    /// Whether lines are JSON.
    pub json: bool,
}

/// Who may speak to `tcp://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `--tls`, or what implies it.
    pub enabled: Option<bool>,
    /// Whether clients need a certificate.
    pub verify: Option<bool>,
    /// Whose certificates clients must have.
    pub ca: Option<PathBuf>,
    /// The daemon's.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What networks depend on.
#[derive(Clone, Debug)]
pub struct Network {
    /// `--bridge`; empty: `docker0`.
    pub bridge: String,
    /// `--bip`, an address with its prefix's length; empty: from the pools.
    pub bip: String,
    /// `--bip6`.
    pub bip6: String,
    /// `--fixed-cidr`.
    pub fixed_cidr: String,
    /// `--fixed-cidr-v6`.
    pub fixed_cidr_v6: String,
    /// `--default-gateway`.
    pub default_gateway: Option<IpAddr>,
    /// `--default-gateway-v6`.
    pub default_gateway_v6: Option<IpAddr>,
    /// Of the default bridge, in bytes.
    pub mtu: u32,
    /// Whether containers of the default bridge reach each other.
    pub icc: bool,
    /// Whether IPv4 rules are written.
    pub iptables: bool,
    /// Whether IPv6 rules are written.
    pub ip6tables: bool,
    /// Whether the machine is made to forward.
    pub ip_forward: bool,
    /// Whether it then forwards for everybody.
    pub ip_forward_no_drop: bool,
    /// Whether other machines reach published ports at containers' addresses.
    pub allow_direct_routing: bool,
    /// Whether what leaves the default bridge gets the machine's address.
    pub ip_masq: bool,
    /// Of the default bridge.
    pub ipv6: bool,
    /// Where ports without an address are published.
    pub publish_at: IpAddr,
    /// For containers that name none.
    pub dns: Vec<IpAddr>,
    /// The same.
    pub dns_options: Vec<String>,
    /// The same.
    pub dns_search: Vec<String>,
    /// What `host-gateway` means; empty: the default bridge's address.
    pub host_gateway: Vec<IpAddr>,
    /// CIDR, and the length of the subnets that are taken from it; empty: Docker's.
    pub pools: Vec<(String, u8)>,
    /// Options of new networks, by driver.
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
}

/// What containers get that ask for nothing else.
#[derive(Clone, Debug)]
pub struct Containers {
    /// The cgroup below which they are; empty: `docker`.
    pub cgroup_parent: String,
    /// Soft and hard, by name.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Whether they get an init.
    pub init: bool,
    /// That init's binary; empty: ketchd's choice.
    pub init_path: String,
    /// Whose subordinate ids their users are (`--userns-remap`); empty: they are the host's own.
    pub remapped: String,
    /// Whether their processes gain no privileges.
    pub no_new_privileges: bool,
    /// `builtin`, `unconfined` or a file.
    pub seccomp_profile: String,
}

/// For registries; empty: none.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http://`.
    pub http: String,
    /// For `https://`.
    pub https: String,
    /// Hosts that are reached without.
    pub none: String,
}

impl Proxies {
    /// What is not set is as the environment has it.
    #[must_use]
    pub fn with_environment(&self) -> Self {
        let or = |setting: &str, variables: [&str; 2]| {
            let values = variables.iter().filter_map(|name| std::env::var(name).ok());
            let given = || values.into_iter().find(|value| !value.is_empty()).unwrap_or_default();
            if setting.is_empty() { given() } else { setting.to_owned() }
        };
        Self {
            http: or(&self.http, ["HTTP_PROXY", "http_proxy"]),
            https: or(&self.https, ["HTTPS_PROXY", "https_proxy"]),
            none: or(&self.none, ["NO_PROXY", "no_proxy"]),
        }
    }
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
        let said = |key: &str| values.contains_key(key);
        let changed = Live {
            debug: newer(said("debug"), &fresh.debug, &kept.debug),
            labels: newer(said("labels"), &fresh.labels, &kept.labels),
            live_restore: newer(said("live-restore"), &fresh.live_restore, &kept.live_restore),
            shutdown_timeout: newer(
                said("shutdown-timeout"),
                &fresh.shutdown_timeout,
                &kept.shutdown_timeout,
            ),
            insecure_registries: newer(
                said("insecure-registries"),
                &fresh.insecure_registries,
                &kept.insecure_registries,
            ),
            registry_mirrors: newer(
                said("registry-mirrors"),
                &fresh.registry_mirrors,
                &kept.registry_mirrors,
            ),
            runtimes: newer(said("runtimes"), &fresh.runtimes, &kept.runtimes),
            default_runtime: newer(said("default-runtime"), &fresh.default_runtime, &kept.default_runtime),
            default_shm_size: newer(
                said("default-shm-size"),
                &fresh.default_shm_size,
                &kept.default_shm_size,
            ),
            default_ipc_mode: newer(
                said("default-ipc-mode"),
                &fresh.default_ipc_mode,
                &kept.default_ipc_mode,
            ),
            default_cgroupns_mode: newer(
                said("default-cgroupns-mode"),
                &fresh.default_cgroupns_mode,
                &kept.default_cgroupns_mode,
            ),
            // Back to what they are without a file, as dockerd does.
            max_concurrent_downloads: fresh.max_concurrent_downloads,
            max_concurrent_uploads: fresh.max_concurrent_uploads,
            max_download_attempts: fresh.max_download_attempts,
            features: fresh.features.clone(),
            restart_unhealthy: fresh.restart_unhealthy,
            max_layer_size: fresh.max_layer_size,
            max_layer_files: fresh.max_layer_files,
        };
        *now = Arc::new(changed);
        Ok(Arc::clone(&now))
    }
}

impl Live {
    /// The attributes of the `reload` event.
    #[must_use]
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let list = |items: &[String]| serde_json::to_string(items).unwrap_or_default();
        let runtimes: Vec<_> =
            self.runtimes.iter().map(|(name, path)| format!("{name}:{}", path.display())).collect();
        let features: Vec<_> = self.features.iter().map(|(name, on)| format!("{name}:{on}")).collect();
        [
            ("debug", self.debug.to_string()),
            ("default-cgroupns-mode", self.default_cgroupns_mode.clone()),
            ("default-ipc-mode", self.default_ipc_mode.clone()),
            ("default-runtime", self.default_runtime.clone()),
            ("default-shm-size", self.default_shm_size.to_string()),
            ("features", format!("map[{}]", features.join(" "))),
            ("insecure-registries", list(&self.insecure_registries)),
            ("labels", list(&self.labels)),
            ("live-restore", self.live_restore.to_string()),
            ("max-concurrent-downloads", self.max_concurrent_downloads.to_string()),
            ("max-concurrent-uploads", self.max_concurrent_uploads.to_string()),
            ("max-download-attempts", self.max_download_attempts.to_string()),
            ("registry-mirrors", list(&self.registry_mirrors)),
            ("runtimes", runtimes.join(" ")),
            ("shutdown-timeout", self.shutdown_timeout.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

/// What was said anew, else what was kept.
fn newer<T: Clone>(said: bool, fresh: &T, kept: &T) -> T {
    if said { fresh } else { kept }.clone()
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
