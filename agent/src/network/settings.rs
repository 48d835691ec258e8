//! The daemon's settings that networks depend on.

use std::net::IpAddr;
use std::path::PathBuf;

use super::ipam::{Pool, Prefix, default_pools};
use crate::config::Config;
use crate::error::{Error, Result};

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
    /// Those of the daemon.
    ///
    /// # Errors
    /// An address or a subnet that is none.
    pub fn of(config: &Config) -> Result<Self> {
        let given = &config.network;
        let default = DefaultBridge::default();
        let bridge = DefaultBridge {
            name: if given.bridge.is_empty() { default.name } else { given.bridge.clone() },
            address: prefix("bip", &given.bip)?,
            range: prefix("fixed-cidr", &given.fixed_cidr)?.map(Prefix::subnet),
            subnet_ipv6: prefix("fixed-cidr-v6", &given.fixed_cidr_v6)?
                .map(Prefix::subnet)
                .filter(|_| given.ipv6),
            gateway: given.default_gateway,
            icc: given.icc,
            masquerade: given.ip_masq,
            mtu: if given.mtu == 0 { default.mtu } else { given.mtu },
        };
        let pools = given.pools.iter().map(|(base, size)| {
            let base = prefix("default-address-pools", base)?.map(Prefix::subnet);
            Ok(base.map(|base| Pool { base, size: *size }))
        });
        let pools: Vec<Pool> = pools.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(Self {
            namespaces: config.exec_root.join("netns"),
            bridge: (given.bridge != "none").then_some(bridge),
            pools: if pools.is_empty() { default_pools() } else { pools },
            firewall: given.iptables,
            forwarding: given.ip_forward,
            servers: given.dns.iter().map(IpAddr::to_string).collect(),
            search: given.dns_search.clone(),
            options: given.dns_options.clone(),
            publish_at: given.publish_at,
            host_gateway: given.host_gateway.first().copied(),
        })
    }
}

/// An address with its prefix's length; `None`: nothing is given.
fn prefix(flag: &str, text: &str) -> Result<Option<Prefix>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|()| Error::invalid(format!("invalid value for {flag}: {text}")))
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
