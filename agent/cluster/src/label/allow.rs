//! `ketch.allow=<service>:<ports>[/<proto>],...`: who reaches which ports of a service's tasks; all others reach none.
//!
//! - `<service>` is a service by its name, or `*`: anybody who has a way to the task. Of a service of a stack (label
//!   `com.docker.stack.namespace`) a name is first one of the same stack: `web` is `shop_web` where there is such a service, and
//!   only otherwise a service that is named `web`.
//! - `<ports>` is a port of the task (not a published one), or a range `8000-8010`, both ends in it.
//! - `<proto>` is `tcp`, `udp` or `sctp`; `tcp` when there is none.
//! - An empty value allows nobody anything. The service's own tasks are no exception.
//!
//! It owns the grammar; what it means for packets is the node's matter.

use std::ops::RangeInclusive;

use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::{Labels, ServiceSpec};
use crate::view::View;

use super::{Refusal, STACK, is_in_host};

pub const LABEL: &str = "ketch.allow";

/// Most entries of a service: each is rules at each of its tasks.
const MAX_ENTRIES: usize = 256;

/// Who is allowed what. No entry: nobody anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allow {
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub from: Source,
    /// Of the task.
    pub ports: RangeInclusive<u16>,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Anybody,
    /// The tasks of one of these services: of the first name that a service has.
    Service(Vec<String>),
}

/// What the labels of a service say.
///
/// # Errors
/// The first entry that can't be read.
pub fn parse(labels: &Labels) -> Result<Option<Allow>, Refusal> {
    let Some(text) = labels.get(LABEL) else { return Ok(None) };
    let stack = labels.get(STACK).map(String::as_str);
    let texts: Vec<_> = text.split(',').map(str::trim).collect();
    if texts == [""] {
        return Ok(Some(Allow::default()));
    }
    if texts.len() > MAX_ENTRIES {
        return Err(refused(format!("has {} entries, and may have {MAX_ENTRIES}", texts.len())));
    }
    let entries = texts.into_iter().map(|text| entry(text, stack)).collect::<Result<_, _>>()?;
    Ok(Some(Allow { entries }))
}

/// The same where nothing can be refused any more: what can't be read allows nobody anything.
#[must_use]
pub fn in_force(labels: &Labels) -> Option<Allow> {
    parse(labels).unwrap_or_else(|_| Some(Allow::default()))
}

/// Whether the rest of the service goes with it.
pub(super) fn fits(
    allow: &Allow,
    view: &View<'_>,
    spec: &ServiceSpec,
    before: Option<&ServiceSpec>,
) -> Result<(), Refusal> {
    if is_in_host(view, spec) {
        return Err(refused("a service of the network host has no ports of its own".to_owned()));
    }
    let mut added = spec.task.container().into_iter().flat_map(|container| &container.cap_add);
    let opens = |capability: &&String| {
        let name = capability.to_ascii_uppercase();
        matches!(name.trim_start_matches("CAP_"), "NET_ADMIN" | "ALL")
    };
    match added.find(opens) {
        Some(capability) => {
            Err(refused(format!("a service with the capability {capability} can open its ports itself")))
        }
        // A service that has it is updated all the same: it came before this was refused.
        None if before.is_some_and(|it| it.labels.get(LABEL) == spec.labels.get(LABEL)) => Ok(()),
        None => names_can_come(allow, view, spec),
    }
}

/// Whether tasks of other services reach it by an address that is known for theirs: in a network that they may share. In a bridge of the
/// node, where the tasks of a service without networks are, nobody is known by his service.
fn names_can_come(allow: &Allow, view: &View<'_>, spec: &ServiceSpec) -> Result<(), Refusal> {
    let named = allow.entries.iter().find_map(|entry| match &entry.from {
        Source::Service(names) => names.last(),
        Source::Anybody => None,
    });
    let mut networks = spec.task.networks.iter().filter_map(|it| view.network(it.target));
    let mut published = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let is_shared = networks.any(|network| network.spec.is_overlay())
        || published.any(|port| port.publish_mode == PublishMode::Ingress);
    match named.filter(|_| !is_shared) {
        Some(name) => Err(refused(format!("{name:?} can't come to a service that is in no overlay network"))),
        None => Ok(()),
    }
}

fn entry(text: &str, stack: Option<&str>) -> Result<Entry, Refusal> {
    let wrong = |why: &str| refused(format!("{text:?} {why}, such as web:80/tcp"));
    let (from, rest) = text.split_once(':').ok_or_else(|| wrong("is no service with its ports"))?;
    let (ports, protocol) = rest.split_once('/').unwrap_or((rest, "tcp"));
    Ok(Entry {
        from: source(from, stack).ok_or_else(|| wrong("does not begin with a service's name or *"))?,
        ports: range(ports).ok_or_else(|| wrong("has no port from 1 to 65535, or range of them"))?,
        protocol: match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(wrong("has a protocol that is none of tcp, udp and sctp")),
        },
    })
}

fn source(name: &str, stack: Option<&str>) -> Option<Source> {
    if name == "*" {
        return Some(Source::Anybody);
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 63 || !name.bytes().all(fits) {
        return None;
    }
    let of_stack = stack.map(|stack| format!("{stack}_{name}"));
    Some(Source::Service(of_stack.into_iter().chain([name.to_owned()]).collect()))
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// Digits only: a sign is none.
fn port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

fn refused(reason: String) -> Refusal {
    Refusal::new(LABEL, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::from([(LABEL.to_owned(), text.to_owned())])
    }

    fn of_service(name: &str) -> Source {
        Source::Service(vec![name.to_owned()])
    }

    #[test]
    fn entries_name_a_service_its_ports_and_a_protocol() {
        let tcp = |from, ports| Entry { from, ports, protocol: Protocol::Tcp };
        let allowed = parse(&labels("web:80/tcp, job-1:8000-8010/udp,*:443,web:81")).unwrap().unwrap();
        let second = Entry { from: of_service("job-1"), ports: 8000..=8010, protocol: Protocol::Udp };
        let wanted = [
            tcp(of_service("web"), 80..=80),
            second,
            tcp(Source::Anybody, 443..=443),
            tcp(of_service("web"), 81..=81),
        ];
        assert_eq!(allowed.entries, wanted);
    }

    #[test]
    fn without_the_label_all_is_open_and_with_an_empty_one_nothing() {
        assert_eq!(parse(&Labels::new()), Ok(None));
        for empty in ["", " "] {
            assert_eq!(parse(&labels(empty)), Ok(Some(Allow::default())));
        }
    }

    #[test]
    fn in_a_stack_a_name_is_first_one_of_the_stack() {
        let mut labels = labels("web:80,*:1");
        let _none = labels.insert(STACK.to_owned(), "shop".to_owned());
        let froms: Vec<_> = parse(&labels).unwrap().unwrap().entries.into_iter().map(|it| it.from).collect();
        let names = ["shop_web", "web"].map(str::to_owned).to_vec();
        assert_eq!(froms, [Source::Service(names), Source::Anybody]);
    }

    #[test]
    fn what_can_not_be_read_is_told_and_allows_nobody() {
        for (text, told) in [
            ("web", "\"web\" is no service with its ports, such as web:80/tcp"),
            ("web:80,", "\"\" is no service with its ports, such as web:80/tcp"),
            (":80", "\":80\" does not begin with a service's name or *, such as web:80/tcp"),
            ("we b:80", "\"we b:80\" does not begin with a service's name or *, such as web:80/tcp"),
            ("**:80", "\"**:80\" does not begin with a service's name or *, such as web:80/tcp"),
            ("web:", "\"web:\" has no port from 1 to 65535, or range of them, such as web:80/tcp"),
            ("web:0", "\"web:0\" has no port from 1 to 65535, or range of them, such as web:80/tcp"),
            ("web:+80", "\"web:+80\" has no port from 1 to 65535, or range of them, such as web:80/tcp"),
            ("web:65536", "\"web:65536\" has no port from 1 to 65535, or range of them, such as web:80/tcp"),
            ("web:9-8", "\"web:9-8\" has no port from 1 to 65535, or range of them, such as web:80/tcp"),
            ("web:8-", "\"web:8-\" has no port from 1 to 65535, or range of them, such as web:80/tcp"),
            (
                "web:80/icmp",
                "\"web:80/icmp\" has a protocol that is none of tcp, udp and sctp, such as web:80/tcp",
            ),
            ("web:80/", "\"web:80/\" has a protocol that is none of tcp, udp and sctp, such as web:80/tcp"),
        ] {
            let refusal = parse(&labels(text)).unwrap_err();
            assert_eq!(refusal.to_string(), format!("label ketch.allow: {told}"));
            assert_eq!(in_force(&labels(text)), Some(Allow::default()));
        }
    }

    #[test]
    fn entries_are_bounded() {
        let many = |count: usize| vec!["*:1"; count].join(",");
        assert!(parse(&labels(&many(MAX_ENTRIES))).is_ok());
        let told = parse(&labels(&many(MAX_ENTRIES + 1))).unwrap_err().to_string();
        assert_eq!(told, "label ketch.allow: has 257 entries, and may have 256");
    }

    proptest! {
        #[test]
        fn no_text_panics_or_opens_port_zero(text in "[*a-z0-9:/,+ -]{0,24}") {
            if let Ok(Some(allow)) = parse(&labels(&text)) {
                for entry in allow.entries {
                    prop_assert!(*entry.ports.start() > 0 && !entry.ports.is_empty());
                }
            }
        }
    }
}
