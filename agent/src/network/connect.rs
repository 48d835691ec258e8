//! A running container comes into a further network, or out of one, or has another name.

use super::endpoint::check;
use super::link::Links;
use super::plug::Wiring;
use super::record::{Endpoint, Network, Sandbox};
use super::request::Connect;
use super::unlink::forget_ports;
use super::{Networks, namespace, refused};
use crate::error::{Error, Kind, Result};

impl Networks {
    /// Connects a running container to a further network.
    ///
    /// # Errors
    /// It is in it, an address can't be had, or the kernel's; nothing is left of it.
    pub fn connect(&self, name: &str, container: &str, wanted: impl Into<Connect>) -> Result<()> {
        let wanted = wanted.into();
        let mut state = self.state();
        let network = state.find(name)?.clone();
        let sandbox = state
            .sandboxes
            .get(container)
            .cloned()
            .ok_or_else(|| Error::conflict(format!("container {container} is not running")))?;
        if sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            let message =
                format!("endpoint with name {} already exists in network {}", sandbox.name, network.name);
            return Err(Error::new(Kind::Forbidden, message));
        }
        check(&network, &wanted.asked)?;
        let endpoint = state.endpoint(&sandbox, &network, wanted)?;
        let mut with = sandbox.clone();
        with.endpoints.push(endpoint);
        state.add_way_out(&mut with)?;
        self.remember(&mut state, with.clone())?;
        let wiring = state.rewiring(&with, &sandbox);
        drop(state);
        let done =
            wiring.and_then(|wiring| rewire(&with, &wiring, &[])).and_then(|()| self.after_change(container));
        if let Err(error) = done {
            if let Err(second) = self.unplug(container, &network) {
                tracing::warn!("undoing an endpoint of {container}: {second}");
            }
            return Err(error);
        }
        self.tell("connect", &network, Some(container));
        Ok(())
    }

    /// Takes a running container out of a network.
    ///
    /// # Errors
    /// It is not in it, or the kernel's.
    pub fn disconnect(&self, name: &str, container: &str) -> Result<()> {
        let state = self.state();
        let network = state.find(name)?.clone();
        let is_in = state
            .sandboxes
            .get(container)
            .is_some_and(|sandbox| sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id));
        if !is_in {
            let message = format!("container {container} is not connected to network {name}");
            return Err(Error::new(Kind::Forbidden, message));
        }
        drop(state);
        self.unplug(container, &network)?;
        self.after_change(container)?;
        self.tell("disconnect", &network, Some(container));
        Ok(())
    }

    /// A running container has another name, which its networks' servers answer to from now on.
    ///
    /// # Errors
    /// The store's.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        let mut state = self.state();
        let Some(mut sandbox) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        self.forget_names(&sandbox);
        let before = std::mem::replace(&mut sandbox.name, name.to_owned());
        for own in sandbox.endpoints.iter_mut().flat_map(|endpoint| endpoint.names.iter_mut()) {
            if *own == before {
                name.clone_into(own);
            }
        }
        self.tell_names(&state, &sandbox);
        self.remember(&mut state, sandbox)
    }

    fn unplug(&self, container: &str, network: &Network) -> Result<()> {
        let state = self.state();
        let Some(before) = state.sandboxes.get(container).cloned() else { return Ok(()) };
        let mut sandbox = before.clone();
        sandbox.endpoints.retain(|endpoint| endpoint.network != network.id);
        state.drop_way_out(&mut sandbox);
        self.0.names.remove(container, &network.id);
        let wiring = state.rewiring(&sandbox, &before)?;
        drop(state);
        let stays = |endpoint: &&Endpoint| sandbox.endpoints.iter().any(|it| it.id == endpoint.id);
        let gone: Vec<&Endpoint> = before.endpoints.iter().filter(|endpoint| !stays(endpoint)).collect();
        rewire(&sandbox, &wiring, &gone)?;
        self.remember(&mut self.state(), sandbox)?;
        if network.is_overlay() {
            // Nothing new is led to it from now on, whatever the managers know of it.
            self.renew_overlays();
        }
        Ok(())
    }

    /// Ports, files and names follow the container's endpoints.
    fn after_change(&self, container: &str) -> Result<()> {
        let mut state = self.state();
        self.publish(&mut state, container)?;
        self.write_files(&mut state, container)?;
        self.serve_names(&mut state, container, None)
    }
}

/// Changes what is in a sandbox's namespace, the interfaces of endpoints that have gone first.
fn rewire(sandbox: &Sandbox, wiring: &Wiring, gone: &[&Endpoint]) -> Result<()> {
    let Some(path) = sandbox.namespace.as_deref() else { return Ok(()) };
    let mut host = Links::open().map_err(|error| refused(&error))?;
    let is_of_host = |endpoint: &&&Endpoint| !endpoint.link.is_empty() && endpoint.space.is_none();
    for endpoint in gone.iter().filter(is_of_host) {
        host.remove(&endpoint.link).map_err(|error| refused(&error))?;
    }
    forget_ports(gone.iter().copied())?;
    namespace::enter(path, || {
        let mut links = Links::open().map_err(|error| refused(&error))?;
        let inside = gone.iter().filter(|endpoint| !is_of_host(endpoint) && !endpoint.interface.is_empty());
        for endpoint in inside {
            links.remove(&endpoint.interface).map_err(|error| refused(&error))?;
        }
        wiring.make(&mut host)
    })
}
