//! What of a container can't be brought back, whoever saves it: asked before a restore, and before a checkpoint ends the
//! container.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::plan::landlock;
use crate::spec::{Namespace, NamespaceType};

/// Why a container can't come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// Its processes would come back without their rules, and nothing would say so.
    #[error(
        "with Landlock rules (criu knows none: it has to be created without the annotation {})",
        landlock::ANNOTATION
    )]
    Landlock,
    /// Its processes would be in the root group.
    #[error("with Intel RDT (linux.intelRdt)")]
    IntelRdt,
    /// There is nothing to mount its root in.
    #[error("without a mount namespace")]
    NoMountNamespace,
    /// criu makes this one anew in any case.
    #[error("in another's {0} namespace (linux.namespaces has a path for it)")]
    Joined(&'static str),
}

impl Obstacle {
    /// The first one of a container with these annotations and namespaces.
    #[must_use]
    pub fn of(
        annotations: &BTreeMap<&str, &str>,
        namespaces: &[Namespace],
        has_intel_rdt: bool,
    ) -> Option<Self> {
        let named = |kind| namespaces.iter().find(|namespace| namespace.namespace_type() == Some(kind));
        if annotations.contains_key(landlock::ANNOTATION) {
            return Some(Self::Landlock);
        }
        if has_intel_rdt {
            return Some(Self::IntelRdt);
        }
        if named(NamespaceType::Mount).is_none() {
            return Some(Self::NoMountNamespace);
        }
        let joined = |kind: &NamespaceType| named(*kind).is_some_and(|found| found.join_path().is_some());
        [NamespaceType::Mount, NamespaceType::Cgroup]
            .into_iter()
            .find(joined)
            .map(|kind| Self::Joined(kind.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obstacle(annotation: &str, namespaces: &[(&str, &str)], has_intel_rdt: bool) -> Option<Obstacle> {
        let namespaces: Vec<Namespace> = namespaces
            .iter()
            .map(|(kind, path)| Namespace { kind: (*kind).to_owned(), path: (*path).to_owned() })
            .collect();
        Obstacle::of(&BTreeMap::from([(annotation, "{}")]), &namespaces, has_intel_rdt)
    }

    #[test]
    fn what_criu_knows_nothing_of_is_in_the_way() {
        let own = [("mount", ""), ("cgroup", ""), ("network", "/n"), ("pid", "/p"), ("ipc", "/i")];
        assert_eq!(obstacle("org.criu.config", &own, false), None);
        assert_eq!(obstacle("org.ketch.landlock", &own, false), Some(Obstacle::Landlock));
        assert_eq!(obstacle("a", &own, true), Some(Obstacle::IntelRdt));
        assert_eq!(obstacle("a", &[("pid", "")], false), Some(Obstacle::NoMountNamespace));
        assert_eq!(obstacle("a", &[("mount", "/m")], false), Some(Obstacle::Joined("mount")));
        assert_eq!(
            obstacle("a", &[("mount", ""), ("cgroup", "/c")], false),
            Some(Obstacle::Joined("cgroup"))
        );
        assert!(Obstacle::Landlock.to_string().contains("the annotation org.ketch.landlock"));
    }
}
