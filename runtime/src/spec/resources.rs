//! `linux.resources`: the limits of the container's cgroup.

use serde::{Deserialize, Serialize};

/// Limits of the container's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {}
