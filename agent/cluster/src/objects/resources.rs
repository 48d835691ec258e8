//! CPU, memory and generic resources: what a node has, what a task reserves and is limited to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// An amount of each resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    pub generic: Vec<GenericResource>,
}

/// A resource that an administrator names: so many of it, or its instances by name. A reservation is always a count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GenericResource {
    Count { kind: String, amount: u64 },
    Named { kind: String, values: BTreeSet<String> },
}

impl GenericResource {
    /// Its name: `GPU`.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Count { kind, .. } | Self::Named { kind, .. } => kind,
        }
    }

    /// How many of it.
    #[must_use]
    pub fn amount(&self) -> u64 {
        match self {
            Self::Count { amount, .. } => *amount,
            Self::Named { values, .. } => values.len() as u64,
        }
    }
}

/// What a task reserves, and may use at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRequirements {
    pub limits: Limits,
    /// The scheduler counts these, and nothing else.
    pub reservations: Resources,
    /// Bytes; -1 is without bound.
    pub swap_bytes: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<i64>,
}

/// Zero is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    pub pids: u64,
}
