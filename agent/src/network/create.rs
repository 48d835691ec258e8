//! A new network: what is asked for is checked, and gets its subnets, in dockerd's texts.

use std::collections::{BTreeMap, BTreeSet};

use ketch_engine_api::network::{Map, NetworkCreateRequest};

use super::firewall::GatewayMode;
use super::ipam::{Pool, Prefix, Subnet, free_subnet};
use super::options::{BridgeOptions, ParentOptions};
use super::record::{Driver, Network};
use super::subnets;
use crate::error::{Error, Kind, Result};

/// What a new network depends on.
pub(super) struct Given<'a> {
    pub(super) id: String,
    pub(super) created: String,
    pub(super) networks: &'a mut dyn Iterator<Item = &'a Network>,
    pub(super) pools: &'a [Pool],
    /// Options of networks that do not say otherwise, by driver.
    pub(super) default_options: &'a BTreeMap<String, Map>,
    /// Where the host's routes lead.
    pub(super) routes: Vec<Prefix>,
    /// Where networks with IPv6 and without a subnet get theirs.
    pub(super) pool_ipv6: Option<Pool>,
}

/// The network that is asked for.
///
/// # Errors
/// It can't be meant, or collides with another.
pub(super) fn network(request: NetworkCreateRequest, given: Given<'_>) -> Result<Network> {
    let others: Vec<&Network> = given.networks.collect();
    if request.name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty"));
    }
    let named = |name: &str| others.iter().find(|network| network.name == name);
    if matches!(request.name.as_str(), "bridge" | "host" | "none" | "default") {
        let message = format!("operation is not permitted on predefined {} network ", request.name);
        return Err(Error::new(Kind::Forbidden, message));
    }
    if named(&request.name).is_some() {
        return Err(Error::conflict(format!("network with name {} already exists", request.name)));
    }
    let driver = match request.driver.as_deref().unwrap_or_default() {
        "" if request.config_only => Driver::Null,
        "" | "bridge" => Driver::Bridge,
        "macvlan" => Driver::Macvlan,
        "ipvlan" => Driver::Ipvlan,
        only @ ("host" | "null") => {
            return Err(Error::new(
                Kind::Forbidden,
                format!("only one instance of {only:?} network is allowed"),
            ));
        }
        "overlay" => {
            return Err(Error::new(
                Kind::Forbidden,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ));
        }
        other => return Err(Error::not_found(format!("plugin {other:?} not found"))),
    };
    let (mut options, mut ipam) = (request.options.unwrap_or_default(), request.ipam.unwrap_or_default());
    let mut ipv6 = request.enable_ipv6.unwrap_or(false);
    let (mut ipv4, mut internal) = (request.enable_ipv4.unwrap_or(true), request.internal);
    let config_from = request.config_from.unwrap_or_default().network;
    if !config_from.is_empty() {
        let from = others.iter().find(|network| network.name == config_from).ok_or_else(|| {
            Error::not_found(format!("configuration network {config_from:?} does not exist"))
        })?;
        if !from.config_only {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "cannot use network {config_from} as configuration source: it is not configuration-only"
                ),
            ));
        }
        ipam = from.ipam.clone();
        options.clone_from(&from.options);
        (ipv4, ipv6, internal) = (from.ipv4, from.ipv6, from.internal);
    }
    if !ipv4 && !ipv6 {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    for (key, value) in given.default_options.get(driver.name()).into_iter().flatten() {
        let _said = options.entry(key.clone()).or_insert_with(|| value.clone());
    }
    match ipam.driver.as_str() {
        "" => "default".clone_into(&mut ipam.driver),
        "default" | "null" => {}
        other => return Err(Error::not_found(format!("plugin {other:?} not found"))),
    }
    let configured = subnets::checked(&ipam, (ipv4, ipv6))?;
    if ipam.driver == "null" && configured.is_empty() && driver.has_addresses() {
        return Err(Error::invalid("ipv4 pool is empty"));
    }
    let mut network = Network {
        id: given.id,
        name: request.name,
        created: given.created,
        driver,
        ipv4,
        ipv6,
        ipam,
        subnets: Vec::new(),
        chosen: Vec::new(),
        internal,
        attachable: request.attachable,
        config_from,
        config_only: request.config_only,
        made_link: false,
        options,
        labels: request.labels.unwrap_or_default(),
        spanned: None,
    };
    if network.config_only {
        return Ok(network);
    }
    match network.driver {
        Driver::Bridge => check_bridge(&network, &others)?,
        Driver::Macvlan | Driver::Ipvlan => drop(ParentOptions::of(&network)?),
        Driver::Overlay | Driver::Host | Driver::Null => {}
    }
    // Networks of the cluster are an address space of their own: what the user asks for may overlap them, what is chosen does not.
    let subnets_of = |overlays: bool| {
        let those = others.iter().filter(move |network| network.is_overlay() == overlays);
        those.flat_map(|network| network.subnets.iter().map(|subnet| subnet.subnet))
    };
    let mut taken: Vec<Prefix> = subnets_of(false).collect();
    network.subnets = configured;
    if network.subnets.iter().any(|subnet| taken.iter().any(|taken| taken.overlaps(subnet.subnet))) {
        return Err(Error::new(
            Kind::Forbidden,
            "invalid pool request: Pool overlaps with other one on this address space",
        ));
    }
    subnets::check_together(&network)?;
    taken.extend(subnets_of(true));
    taken.extend(given.routes);
    let pool_ipv6: Vec<Pool> = given.pool_ipv6.into_iter().collect();
    for (wanted, family, pools) in [(ipv4, true, given.pools), (ipv6, false, pool_ipv6.as_slice())] {
        if !wanted || network.subnets.iter().any(|subnet| subnet.subnet.is_ipv4() == family) {
            continue;
        }
        let subnet = free_subnet(pools, &taken, family)
            .ok_or_else(|| Error::invalid("all predefined address pools have been fully subnetted"))?;
        network.chosen.push(subnet);
        network.subnets.push(Subnet::of(subnet));
    }
    let options = super::bridge_of(&network);
    let is_isolated =
        |ipv4: bool| options.as_ref().is_some_and(|options| options.mode(ipv4) == GatewayMode::Isolated);
    for subnet in &mut network.subnets {
        if subnet.gateway.is_none() && !is_isolated(subnet.subnet.is_ipv4()) {
            subnet.gateway = subnet.free_address(&BTreeSet::new());
        }
    }
    subnets::show_chosen(&mut network);
    Ok(network)
}

fn check_bridge(network: &Network, others: &[&Network]) -> Result<()> {
    let bridge = BridgeOptions::of(&network.id, &network.options)?;
    let modes = [bridge.mode_ipv4, bridge.mode_ipv6];
    if !network.internal && modes.contains(&GatewayMode::Isolated) {
        return Err(Error::new(
            Kind::Internal,
            "gateway mode 'isolated' can only be used for an internal network",
        ));
    }
    let same =
        others.iter().find(|other| super::bridge_of(other).is_some_and(|other| other.name == bridge.name));
    match same {
        Some(other) => Err(Error::new(
            Kind::Forbidden,
            format!(
                "cannot create network {} ({}): conflicts with network {} ({}): networks have same bridge name",
                network.id, bridge.name, other.id, bridge.name
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ipam::default_pools;

    fn created(body: &str, others: &[Network]) -> Result<Network> {
        let pools = default_pools();
        network(
            serde_json::from_str(body).unwrap(),
            Given {
                id: format!("{:x}{:063x}", others.len() + 1, 0),
                created: String::new(),
                networks: &mut others.iter(),
                pools: &pools,
                default_options: &BTreeMap::from([(
                    "bridge".to_owned(),
                    Map::from([("com.docker.network.driver.mtu".to_owned(), "1400".to_owned())]),
                )]),
                routes: vec!["172.17.0.0/16".parse().unwrap()],
                pool_ipv6: Some(Pool { base: "fd00:1:2::/48".parse().unwrap(), size: 64 }),
            },
        )
    }

    #[test]
    fn what_cannot_be_meant_is_refused_as_dockerd_does() {
        let first =
            created(r#"{"Name":"n1","Options":{"com.docker.network.bridge.name":"b"}}"#, &[]).unwrap();
        let others = [first];
        for (body, kind, message) in [
            (r#"{"Name":"n1"}"#, Kind::Conflict, "network with name n1 already exists"),
            (
                r#"{"Name":"bridge"}"#,
                Kind::Forbidden,
                "operation is not permitted on predefined bridge network ",
            ),
            (r#"{"Name":""}"#, Kind::InvalidArgument, "invalid name: name is empty"),
            (r#"{"Name":"x","Driver":"nope"}"#, Kind::NotFound, "plugin \"nope\" not found"),
            (
                r#"{"Name":"x","Driver":"host"}"#,
                Kind::Forbidden,
                "only one instance of \"host\" network is allowed",
            ),
            (r#"{"Name":"x","IPAM":{"Driver":"nope"}}"#, Kind::NotFound, "plugin \"nope\" not found"),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"172.18.0.0/24"}]}}"#,
                Kind::Forbidden,
                "invalid pool request: Pool overlaps with other one on this address space",
            ),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.2.3/24"}]}}"#,
                Kind::InvalidArgument,
                "invalid network config:\ninvalid subnet 10.1.2.3/24: it should be 10.1.2.0/24",
            ),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.2.0/24","Gateway":"10.2.2.1"}]}}"#,
                Kind::InvalidArgument,
                "invalid network config:\ninvalid gateway 10.2.2.1: parent subnet 10.1.2.0/24 doesn't contain this address",
            ),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.2.0/24","IPRange":"10.2.2.0/28"}]}}"#,
                Kind::InvalidArgument,
                "invalid network config:\ninvalid ip-range 10.2.2.0/28: parent subnet 10.1.2.0/24 doesn't contain ip-range",
            ),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Gateway":"10.2.2.1"}]}}"#,
                Kind::InvalidArgument,
                "invalid network config:\ninvalid subnet : invalid CIDR block notation",
            ),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.2.0/24","AuxiliaryAddresses":{"a":"10.9.0.1"}}]}}"#,
                Kind::InvalidArgument,
                "invalid network config:\ninvalid auxiliary address a: parent subnet 10.1.2.0/24 doesn't contain this address",
            ),
            (
                r#"{"Name":"x","Options":{"com.docker.network.driver.mtu":"zz"}}"#,
                Kind::InvalidArgument,
                "failed to parse com.docker.network.driver.mtu value: zz (strconv.Atoi: parsing \"zz\": invalid syntax)",
            ),
            (
                r#"{"Name":"x","Options":{"com.docker.network.bridge.enable_icc":"zz"}}"#,
                Kind::InvalidArgument,
                "failed to parse com.docker.network.bridge.enable_icc value: zz (strconv.ParseBool: parsing \"zz\": invalid syntax)",
            ),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.0.0/24"},{"Subnet":"10.2.0.0/24"}]}}"#,
                Kind::Forbidden,
                "bridge driver doesn't support multiple subnets",
            ),
            (
                r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.0.0/24","Gateway":"10.1.0.1","AuxiliaryAddresses":{"a":"10.1.0.1"}}]}}"#,
                Kind::Internal,
                "failed to allocate secondary ip address (a:10.1.0.1): Address already in use",
            ),
            (
                r#"{"Name":"x","Options":{"com.docker.network.bridge.gateway_mode_ipv4":"isolated"}}"#,
                Kind::Internal,
                "gateway mode 'isolated' can only be used for an internal network",
            ),
            (
                r#"{"Name":"x","Driver":"macvlan","Options":{"macvlan_mode":"zz"}}"#,
                Kind::InvalidArgument,
                "requested macvlan mode 'zz' is not valid, 'bridge' mode is the macvlan driver default",
            ),
            (r#"{"Name":"x","EnableIPv4":false}"#, Kind::InvalidArgument, "IPv4 or IPv6 must be enabled"),
        ] {
            let error = created(body, &others).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (kind, message), "{body}");
        }
        let error =
            created(r#"{"Name":"x","Options":{"com.docker.network.bridge.name":"b"}}"#, &others).unwrap_err();
        assert!(error.message.ends_with("(b): networks have same bridge name"), "{error}");
    }

    #[test]
    fn subnets_are_chosen_and_shown_as_dockerd_does() {
        let shown = |network: &Network| serde_json::to_string(&network.ipam.config).unwrap();
        let both = created(r#"{"Name":"a","EnableIPv6":true}"#, &[]).unwrap();
        assert_eq!(
            shown(&both),
            r#"[{"Subnet":"172.18.0.0/16","Gateway":"172.18.0.1"},{"Subnet":"fd00:1:2::/64","Gateway":"fd00:1:2::1"}]"#
        );
        let ranged = created(
            r#"{"Name":"b","IPAM":{"Config":[{"Subnet":"172.28.0.0/16","IPRange":"172.28.5.0/24"}]}}"#,
            &[both],
        )
        .unwrap();
        assert_eq!(shown(&ranged), r#"[{"Subnet":"172.28.0.0/16","IPRange":"172.28.5.0/24"}]"#);
        assert_eq!(ranged.gateway(true), Some([172, 28, 5, 0].into()));
        assert_eq!(ranged.options["com.docker.network.driver.mtu"], "1400");
    }
}
