//! Configs: like secrets, but anybody may read them back.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Driver, Labels, Meta};
use crate::id::ConfigId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub id: ConfigId,
    pub meta: Meta,
    pub spec: ConfigSpec,
    /// Another one has its name, or is to have it. It is shown to nobody, and kept for what still names it by its id.
    #[serde(default)]
    pub superseded: bool,
}

#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigSpec {
    pub name: String,
    pub labels: Labels,
    /// 1 to 1,023,999 bytes.
    pub data: Vec<u8>,
    /// `golang`: the payload is a template.
    pub templating: Option<Driver>,
}

/// Without the data: it is large, and what users put there is not the log's.
impl fmt::Debug for ConfigSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSpec")
            .field("name", &self.name)
            .field("labels", &self.labels)
            .field("data", &format_args!("{} bytes", self.data.len()))
            .field("templating", &self.templating)
            .finish()
    }
}
