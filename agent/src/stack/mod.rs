//! A Compose file of version 3 as the requests that `docker stack deploy` would make of it: plain data in, plain data out.
//!
//! [`yaml`] reads the text, [`interpolate`] fills variables in, [`service`] and [`parts`] write what the Engine API has for
//! services, networks, secrets and configs. `ketchd cluster simulate` reads a file by it and sends it; the route there makes the
//! requests in a copy of the cluster. What a stack can't have is refused with its place, and so are `credential_spec` and `isolation`,
//! which are Windows' alone; what `docker stack deploy` passes over (`build`, `container_name`, ...) is passed over.

mod interpolate;
mod parts;
mod service;
mod simulated;
mod value;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use simulated::Simulated;
pub use value::StackError;
use value::{Place, keys};

/// What Docker's client marks all parts of a stack with.
pub const NAMESPACE: &str = "com.docker.stack.namespace";
/// And a service with the image as the file names it.
pub const IMAGE: &str = "com.docker.stack.image";

/// What keeps to nothing here: of Compose itself, or of the machine that builds.
const PASSED_OVER: [&str; 4] = ["version", "name", "x-", "volumes"];

/// The requests, in the Engine API's own form.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stack {
    pub name: String,
    /// Services of the stack that are not in the file are to be removed.
    pub prune: bool,
    pub networks: Vec<Value>,
    pub secrets: Vec<Value>,
    pub configs: Vec<Value>,
    pub services: Vec<Value>,
}

/// Without the data of secrets.
impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is around the file.
#[derive(Debug)]
pub struct Around<'a> {
    /// Paths in it begin here.
    pub folder: &'a Path,
    pub environment: &'a BTreeMap<String, String>,
}

impl Stack {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is no YAML, or nothing that a stack can have.
    pub fn read(name: &str, text: &str, around: &Around<'_>) -> Result<Self, StackError> {
        let mut file = yaml::parse(text)?;
        interpolate::fill(&mut file, around.environment)?;
        let root = Place::root(&file);
        for key in keys(&root)? {
            let is_known = ["services", "networks", "secrets", "configs"].contains(&key.as_str());
            let is_passed =
                PASSED_OVER.iter().any(|it| key == *it || (it.ends_with('-') && key.starts_with(it)));
            if !(is_known || is_passed) {
                return Err(root.at(&key).unknown());
            }
        }
        let networks = parts::Networks::read(name, &root)?;
        let services = root.get("services").map(|services| -> Result<Vec<Value>, StackError> {
            let named = keys(&services)?;
            named.iter().map(|key| service::read(name, &services.at(key), &root, &networks, around)).collect()
        });
        Ok(Self {
            name: name.to_owned(),
            prune: false,
            networks: networks.requests(),
            secrets: parts::payloads(name, "secrets", &root, around)?,
            configs: parts::payloads(name, "configs", &root, around)?,
            services: services.unwrap_or_else(|| Ok(Vec::new()))?,
        })
    }
}

#[cfg(test)]
mod tests;
