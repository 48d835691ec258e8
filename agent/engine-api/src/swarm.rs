//! The swarm's objects: what its clients send and what they are shown. A file for each kind.
//!
//! Counts and amounts that clients may send negative are `i64`: whoever makes objects of them refuses those. Spans are numbers
//! of nanoseconds, moments RFC 3339 with nanoseconds, bytes base64. What holds a secret shows none of it to `Debug`.

pub mod cluster;
pub mod container;
pub mod endpoint;
pub mod network;
pub mod node;
pub mod payload;
pub mod service;
pub mod task;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Strings by name.
pub type Map = BTreeMap<String, String>;

/// A moment: RFC 3339.
pub type Moment = String;

/// Go's zero time: what has not been.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whether Go leaves the list out: there is none, or nothing in it.
fn is_blank<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn is_blank_map(map: &Option<Map>) -> bool {
    map.as_ref().is_none_or(Map::is_empty)
}

/// The number that an object has in the cluster's log: what an update names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// Left out when it is 0.
    #[serde(rename = "Index", skip_serializing_if = "is_default")]
    pub index: u64,
}

/// What every object has, next to its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Meta {
    pub version: Version,
    pub created_at: Moment,
    pub updated_at: Moment,
}

/// The name and labels of whatever a user may name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Annotations {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Shown as `{}` when there are none.
    pub labels: Option<Map>,
}

/// A driver by name, with its options.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Driver {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "is_blank_map")]
    pub options: Option<Map>,
}

/// Without the options' values: passwords are among them.
impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which authority signed, and which is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TlsInfo {
    /// PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_root: String,
    /// DER, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_issuer_subject: String,
    /// DER, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_issuer_public_key: String,
}

/// The answer of whatever creates an object other than a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdResponse {
    #[serde(rename = "ID")]
    pub id: String,
}
