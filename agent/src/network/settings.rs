//! The daemon's settings that networks depend on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ketch_engine_api::network::Map;

use super::firewall::Families;
use super::ipam::{Pool, Prefix, default_pools};
use crate::config::Config;
use crate::error::{Error, Result};

/// Settings that are decided when the daemon starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the namespaces' files are.
    pub namespaces: PathBuf,
    /// Where the records of sandboxes are.
    pub sandboxes: PathBuf,
    /// Where the namespaces of overlay networks are.
    pub spaces: PathBuf,
    /// Of the network `bridge`; `None`: there is none (`--bridge none`).
    pub bridge: Option<DefaultBridge>,
    /// Where networks without a subnet of the user's get theirs.
    pub pools: Vec<Pool>,
    /// Options of new networks that do not say otherwise, by driver (`--default-network-opt`).
    pub default_options: BTreeMap<String, Map>,
    /// What rules are written for (`--iptables`, `--ip6tables`).
    pub firewall: Families,
    /// Whether other machines may reach published ports at containers' own addresses (`--allow-direct-routing`).
    pub direct_routing: bool,
    /// Whether the host is made to forward (`--ip-forward`).
    pub forwarding: bool,
    /// Whether it then forwards for everybody (`--ip-forward-no-drop`).
    pub forwarding_for_all: bool,
    /// What containers use that name no server (`--dns`).
    pub servers: Vec<String>,
    /// The same (`--dns-search`).
    pub search: Vec<String>,
    /// The same (`--dns-opt`).
    pub options: Vec<String>,
    /// Where ports without an address are published (`--ip`).
    pub publish_at: IpAddr,
    /// What `host-gateway` means; none: the default bridge's addresses.
    pub host_gateways: Vec<IpAddr>,
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
    /// Whether it has IPv6 (`--ipv6`).
    pub ipv6: bool,
    /// Its IPv6 address (`--bip6`).
    pub address_ipv6: Option<Prefix>,
    /// Where containers' IPv6 addresses are taken from (`--fixed-cidr-v6`).
    pub range_ipv6: Option<Prefix>,
    /// The containers' ways out, of each family (`--default-gateway`, `--default-gateway-v6`).
    pub gateways: [Option<IpAddr>; 2],
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
            ipv6: given.ipv6,
            address_ipv6: prefix("bip6", &given.bip6)?,
            range_ipv6: prefix("fixed-cidr-v6", &given.fixed_cidr_v6)?.map(Prefix::subnet),
            gateways: [given.default_gateway, given.default_gateway_v6],
            icc: given.icc,
            // Nothing is written that could.
            masquerade: given.ip_masq && given.iptables,
            mtu: if given.mtu == 0 { default.mtu } else { given.mtu },
        };
        let pools = given.pools.iter().map(|(base, size)| {
            let base = prefix("default-address-pools", base)?.map(Prefix::subnet);
            Ok(base.map(|base| Pool { base, size: *size }))
        });
        let pools: Vec<Pool> = pools.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(Self {
            namespaces: config.exec_root.join("netns"),
            sandboxes: config.exec_root.join("sandboxes"),
            spaces: config.exec_root.join("overlays"),
            bridge: (given.bridge != "none").then_some(bridge),
            pools: if pools.is_empty() { default_pools() } else { pools },
            default_options: given.default_options.clone(),
            firewall: Families { ipv4: given.iptables, ipv6: given.iptables && given.ip6tables },
            direct_routing: given.allow_direct_routing,
            forwarding: given.ip_forward,
            forwarding_for_all: given.ip_forward_no_drop,
            servers: given.dns.iter().map(IpAddr::to_string).collect(),
            search: given.dns_search.clone(),
            options: given.dns_options.clone(),
            publish_at: given.publish_at,
            host_gateways: given.host_gateway.clone(),
        })
    }
}

/// An address with its prefix's length; `None`: nothing is given.
fn prefix(flag: &str, text: &str) -> Result<Option<Prefix>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|()| {
        let message = format!(
            "Error initializing network controller: parse {flag} failed: invalid CIDR address: {text}"
        );
        Error::invalid(message)
    })
}

impl Default for DefaultBridge {
    fn default() -> Self {
        Self {
            name: "docker0".to_owned(),
            address: None,
            range: None,
            ipv6: false,
            address_ipv6: None,
            range_ipv6: None,
            gateways: [None; 2],
            icc: true,
            masquerade: true,
            mtu: 1500,
        }
    }
}
