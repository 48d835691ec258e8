//! `hooks`: commands that run at points of the container's life.

use serde::{Deserialize, Serialize};

use super::json::{is_default, null_is_default, objects};

/// The six lists of hooks, each run in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Runtime namespace, before the container's process runs. Deprecated by the specification.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub prestart: Vec<Hook>,
    /// Runtime namespace, after the namespaces exist and before pivot_root.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub create_runtime: Vec<Hook>,
    /// Container namespace, before pivot_root.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub create_container: Vec<Hook>,
    /// Container namespace, after `start` and before the program.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub start_container: Vec<Hook>,
    /// Runtime namespace, after the program runs.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub poststart: Vec<Hook>,
    /// Runtime namespace, after the container is deleted.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub poststop: Vec<Hook>,
}

/// One command, fed with the container's state on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the program.
    #[serde(deserialize_with = "null_is_default")]
    pub path: String,
    /// Its whole argument vector, the program's name first.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// Seconds before it is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
