//! `ketch.publish.from=<CIDR>,...` and `ketch.publish.ip=<address|interface>,...`: who reaches the published ports of a service, and
//! where on each node they are open.
//!
//! - `from`: only these sources reach them, by the routing mesh or on the task's node; an address without a prefix is that one alone. An
//!   address family of which there is no entry is closed. IPv4 written as IPv6 (`::ffff:10.0.0.1`) is IPv6 as any other.
//! - `ip`: they are open only to what is sent to these addresses of a node, or comes in by these interfaces. A node that has none of them serves none of
//!   the ports.
//!
//! It owns the grammar; what it means for packets is the node's matter.

use std::net::IpAddr;

use crate::objects::network::Subnet;
use crate::objects::{Labels, ServiceSpec};
use crate::view::View;

use super::{Refusal, is_in_host};

pub const FROM: &str = "ketch.publish.from";
pub const IP: &str = "ketch.publish.ip";

/// Most entries of each label: a service's are rules on each node.
const MAX_ENTRIES: usize = 256;

/// The kernel's bound of an interface's name, without its final zero.
const MAX_INTERFACE_BYTES: usize = 15;

/// How published ports are narrowed; the default is not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    /// The sources that reach them; none: all.
    pub from: Option<Vec<Subnet>>,
    /// Where they are open; none: on each address of a node.
    pub at: Option<Vec<Place>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Address(IpAddr),
    Interface(String),
}

/// What the labels of a service say.
///
/// # Errors
/// The first entry that can't be read.
pub fn parse(labels: &Labels) -> Result<Publish, Refusal> {
    Ok(Publish { from: entries(labels, FROM, subnet)?, at: entries(labels, IP, place)? })
}

/// The same where nothing can be refused any more: what can't be read closes all published ports.
#[must_use]
pub fn in_force(labels: &Labels) -> Publish {
    parse(labels).unwrap_or_else(|_| Publish { from: Some(Vec::new()), at: Some(Vec::new()) })
}

impl Publish {
    /// Whether the service has what they narrow.
    pub(super) fn fits(&self, view: &View<'_>, spec: &ServiceSpec) -> Result<(), Refusal> {
        let given = [(FROM, self.from.is_some()), (IP, self.at.is_some())];
        let Some((label, _)) = given.into_iter().find(|(_, is_given)| *is_given) else { return Ok(()) };
        if is_in_host(view, spec) {
            return Err(Refusal::new(label, "a service of the network host publishes nothing"));
        }
        match spec.endpoint.as_ref().is_some_and(|endpoint| !endpoint.ports.is_empty()) {
            true => Ok(()),
            false => Err(Refusal::new(label, "the service has no published port")),
        }
    }
}

fn entries<T>(
    labels: &Labels,
    label: &str,
    read: fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, Refusal> {
    let Some(text) = labels.get(label) else { return Ok(None) };
    let texts: Vec<_> = text.split(',').map(str::trim).collect();
    if texts.len() > MAX_ENTRIES {
        return Err(Refusal::new(label, format!("has {} entries, and may have {MAX_ENTRIES}", texts.len())));
    }
    let read = texts.into_iter().map(read).collect::<Result<_, _>>();
    read.map(Some).map_err(|reason| Refusal::new(label, reason))
}

fn subnet(text: &str) -> Result<Subnet, String> {
    let alone = |address: IpAddr| Subnet { address, prefix: if address.is_ipv4() { 32 } else { 128 } };
    let read = text.parse::<Subnet>().ok().or_else(|| text.parse().ok().map(alone));
    read.ok_or_else(|| format!("{text:?} is neither an address nor one with a prefix, such as 10.1.0.0/16"))
}

fn place(text: &str) -> Result<Place, String> {
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            Err(format!("{text:?} is no address of one node"))
        }
        Ok(address) => Ok(Place::Address(address)),
        Err(_) if is_interface(text) => Ok(Place::Interface(text.to_owned())),
        Err(_) => Err(format!("{text:?} is neither an address nor the name of an interface")),
    }
}

/// A letter first, so that a misspelt address is none.
fn is_interface(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= MAX_INTERFACE_BYTES
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::objects::task::NetworkAttachmentConfig;
    use crate::objects::{EndpointSpec, PortConfig, ServiceMode};
    use crate::view::Observed;

    fn labels(label: &str, text: &str) -> Labels {
        Labels::from([(label.to_owned(), text.to_owned())])
    }

    #[test]
    fn sources_are_addresses_and_subnets_of_both_families() {
        assert_eq!(parse(&Labels::new()), Ok(Publish::default()));
        let from =
            parse(&labels(FROM, "10.0.0.0/8, 192.0.2.7,fd00::/8,::ffff:10.0.0.1")).unwrap().from.unwrap();
        let shown: Vec<_> = from.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "::ffff:10.0.0.1/128"]);
    }

    #[test]
    fn places_are_addresses_and_interfaces() {
        let at = parse(&labels(IP, "10.0.0.5,eth1.7, fd00::5")).unwrap().at.unwrap();
        let address = |text: &str| Place::Address(text.parse().unwrap());
        assert_eq!(at, [address("10.0.0.5"), Place::Interface("eth1.7".to_owned()), address("fd00::5")]);
    }

    #[test]
    fn what_can_not_be_read_is_told_and_closes_the_ports() {
        let no_subnet = "is neither an address nor one with a prefix, such as 10.1.0.0/16";
        let no_place = "is neither an address nor the name of an interface";
        for (label, text, told) in [
            (FROM, "", format!("\"\" {no_subnet}")),
            (FROM, "10.0.0.0/33", format!("\"10.0.0.0/33\" {no_subnet}")),
            (FROM, "10.0.0.1,", format!("\"\" {no_subnet}")),
            (FROM, "localhost", format!("\"localhost\" {no_subnet}")),
            (IP, "", format!("\"\" {no_place}")),
            (IP, "10.0.0.300", format!("\"10.0.0.300\" {no_place}")),
            (IP, "eth0/1", format!("\"eth0/1\" {no_place}")),
            (IP, "eth0eth0eth0eth0", format!("\"eth0eth0eth0eth0\" {no_place}")),
            (IP, "0.0.0.0", "\"0.0.0.0\" is no address of one node".to_owned()),
            (IP, "ff02::1", "\"ff02::1\" is no address of one node".to_owned()),
        ] {
            assert_eq!(parse(&labels(label, text)), Err(Refusal::new(label, told)), "{text}");
            let closed = in_force(&labels(label, text));
            assert_eq!((closed.from, closed.at), (Some(Vec::new()), Some(Vec::new())));
        }
    }

    #[test]
    fn entries_are_bounded() {
        let told = parse(&labels(FROM, &vec!["::1"; MAX_ENTRIES + 1].join(","))).unwrap_err().to_string();
        assert_eq!(told, "label ketch.publish.from: has 257 entries, and may have 256");
    }

    #[test]
    fn without_a_published_port_there_is_nothing_to_narrow() {
        let mut host = fixture::network(7);
        host.spec.driver.name = "host".to_owned();
        let attached = NetworkAttachmentConfig {
            target: host.id,
            aliases: Vec::new(),
            addresses: Vec::new(),
            driver_options: Labels::new(),
        };
        let store = fixture::store([host.into()]);
        let observed = Observed::default();
        let view = View::new(&store, &observed);
        let mut spec = fixture::service(1, ServiceMode::Global).spec;
        for (label, text) in [(FROM, "10.0.0.0/8"), (IP, "eth0")] {
            let narrowed = parse(&labels(label, text)).unwrap();
            spec.endpoint = None;
            assert_eq!(
                narrowed.fits(&view, &spec),
                Err(Refusal::new(label, "the service has no published port"))
            );
            assert_eq!(Publish::default().fits(&view, &spec), Ok(()));
            let port = PortConfig {
                name: String::new(),
                protocol: Default::default(),
                target_port: 80,
                published_port: 8080,
                publish_mode: Default::default(),
            };
            spec.endpoint = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
            assert_eq!(narrowed.fits(&view, &spec), Ok(()));
            let mut on_host = spec.clone();
            std::sync::Arc::make_mut(&mut on_host.task).networks = vec![attached.clone()];
            let told = narrowed.fits(&view, &on_host).unwrap_err().to_string();
            assert_eq!(told, format!("label {label}: a service of the network host publishes nothing"));
        }
    }
}
