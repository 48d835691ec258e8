//! Containers: all of them, by id and name. What is done with one is in a file of its own: `create`, `lifecycle` (start and
//! what follows from an end), `signal` (kill, stop, restart, pause), `remove`, `exec`, `attach`, `wait`, `list`, `inspect`,
//! `copy`, `update`, `stats`, `top`, `checkpoint`, `log_entries`, `task` (of a cluster's service); `bundle` and what it uses are pure. `takeover` finds what an earlier daemon has left.
//!
//! Called by routes, and by the executor of a node's tasks. Each operation takes the daemon, as it needs images, networks and volumes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::compat;
use crate::error::{Error, Result};
use crate::locks::{locked, reading, writing};
use crate::shim::Launch;

pub mod apparmor;
pub mod attach;
pub mod bundle;
pub mod caps;
pub mod checkpoint;
pub mod connect;
pub mod container;
pub mod copy;
pub mod create;
mod deliver;
pub mod devices;
pub mod ending;
pub mod exec;
pub(crate) mod halt;
pub mod health;
pub mod host;
pub mod image_config;
mod image_mounts;
pub mod inspect;
mod leftovers;
pub mod lifecycle;
pub mod list;
mod living;
pub mod log_entries;
pub mod mounts;
pub mod name;
pub mod namespaces;
pub mod needs;
pub mod networking;
mod others;
mod places;
pub mod probe;
pub mod remove;
pub mod resources;
pub mod restart;
pub mod root;
pub mod seccomp;
pub mod security;
pub mod signal;
mod signal_number;
mod specification;
mod start_again;
pub mod stats;
pub mod streams;
pub mod takeover;
pub mod task;
pub mod top;
pub mod update;
pub mod used;
pub mod user_namespace;
pub mod users;
pub mod validate;
pub mod wait;
pub mod words;

pub use container::{Container, Record, State};

/// All containers and added processes.
#[derive(Debug)]
pub struct Engine {
    /// How shims are started.
    pub launch: Launch,
    /// What the host has.
    pub host: host::Host,
    /// What confines containers that say nothing.
    pub seccomp: security::DefaultSeccomp,
    known: RwLock<Known>,
    execs: Mutex<HashMap<String, Arc<exec::Exec>>>,
    /// Health checks so far, and those that have failed.
    probes: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<String, Arc<Container>>,
    by_name: HashMap<String, String>,
}

impl Engine {
    /// Without any container yet.
    #[must_use]
    pub fn new(launch: Launch, host: host::Host, seccomp: security::DefaultSeccomp) -> Self {
        Self {
            launch,
            host,
            seccomp,
            known: RwLock::default(),
            execs: Mutex::default(),
            probes: Default::default(),
        }
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        reading(&self.known)
    }

    fn known_mut(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        writing(&self.known)
    }

    /// All containers, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.known().by_id.values().cloned().collect()
    }

    /// The container of a full id, a name, or the beginning of one id only.
    ///
    /// # Errors
    /// None, or several: dockerd's texts.
    pub fn find(&self, text: &str) -> Result<Arc<Container>> {
        let known = self.known();
        if text.is_empty() {
            return Err(Error::invalid(format!("invalid name or ID supplied: {text:?}")));
        }
        if let Some(found) = known.by_id.get(text) {
            return Ok(Arc::clone(found));
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(found) = known.by_name.get(name).and_then(|id| known.by_id.get(id)) {
            return Ok(Arc::clone(found));
        }
        let mut found = known.by_id.values().filter(|container| container.id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(Arc::clone(one)),
            (None, _) => Err(Error::not_found(compat::no_such_container(text))),
            _ => Err(Error::invalid(format!("multiple IDs found with provided prefix: {text}"))),
        }
    }

    /// Takes a name for an id.
    ///
    /// # Errors
    /// Another container has it: dockerd's text.
    pub fn take_name(&self, name: &str, id: &str) -> Result<()> {
        let mut known = self.known_mut();
        match known.by_name.get(name) {
            Some(owner) if owner != id => Err(Error::conflict(compat::name_in_use(name, owner))),
            _ => {
                let _same = known.by_name.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back.
    pub fn leave_name(&self, name: &str, id: &str) {
        let mut known = self.known_mut();
        if known.by_name.get(name).is_some_and(|owner| owner == id) {
            let _owner = known.by_name.remove(name);
        }
    }

    /// Adds a container, whose name is taken already.
    pub fn add(&self, container: &Arc<Container>) {
        let _none = self.known_mut().by_id.insert(container.id.clone(), Arc::clone(container));
    }

    /// Forgets a container and its name.
    pub fn forget(&self, container: &Container) {
        let name = container.name();
        let mut known = self.known_mut();
        let _it = known.by_id.remove(&container.id);
        if known.by_name.get(&name).is_some_and(|owner| *owner == container.id) {
            let _owner = known.by_name.remove(&name);
        }
    }

    /// How many health checks there were, and how many have failed.
    #[must_use]
    pub fn probes(&self) -> (u64, u64) {
        let [all, failed] = &self.probes;
        (all.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// There was a health check.
    pub(super) fn count_probe(&self, failed: bool) {
        let [all, failures] = &self.probes;
        let _before = all.fetch_add(1, Ordering::Relaxed);
        let _before = failures.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// The added processes, by id.
    pub(super) fn execs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<exec::Exec>>> {
        locked(&self.execs)
    }
}
