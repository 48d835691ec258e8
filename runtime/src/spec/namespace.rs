//! `linux.namespaces` and the id mappings of user namespaces.

use serde::{Deserialize, Serialize};

use super::json::{is_default, null_is_default};

/// A namespace that the container gets: a new one, or the one at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// One of [`NamespaceType`]'s names.
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub kind: String,
    /// Namespace file to join; empty for a new namespace.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub path: String,
}

/// The kinds of namespaces that the runtime-spec knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceType {
    /// Control groups.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mount points.
    Mount,
    /// Network stack.
    Network,
    /// Process ids.
    Pid,
    /// Clock offsets.
    Time,
    /// User and group ids.
    User,
    /// Host and domain name.
    Uts,
}

impl NamespaceType {
    /// Every kind, sorted by name, as `features` lists them.
    pub const ALL: [Self; 8] =
        [Self::Cgroup, Self::Ipc, Self::Mount, Self::Network, Self::Pid, Self::Time, Self::User, Self::Uts];

    /// The runtime-spec's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mount => "mount",
            Self::Network => "network",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    /// The file below `/proc/<pid>/ns`.
    #[must_use]
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Network => "net",
            other => other.name(),
        }
    }

    /// The kind with this runtime-spec name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Namespace {
    /// The namespace's kind, if the specification knows it.
    #[must_use]
    pub fn namespace_type(&self) -> Option<NamespaceType> {
        NamespaceType::from_name(&self.kind)
    }

    /// The namespace file to join, if this is not a new namespace.
    #[must_use]
    pub fn join_path(&self) -> Option<&str> {
        (!self.path.is_empty()).then_some(self.path.as_str())
    }
}

/// A range of ids of a user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID", deserialize_with = "null_is_default")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID", deserialize_with = "null_is_default")]
    pub host_id: u32,
    /// Number of ids.
    #[serde(deserialize_with = "null_is_default")]
    pub size: u32,
}

impl IdMapping {
    /// The outside id of `inside` in `mappings`.
    #[must_use]
    pub fn host_id_of(mappings: &[Self], inside: u32) -> Option<u32> {
        mappings.iter().find_map(|mapping| {
            let offset = inside.checked_sub(mapping.container_id)?;
            if offset < mapping.size { mapping.host_id.checked_add(offset) } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in NamespaceType::ALL {
            assert_eq!(NamespaceType::from_name(kind.name()), Some(kind));
        }
        assert_eq!(NamespaceType::from_name("net"), None);
    }

    #[test]
    fn host_ids_follow_the_mappings() {
        let mappings = [
            IdMapping { container_id: 0, host_id: 1000, size: 1 },
            IdMapping { container_id: 1, host_id: 100_000, size: 65536 },
            IdMapping { container_id: 4_000_000_000, host_id: u32::MAX, size: 10 },
        ];
        assert_eq!(IdMapping::host_id_of(&mappings, 0), Some(1000));
        assert_eq!(IdMapping::host_id_of(&mappings, 65536), Some(165_535));
        assert_eq!(IdMapping::host_id_of(&mappings, 65537), None);
        assert_eq!(IdMapping::host_id_of(&mappings, 4_000_000_001), None);
    }
}
