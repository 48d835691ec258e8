//! Which namespaces are made and which are joined, and by whom.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Caller, PlanError};
use crate::spec::{self, IdMapping, NamespaceType};

/// The namespaces of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// Namespaces to create.
    pub new: Vec<NamespaceType>,
    /// Namespaces to join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<NamespaceJoin>,
    /// User ids of the container's user namespace, new or joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// The lines of `timens_offsets` for a new time namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time_offsets: String,
}

/// A namespace that exists already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceJoin {
    /// Its kind.
    pub kind: NamespaceType,
    /// Its file.
    pub path: PathBuf,
}

impl NamespacePlan {
    /// The plan of `linux`'s namespaces; the mappings are those of its user namespace, new or joined.
    ///
    /// # Errors
    /// A kind of namespace that Linux does not have.
    pub fn new(
        linux: &spec::Linux,
        (uids, gids): (Vec<IdMapping>, Vec<IdMapping>),
    ) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        for namespace in &linux.namespaces {
            let kind = namespace.namespace_type().ok_or_else(|| PlanError::Unknown {
                field: "linux.namespaces.type",
                value: namespace.kind.clone(),
            })?;
            match namespace.join_path() {
                None => plan.new.push(kind),
                Some(path) => plan.join.push(NamespaceJoin { kind, path: path.into() }),
            }
        }
        plan.new.sort_unstable();
        plan.join.sort_by_key(|join| join_order(join.kind));
        if plan.has(NamespaceType::User) {
            plan.uid_mappings = uids;
            plan.gid_mappings = gids;
        }
        if plan.creates(NamespaceType::Time) {
            for (clock, offset) in &linux.time_offsets {
                plan.time_offsets.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
            }
        }
        Ok(plan)
    }

    /// Whether the container gets a new namespace of this kind.
    #[must_use]
    pub fn creates(&self, kind: NamespaceType) -> bool {
        self.new.contains(&kind)
    }

    /// The namespace of this kind that the container joins.
    #[must_use]
    pub fn joins(&self, kind: NamespaceType) -> Option<&NamespaceJoin> {
        self.join.iter().find(|join| join.kind == kind)
    }

    /// Whether the container's process can't be born by one clone of the runtime's: it joins namespaces and has a user
    /// namespace, which own them or not, or makes a time namespace that only the user namespace gives the right to.
    #[must_use]
    pub fn need_stage(&self, caller: Caller) -> bool {
        let makes_time = caller == Caller::User && self.creates(NamespaceType::Time);
        self.joins(NamespaceType::User).is_some()
            || (self.creates(NamespaceType::User) && (!self.join.is_empty() || makes_time))
    }

    /// Whether the container has a namespace of this kind other than the runtime's own.
    #[must_use]
    pub fn has(&self, kind: NamespaceType) -> bool {
        self.creates(kind) || self.joins(kind).is_some()
    }
}

/// A user namespace first, as it gives the right to join what it owns; the mount namespace last, as it takes the
/// paths of this mount namespace away.
fn join_order(kind: NamespaceType) -> u8 {
    match kind {
        NamespaceType::User => 0,
        NamespaceType::Mount => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(namespaces: &[(&str, &str)]) -> NamespacePlan {
        let namespaces = namespaces
            .iter()
            .map(|(kind, path)| spec::Namespace { kind: (*kind).to_owned(), path: (*path).to_owned() })
            .collect();
        NamespacePlan::new(&spec::Linux { namespaces, ..spec::Linux::default() }, (Vec::new(), Vec::new()))
            .unwrap()
    }

    #[test]
    fn a_stage_is_for_what_one_clone_cannot_do() {
        for (namespaces, by_root, by_user) in [
            (&[("mount", ""), ("network", "/n")][..], false, false),
            (&[("user", ""), ("network", "")], false, false),
            (&[("user", ""), ("network", "/n")], true, true),
            (&[("user", "/u"), ("mount", "")], true, true),
            (&[("user", ""), ("pid", "/p")], true, true),
            (&[("mount", ""), ("pid", "/p")], false, false),
            (&[("user", ""), ("time", "")], false, true),
        ] {
            let plan = plan(namespaces);
            assert_eq!(plan.need_stage(Caller::Root), by_root, "{namespaces:?}");
            assert_eq!(plan.need_stage(Caller::User), by_user, "{namespaces:?}");
        }
    }
}
