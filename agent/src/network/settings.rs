//! The daemon's settings that networks depend on.

use std::net::IpAddr;
use std::path::PathBuf;

use super::ipam::{Pool, Prefix, default_pools};
use crate::config::Config;

/// Settings that are decided when the daemon starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the namespaces' files are.
    pub namespaces: PathBuf,
    /// Of the network `bridge`; `None`: there is none (`--bridge none`).
    pub bridge: Option<DefaultBridge>,
    /// Where networks without a subnet of the user's get theirs.
    pub pools: Vec<Pool>,
    /// Whether rules are written (`--iptables`).
    pub firewall: bool,
    /// Whether the host is made to forward (`--ip-forward`).
    pub forwarding: bool,
    /// What containers use that name no server (`--dns`).
    pub servers: Vec<String>,
    /// The same (`--dns-search`).
    pub search: Vec<String>,
    /// The same (`--dns-opt`).
    pub options: Vec<String>,
    /// Where ports without an address are published (`--ip`).
    pub publish_at: IpAddr,
    /// What `host-gateway` means; `None`: the default bridge's address.
    pub host_gateway: Option<IpAddr>,
}

/// The network `bridge`.
#[derive(Clone, Debug)]
pub struct DefaultBridge {
    /// The interface (`--bridge`); one that is there is taken as it is.
    pub name: String,
    /// Its address (`--bip`).
    pub address: Option<Prefix>,
    /// Where containers' addresses are taken from (`--fixed-cidr`).
    pub range: Option<Prefix>,
    /// Its IPv6 subnet (`--fixed-cidr-v6`), with `--ipv6`.
    pub subnet_ipv6: Option<Prefix>,
    /// The containers' way out (`--default-gateway`).
    pub gateway: Option<IpAddr>,
    /// Whether containers reach each other (`--icc`).
    pub icc: bool,
    /// Whether what goes out gets the host's address (`--ip-masq`).
    pub masquerade: bool,
    /// In bytes.
    pub mtu: u32,
}

impl Settings {
    /// Those of a daemon that says nothing of networks.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            namespaces: config.exec_root.join("netns"),
            bridge: Some(DefaultBridge::default()),
            pools: default_pools(),
            firewall: true,
            forwarding: true,
            servers: Vec::new(),
            search: Vec::new(),
            options: Vec::new(),
            publish_at: IpAddr::from([0, 0, 0, 0]),
            host_gateway: None,
        }
    }
}

impl Default for DefaultBridge {
    fn default() -> Self {
        Self {
            name: "docker0".to_owned(),
            address: None,
            range: None,
            subnet_ipv6: None,
            gateway: None,
            icc: true,
            masquerade: true,
            mtu: 1500,
        }
    }
}
