//! `linux.seccomp`: the system call filter.

use serde::{Deserialize, Serialize};

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {}
