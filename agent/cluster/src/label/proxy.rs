//! `ketch.publish.proxy=<port>[/tcp],...`: to which ports of its tasks the routing mesh carries connections with the client's address
//! before them, as the PROXY protocol has it (version 2, <https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt>).
//!
//! - `<port>` is a port of the task, and each published port of the mesh that leads to it is meant. What listens there must read the
//!   protocol: it has the header before the first byte of each connection.
//! - Streams of TCP only, and by the mesh only: who publishes the port in mode `host` has the client's address anyway.
//!
//! It owns the grammar; who carries what is the node's matter.

use std::collections::BTreeSet;

use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::{Labels, PortConfig, ServiceSpec};
use crate::view::View;

use super::{Refusal, is_in_host};

pub const LABEL: &str = "ketch.publish.proxy";

/// The ports of the task.
///
/// # Errors
/// The first entry that can't be read.
pub fn parse(labels: &Labels) -> Result<BTreeSet<u16>, Refusal> {
    let Some(text) = labels.get(LABEL) else { return Ok(BTreeSet::new()) };
    let mut ports = BTreeSet::new();
    for text in text.split(',').map(str::trim) {
        let port = entry(text)?;
        if !ports.insert(port) {
            return Err(refused(format!("{text:?} is there twice")));
        }
    }
    Ok(ports)
}

/// The same where nothing can be refused any more: none, when they can't be read.
#[must_use]
pub fn in_force(labels: &Labels) -> BTreeSet<u16> {
    parse(labels).unwrap_or_default()
}

/// Whether the service publishes them so that they can be carried.
pub(super) fn fits(ports: &BTreeSet<u16>, view: &View<'_>, spec: &ServiceSpec) -> Result<(), Refusal> {
    if !ports.is_empty() && is_in_host(view, spec) {
        return Err(refused("a service of the network host publishes nothing".to_owned()));
    }
    let published = spec.endpoint.as_ref().map(|endpoint| endpoint.ports.as_slice()).unwrap_or_default();
    ports.iter().try_for_each(|port| is_carried(*port, published))
}

fn is_carried(port: u16, published: &[PortConfig]) -> Result<(), Refusal> {
    let mut of_port = published.iter().filter(|it| it.target_port == port && it.protocol == Protocol::Tcp);
    if of_port.clone().any(|it| it.publish_mode == PublishMode::Host) {
        return Err(refused(format!("{port}/tcp is published in mode host, where there is no header")));
    }
    match of_port.next() {
        Some(_) => Ok(()),
        None => Err(refused(format!("{port}/tcp is no port that the service publishes"))),
    }
}

/// Digits only: a sign is none.
fn entry(text: &str) -> Result<u16, Refusal> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if matches!(protocol, "udp" | "sctp") {
        return Err(refused(format!("{text:?} is no stream of tcp, and no other has a header")));
    }
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|port| is_number && *port != 0 && protocol == "tcp");
    number.ok_or_else(|| refused(format!("{text:?} is no port of a task, such as 80/tcp")))
}

fn refused(reason: String) -> Refusal {
    Refusal::new(LABEL, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::objects::{EndpointSpec, ServiceMode};
    use crate::view::Observed;

    fn said(text: &str) -> Result<BTreeSet<u16>, String> {
        parse(&Labels::from([(LABEL.to_owned(), text.to_owned())])).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn entries_are_ports_of_the_task() {
        assert_eq!(parse(&Labels::new()), Ok(BTreeSet::new()));
        assert_eq!(said("80"), Ok(BTreeSet::from([80])));
        assert_eq!(said("443/tcp, 80/tcp"), Ok(BTreeSet::from([80, 443])));
        for (text, told) in [
            ("", "\"\" is no port of a task, such as 80/tcp"),
            ("80,", "\"\" is no port of a task, such as 80/tcp"),
            ("0", "\"0\" is no port of a task, such as 80/tcp"),
            ("+80", "\"+80\" is no port of a task, such as 80/tcp"),
            ("65536/tcp", "\"65536/tcp\" is no port of a task, such as 80/tcp"),
            ("http", "\"http\" is no port of a task, such as 80/tcp"),
            ("80/", "\"80/\" is no port of a task, such as 80/tcp"),
            ("true", "\"true\" is no port of a task, such as 80/tcp"),
            ("53/udp", "\"53/udp\" is no stream of tcp, and no other has a header"),
            ("80,80/tcp", "\"80/tcp\" is there twice"),
        ] {
            assert_eq!(said(text), Err(format!("label ketch.publish.proxy: {told}")), "{text}");
            let labels = Labels::from([(LABEL.to_owned(), text.to_owned())]);
            assert_eq!(in_force(&labels), BTreeSet::new());
        }
    }

    #[test]
    fn they_are_published_by_the_mesh_and_by_nothing_else() {
        let store = fixture::store([]);
        let observed = Observed::default();
        let view = View::new(&store, &observed);
        let mut spec = fixture::service(1, ServiceMode::Global).spec;
        let mut fit = |ports: &[(u16, Protocol, PublishMode)]| {
            let ports = ports.iter().map(|(target_port, protocol, publish_mode)| PortConfig {
                name: String::new(),
                protocol: *protocol,
                target_port: *target_port,
                published_port: 0,
                publish_mode: *publish_mode,
            });
            spec.endpoint = Some(EndpointSpec { ports: ports.collect(), ..EndpointSpec::default() });
            fits(&BTreeSet::from([80]), &view, &spec).map_err(|refusal| refusal.reason)
        };
        let (mesh, host) = (PublishMode::Ingress, PublishMode::Host);
        assert_eq!(fit(&[(80, Protocol::Tcp, mesh), (80, Protocol::Udp, host)]), Ok(()));
        assert_eq!(fit(&[(80, Protocol::Tcp, mesh), (80, Protocol::Tcp, mesh)]), Ok(()));
        let unpublished = Err("80/tcp is no port that the service publishes".to_owned());
        assert_eq!(fit(&[]), unpublished);
        assert_eq!(fit(&[(81, Protocol::Tcp, mesh)]), unpublished);
        assert_eq!(fit(&[(80, Protocol::Udp, mesh)]), unpublished);
        let by_host = Err("80/tcp is published in mode host, where there is no header".to_owned());
        assert_eq!(fit(&[(80, Protocol::Tcp, host)]), by_host);
        assert_eq!(fit(&[(80, Protocol::Tcp, mesh), (80, Protocol::Tcp, host)]), by_host);
    }
}
