//! The parts of [`super::Config`] that belong together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

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

/// How layers are given to other nodes of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSharing {
    /// TCP.
    pub port: u16,
    /// Bytes in a second for all others together; none: as many as there are.
    pub rate: Option<u64>,
    /// Pieces that are given at once.
    pub uploads: usize,
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
