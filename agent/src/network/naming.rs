//! A container's names: what its networks' servers know of it, and its own server.

use std::net::Ipv4Addr;

use super::dns::names::Holder;
use super::dns::{Listening, Sockets, View};
use super::firewall::redirect_names;
use super::record::{Endpoint, Network, Role, Sandbox};
use super::resolver::NAME_SERVER;
use super::{Networks, State, namespace, refused};
use crate::error::{Error, Result};

impl Networks {
    /// Tells the others of the container, and has its server answer, if it is in a network that has names.
    pub(super) fn serve_names(
        &self,
        state: &mut State,
        container: &str,
        opened: Option<Sockets>,
    ) -> Result<()> {
        let Some(sandbox) = state.sandboxes.get(container) else { return Ok(()) };
        self.tell_names(state, sandbox);
        let Some(path) = sandbox.namespace.as_deref().filter(|_| state.has_names(sandbox)) else {
            return Ok(());
        };
        if state.servers.contains_key(container) {
            return Ok(());
        }
        let sockets = match opened {
            Some(sockets) => sockets,
            None => namespace::enter(path, open_server)?,
        };
        let listening: Listening = sockets
            .serve(&self.0.runtime, container, &self.0.names)
            .map_err(|error| Error::internal("serving the container's names", &error))?;
        drop(state.servers.insert(container.to_owned(), listening));
        Ok(())
    }

    pub(super) fn tell_names(&self, state: &State, sandbox: &Sandbox) {
        let mut view = View { namespace: sandbox.namespace.clone(), ..View::default() };
        for endpoint in &sandbox.endpoints {
            let Some(network) = state.networks.get(&endpoint.network) else { continue };
            if network.driver.has_addresses() && !network.internal {
                view.servers = sandbox.resolver.upstreams(sandbox.has_ipv6());
            }
            if !network.has_names() || endpoint.role == Role::WayOut {
                continue;
            }
            view.networks.push(network.id.clone());
            view.subnets.extend(network.subnets.iter().map(|subnet| subnet.subnet));
            let links = endpoint.links.iter();
            view.links.extend(links.map(|(alias, other)| (alias.clone(), network.id.clone(), other.clone())));
            self.0.names.add(Holder {
                container: &sandbox.container,
                network: &network.id,
                network_name: &network.name,
                names: &names_here(network, endpoint),
                addresses: &endpoint.addresses(),
            });
        }
        self.0.names.set_view(&sandbox.container, Some(view));
    }

    pub(super) fn forget_names(&self, sandbox: &Sandbox) {
        for endpoint in &sandbox.endpoints {
            self.0.names.remove(&sandbox.container, &endpoint.network);
        }
        self.0.names.set_view(&sandbox.container, None);
    }
}

/// What this node says by itself: in a network of the cluster only what nobody else knows, that a container has a name and an id.
/// Its aliases may be its service's.
fn names_here(network: &Network, endpoint: &Endpoint) -> Vec<String> {
    let is_alias = |name: &&String| {
        network.is_overlay() && endpoint.asked.aliases.iter().flatten().any(|alias| alias == *name)
    };
    endpoint.names.iter().filter(|name| !is_alias(name)).cloned().collect()
}

/// In a container's namespace: the server's sockets, and the rules by which they are found at port 53.
pub(super) fn open_server() -> Result<Sockets> {
    let address: Ipv4Addr = NAME_SERVER.parse().unwrap_or(Ipv4Addr::LOCALHOST);
    let failed = |error| Error::internal("opening the container's name server", &error);
    let sockets = Sockets::open(address).map_err(failed)?;
    let (udp, tcp) = sockets.ports().map_err(failed)?;
    redirect_names(address, udp, tcp).map_err(|error| refused(&error))?;
    Ok(sockets)
}
