//! The labels `ketch.*` of a service: what they ask for beyond Docker, read once, or why they are refused.
//!
//! One file for each label or family of labels under [`label`](self); each owns its key, its grammar and its texts. `control`
//! refuses a service by [`checked`] and [`Labels::fit`] at its creation and update; reconcilers and nodes read the same labels by
//! the parser of their own, of services that have passed this door. It must not act on any of them. A service without such labels
//! is Docker's: nothing here says anything of it.

pub mod allow;
pub mod depends_on;
pub mod prefer_local;
pub mod priority;
pub mod proxy;
pub mod publish;
pub mod rebalance;
pub mod roll_on_change;
pub mod scale;
pub mod schedule;

use std::collections::BTreeSet;

use crate::objects::{Labels as Raw, ServiceSpec};
use crate::orchestrator::fence;
use crate::view::View;

use allow::Allow;
use publish::Publish;

/// What all labels that are ours begin with.
const PREFIX: &str = "ketch.";

/// By this label clients mark what belongs to a stack, whose services are called `<stack>_<name>`.
pub const STACK: &str = "com.docker.stack.namespace";

/// Every label that a service may have of ours.
const KNOWN: [&str; 21] = [
    allow::LABEL,
    depends_on::LABEL,
    fence::LABEL,
    prefer_local::LABEL,
    priority::LABEL,
    publish::FROM,
    publish::IP,
    proxy::LABEL,
    rebalance::LABEL,
    roll_on_change::LABEL,
    scale::CPU,
    scale::MAX,
    scale::MEMORY,
    scale::MIN,
    scale::REQUESTS,
    scale::WINDOW,
    schedule::LABEL,
    schedule::HISTORY,
    schedule::MISSED,
    schedule::OVERLAP,
    schedule::ZONE,
];

/// What the labels of a service ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    pub allow: Option<Allow>,
    pub publish: Publish,
    /// Ports of the task before whose connections the client's address is told.
    pub proxied: BTreeSet<u16>,
}

/// A label that can't be read, or that contradicts the rest of its service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label {label}: {reason}")]
pub struct Refusal {
    pub label: String,
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(label: &str, reason: impl ToString) -> Self {
        Self { label: label.to_owned(), reason: reason.to_string() }
    }
}

/// Reads each label that is ours.
///
/// # Errors
/// The first one that is not known, or can't be read.
pub fn checked(labels: &Raw) -> Result<Labels, Refusal> {
    all_known(labels)?;
    fence::parse(labels).map_err(|reason| Refusal::new(fence::LABEL, reason))?;
    prefer_local::parse(labels)?;
    priority::parse(labels)?;
    rebalance::parse(labels)?;
    depends_on::parse(labels)?;
    roll_on_change::parse(labels)?;
    schedule::parse(labels)?;
    scale::parse(labels)?;
    Ok(Labels {
        allow: allow::parse(labels)?,
        publish: publish::parse(labels)?,
        proxied: proxy::parse(labels)?,
    })
}

impl Labels {
    /// Whether they go with the rest of the service, which has had `before` if it is updated.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn fit(
        &self,
        view: &View<'_>,
        spec: &ServiceSpec,
        before: Option<&ServiceSpec>,
    ) -> Result<(), Refusal> {
        if let Some(allow) = &self.allow {
            allow::fits(allow, view, spec, before)?;
        }
        depends_on::fits(view, spec)?;
        rebalance::fits(spec)?;
        schedule::fits(spec)?;
        scale::fits(view, spec)?;
        proxy::fits(&self.proxied, view, spec)?;
        self.publish.fits(view, spec)
    }
}

/// What is `true` or `false`, and false without the label.
fn switch(labels: &Raw, label: &str) -> Result<bool, Refusal> {
    match labels.get(label).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Refusal::new(label, format!("{other:?} is neither true nor false"))),
    }
}

/// Whether its tasks have the network of their nodes.
fn is_in_host(view: &View<'_>, spec: &ServiceSpec) -> bool {
    let mut networks = spec.task.networks.iter().filter_map(|it| view.network(it.target));
    networks.any(|network| network.spec.driver_name() == "host")
}

fn all_known(labels: &Raw) -> Result<(), Refusal> {
    let is_strange = |key: &&String| key.starts_with(PREFIX) && !KNOWN.contains(&key.as_str());
    match labels.keys().find(is_strange) {
        None => Ok(()),
        Some(key) => Err(Refusal::new(key, format!("is not known; a service may have {}", KNOWN.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(key: &str, value: &str) -> Raw {
        Raw::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_service_of_docker_asks_for_nothing() {
        assert_eq!(checked(&Raw::new()), Ok(Labels::default()));
        for key in ["com.docker.stack.namespace", "ketch", "ketchup.allow", "KETCH.allow"] {
            assert_eq!(checked(&labels(key, "x")), Ok(Labels::default()), "{key}");
        }
    }

    #[test]
    fn a_label_of_ours_that_is_not_known_is_refused_with_those_that_are() {
        let told = checked(&labels("ketch.alow", "web:80")).unwrap_err().to_string();
        assert_eq!(
            told,
            "label ketch.alow: is not known; a service may have ketch.allow, ketch.depends_on, ketch.fence, ketch.mesh.prefer-local, \
             ketch.priority, ketch.publish.from, ketch.publish.ip, ketch.publish.proxy, ketch.rebalance, ketch.roll_on_change, \
             ketch.scale.cpu, ketch.scale.max, ketch.scale.memory, ketch.scale.min, ketch.scale.requests, ketch.scale.window, ketch.schedule, \
             ketch.schedule.history, ketch.schedule.missed, ketch.schedule.overlap, ketch.schedule.zone"
        );
        assert!(KNOWN.is_sorted(), "they are told in order");
    }

    #[test]
    fn each_label_is_read_by_its_parser() {
        for (key, good, bad) in [
            ("ketch.allow", "web:80/tcp", "web"),
            ("ketch.depends_on", "db:healthy,cache", "db:soon"),
            ("ketch.fence", "90s", "soon"),
            ("ketch.mesh.prefer-local", "true", "yes"),
            ("ketch.priority", "-7", "high"),
            ("ketch.publish.from", "10.0.0.0/8", "10.0.0.0/33"),
            ("ketch.publish.ip", "eth1", "/dev/null"),
            ("ketch.publish.proxy", "80/tcp", "80/udp"),
            ("ketch.rebalance", "true", "1"),
            ("ketch.roll_on_change", "true", "on"),
            ("ketch.schedule", "@daily", "daily"),
        ] {
            assert!(checked(&labels(key, good)).is_ok(), "{key}={good}");
            let refusal = checked(&labels(key, bad)).unwrap_err();
            assert_eq!(refusal.label, key, "{refusal}");
        }
    }
}
