//! `linux`: what only Linux has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::json::{is_default, null_is_default, object, object_map, objects};
use super::{IdMapping, Namespace, NamespaceType, Resources, Seccomp};

/// The Linux part of the configuration
/// ([config-linux.md](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md)).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// User ids of a new user namespace.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters, by their dotted (or slashed) names.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub sysctl: BTreeMap<String, String>,
    /// Limits of the container's cgroup.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The container's cgroup; empty for the runtime's own choice.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub cgroups_path: String,
    /// Namespaces to create or to join.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub namespaces: Vec<Namespace>,
    /// Device nodes besides the default ones.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,
    /// Network devices to move into the container, by their name on the host.
    #[serde(deserialize_with = "object_map", skip_serializing_if = "is_default")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// System call filter.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// Propagation of the root mount; empty for the default.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub rootfs_propagation: String,
    /// Paths that are hidden.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub masked_paths: Vec<String>,
    /// Paths that are read-only.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub readonly_paths: Vec<String>,
    /// SELinux label of the mounts; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub mount_label: String,
    /// Intel Resource Director Technology.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// NUMA memory policy.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Execution domain.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// Clock offsets of a new time namespace, by clock (`monotonic`, `boottime`).
    #[serde(deserialize_with = "object_map", skip_serializing_if = "is_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

impl Linux {
    /// The entry for namespaces of `kind`, if the container has one.
    #[must_use]
    pub fn namespace(&self, kind: NamespaceType) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.namespace_type() == Some(kind))
    }
}

/// A device node to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Path inside the container.
    #[serde(deserialize_with = "null_is_default")]
    pub path: String,
    /// `c` or `u`, `b`, or `p`.
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub kind: String,
    /// Major number.
    #[serde(deserialize_with = "null_is_default")]
    pub major: i64,
    /// Minor number.
    #[serde(deserialize_with = "null_is_default")]
    pub minor: i64,
    /// Permission bits; runc's 0666 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner inside the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group inside the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network device of the host that moves into the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name in the container; empty to keep the one it has.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub name: String,
}

/// Intel Resource Director Technology (resctrl).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdt {
    /// Class of service; empty for one named after the container.
    #[serde(rename = "closID", deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub clos_id: String,
    /// Lines of the schemata file, in place of the two older fields.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub schemata: Vec<String>,
    /// L3 cache schema.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub l3_cache_schema: String,
    /// Memory bandwidth schema.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub mem_bw_schema: String,
    /// Whether the container gets a monitoring group.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub enable_monitoring: bool,
}

/// NUMA memory policy, see set_mempolicy(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPolicy {
    /// Mode, as `MPOL_BIND`.
    #[serde(deserialize_with = "null_is_default")]
    pub mode: String,
    /// Nodes, as `0-3,7`.
    #[serde(deserialize_with = "null_is_default")]
    pub nodes: String,
    /// Mode flags, as `MPOL_F_STATIC_NODES`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
}

/// Execution domain, see personality(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    #[serde(deserialize_with = "null_is_default")]
    pub domain: String,
    /// Flags; none is defined.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
}

/// Offset of a clock in a time namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub secs: i64,
    /// Nanoseconds on top.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub nanosecs: u32,
}
