//! Configs: like secrets, but anybody may read them back.

use serde::{Deserialize, Serialize};

use super::{Driver, Labels, Meta};
use crate::id::ConfigId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub id: ConfigId,
    pub meta: Meta,
    pub spec: ConfigSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigSpec {
    pub name: String,
    pub labels: Labels,
    /// 1 to 1,023,999 bytes.
    pub data: Vec<u8>,
    /// `golang`: the payload is a template.
    pub templating: Option<Driver>,
}
