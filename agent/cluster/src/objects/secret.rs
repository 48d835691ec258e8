//! Secrets: small files that only nodes with a task that uses them are given.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Driver, Labels, Meta};
use crate::id::SecretId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub id: SecretId,
    pub meta: Meta,
    pub spec: SecretSpec,
    /// Made by the cluster for itself: not shown, not to be removed by a user.
    #[serde(default)]
    pub internal: bool,
    /// Another one has its name, or is to have it. It is shown to nobody, and kept for what still names it by its id.
    #[serde(default)]
    pub superseded: bool,
}

#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretSpec {
    pub name: String,
    pub labels: Labels,
    /// 1 to 511,999 bytes; empty when a driver gives it.
    pub data: Vec<u8>,
    /// `golang`: the payload is a template.
    pub templating: Option<Driver>,
    pub driver: Option<Driver>,
}

/// Without the data, so that no log line can have it.
impl fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSpec")
            .field("name", &self.name)
            .field("labels", &self.labels)
            .field("data", &format_args!("{} bytes", self.data.len()))
            .field("templating", &self.templating)
            .field("driver", &self.driver)
            .finish()
    }
}
