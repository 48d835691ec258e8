//! Networks of the cluster.

use std::net::IpAddr;

use ketch_cluster::control::texts::conversion as texts;
use ketch_cluster::objects::network::{IpamConfig, NetworkAttachment, Subnet};
use ketch_cluster::objects::{Driver, Labels, Network, NetworkSpec};
use ketch_cluster::view::View;
use ketch_engine_api::network as local;
use ketch_engine_api::swarm::{Driver as ApiDriver, network as api};

use crate::{Refusal, given, moment};

/// The address management, when a request has it without a driver's name.
const IPAM_DRIVER: &str = "default";
/// The overlay driver's option for the VXLAN's identifier.
const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// The object of a request for a network of the cluster; whether it is one, the route knows.
///
/// # Errors
/// Subnets and addresses that are none, and IPv4 turned off.
pub fn spec_of(request: local::NetworkCreateRequest) -> Result<NetworkSpec, Refusal> {
    if request.enable_ipv4 == Some(false) {
        return Err(texts::network_without_ipv4());
    }
    let (ipam_driver, ipam) = match request.ipam {
        Some(ipam) => (ipam_driver_of(&ipam), pools_of(ipam.config.unwrap_or_default())?),
        None => (Driver::default(), Vec::new()),
    };
    Ok(NetworkSpec {
        name: request.name,
        labels: request.labels.unwrap_or_default(),
        driver: Driver {
            name: request.driver.unwrap_or_default(),
            options: request.options.unwrap_or_default(),
        },
        ipv6: request.enable_ipv6.unwrap_or_default(),
        internal: request.internal,
        attachable: request.attachable,
        ingress: request.ingress,
        ipam_driver,
        ipam,
        config_from: request.config_from.map(|it| it.network).filter(|name| !name.is_empty()),
    })
}

fn ipam_driver_of(ipam: &local::Ipam) -> Driver {
    let name = if ipam.driver.is_empty() { IPAM_DRIVER } else { &ipam.driver };
    Driver { name: name.to_owned(), options: ipam.options.clone().unwrap_or_default() }
}

/// Every fault is told, as dockerd does.
fn pools_of(configs: Vec<local::IpamConfig>) -> Result<Vec<IpamConfig>, Refusal> {
    let mut faults = Vec::new();
    let pools = configs.into_iter().map(|config| pool_of(config, &mut faults)).collect();
    if faults.is_empty() { Ok(pools) } else { Err(texts::network_config(&faults.join("\n"))) }
}

fn pool_of(config: local::IpamConfig, faults: &mut Vec<String>) -> IpamConfig {
    let subnet = subnet_of("subnet", &config.subnet, faults);
    let range = subnet_of("ip-range", &config.ip_range, faults);
    let mut address = |what: &str, shown: &str, text: &str| {
        let parsed = text.parse::<IpAddr>().ok();
        if parsed.is_none() && !text.is_empty() {
            faults.push(format!("invalid {what} {shown}: invalid address"));
        }
        parsed
    };
    let gateway = address("gateway", &config.gateway, &config.gateway);
    let reserved = config.auxiliary_addresses.into_iter().flatten();
    let reserved = reserved
        .filter_map(|(name, text)| address("auxiliary address", &name, &text).map(|address| (name, address)));
    IpamConfig { subnet, range, gateway, reserved: reserved.collect() }
}

fn subnet_of(what: &str, text: &str, faults: &mut Vec<String>) -> Option<Subnet> {
    if text.is_empty() {
        return None;
    }
    let Ok(subnet) = text.parse::<Subnet>() else {
        faults.push(format!("invalid {what} {text}: invalid CIDR block notation"));
        return None;
    };
    let first = Subnet { address: subnet.address_at(subnet.first()), ..subnet };
    if first != subnet {
        faults.push(format!("invalid {what} {text}: it should be {first}"));
    }
    Some(subnet)
}

/// As a manager's `/networks` shows it. Its containers and peers are those of this node, which the route adds.
#[must_use]
pub fn listed(network: &Network) -> api::ListedNetwork {
    let spec = &network.spec;
    let pools = network.allocation.as_ref().map(|allocation| &allocation.pools);
    let state = driver_state(network);
    api::ListedNetwork {
        name: spec.name.clone(),
        id: network.id.to_string(),
        created: moment::shown(network.meta.created_at),
        scope: "swarm".to_owned(),
        driver: state.name,
        enable_ipv4: true,
        enable_ipv6: spec.ipv6,
        ipam: local::Ipam {
            driver: if pools.is_some() { ipam_driver_name(spec).to_owned() } else { String::new() },
            options: Some(spec.ipam_driver.options.clone()).filter(|options| !options.is_empty()),
            config: pools.map(|pools| pools.iter().map(listed_pool).collect()),
        },
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: spec.ingress,
        config_from: config_from(spec).unwrap_or_default(),
        config_only: false,
        containers: None,
        options: state.options,
        // dockerd's: it makes the routing mesh's itself.
        labels: Some(spec.labels.clone()).filter(|labels| spec.ingress || !labels.is_empty()),
        peers: None,
    }
}

fn listed_pool(pool: &IpamConfig) -> local::IpamConfig {
    let reserved = pool.reserved.iter().map(|(name, address)| (name.clone(), address.to_string()));
    local::IpamConfig {
        subnet: text_of(pool.subnet),
        ip_range: text_of(pool.range),
        gateway: text_of(pool.gateway),
        auxiliary_addresses: Some(reserved.collect()).filter(|it: &Labels| !it.is_empty()),
    }
}

fn text_of(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn config_from(spec: &NetworkSpec) -> Option<local::ConfigReference> {
    spec.config_from.clone().map(|network| local::ConfigReference { network })
}

fn ipam_driver_name(spec: &NetworkSpec) -> &str {
    if spec.ipam_driver.name.is_empty() { IPAM_DRIVER } else { &spec.ipam_driver.name }
}

/// The driver with its options and what was allocated; nothing before that.
fn driver_state(network: &Network) -> ApiDriver {
    let Some(allocation) = &network.allocation else { return ApiDriver::default() };
    let mut options = network.spec.driver.options.clone();
    options.extend(allocation.vni.map(|vni| (VNI_OPTION.to_owned(), vni.to_string())));
    ApiDriver {
        name: network.spec.driver_name().to_owned(),
        options: Some(options).filter(|options| !options.is_empty()),
    }
}

/// A task's place in a network, with the network as it is now.
pub(crate) fn attachment_shown(view: &View<'_>, attachment: &NetworkAttachment) -> api::Attachment {
    let gone = || api::Network { id: attachment.network.to_string(), ..api::Network::default() };
    api::Attachment {
        network: view.network(attachment.network).map_or_else(gone, |network| shown(network)),
        addresses: Some(attachment.addresses.iter().map(ToString::to_string).collect()),
    }
}

/// As a task shows it.
#[must_use]
pub fn shown(network: &Network) -> api::Network {
    let allocated = network.allocation.as_ref().map(|allocation| {
        ipam_shown(ipam_driver_name(&network.spec), &network.spec.ipam_driver.options, &allocation.pools)
    });
    api::Network {
        id: network.id.to_string(),
        meta: moment::meta(&network.meta),
        spec: spec_shown(&network.spec),
        driver_state: driver_state(network),
        ipam_options: allocated,
    }
}

fn spec_shown(spec: &NetworkSpec) -> api::NetworkSpec {
    let has_ipam = !spec.ipam_driver.name.is_empty() || !spec.ipam.is_empty();
    api::NetworkSpec {
        annotations: given::annotations(&spec.name, &spec.labels),
        driver_configuration: Some(given::driver_shown(&spec.driver)),
        ipv6_enabled: spec.ipv6,
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: spec.ingress,
        ipam_options: has_ipam
            .then(|| ipam_shown(&spec.ipam_driver.name, &spec.ipam_driver.options, &spec.ipam)),
        config_from: config_from(spec),
        scope: "swarm".to_owned(),
    }
}

fn ipam_shown(driver: &str, options: &Labels, pools: &[IpamConfig]) -> api::IpamOptions {
    let config = |pool: &IpamConfig| api::IpamConfig {
        subnet: text_of(pool.subnet),
        range: text_of(pool.range),
        gateway: text_of(pool.gateway),
    };
    api::IpamOptions {
        driver: ApiDriver { name: driver.to_owned(), options: Some(options.clone()) },
        configs: Some(pools.iter().map(config).collect()),
    }
}
