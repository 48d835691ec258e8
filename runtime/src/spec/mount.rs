//! `mounts`: what is mounted on top of the root.

use serde::{Deserialize, Serialize};

use super::IdMapping;
use super::json::{is_default, null_is_default, objects};

/// One mount, in the words of fstab(5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Where in the container.
    #[serde(deserialize_with = "null_is_default")]
    pub destination: String,
    /// Filesystem type; empty or `bind` or `none` for bind mounts.
    #[serde(rename = "type", deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub kind: String,
    /// Device name, or the path that is bound (absolute or relative to the bundle).
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub source: String,
    /// Options: flags, propagation, recursive attributes, data for the filesystem.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub options: Vec<String>,
    /// User ids of an id-mapped mount.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an id-mapped mount.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<IdMapping>,
}
