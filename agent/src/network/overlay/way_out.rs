//! The way out of containers whose networks span the cluster: one more interface, in a bridge of the node by Docker's name. Containers
//! don't reach each other there. Published ports come in by it.

use std::collections::BTreeMap;

use ketch_engine_api::network::{EndpointSettings, NetworkCreateRequest};

use crate::error::Result;
use crate::network::options::{BRIDGE_NAME, ENABLE_ICC, ENABLE_MASQUERADE};
use crate::network::record::{Endpoint, Network, Role, Sandbox};
use crate::network::{Networks, State};

/// Docker's name, of the network and of its bridge; users make it themselves to choose its subnet.
const NAME: &str = "docker_gwbridge";

impl Networks {
    /// The network; it is made when there is none.
    ///
    /// # Errors
    /// It can't be made.
    pub(super) fn way_out(&self) -> Result<Network> {
        let found = |networks: &Self| networks.state().networks.values().find(|it| it.name == NAME).cloned();
        if let Some(network) = found(self) {
            return Ok(network);
        }
        let options = [(BRIDGE_NAME, NAME), (ENABLE_ICC, "false"), (ENABLE_MASQUERADE, "true")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let request = NetworkCreateRequest {
            name: NAME.to_owned(),
            driver: Some("bridge".to_owned()),
            options: Some(BTreeMap::from(options)),
            ..NetworkCreateRequest::default()
        };
        match self.create(request) {
            // Another may have been faster.
            Err(error) => found(self).ok_or(error),
            Ok(id) => self.find(&id),
        }
    }
}

impl State {
    /// Has a sandbox that has no other way out leave by the bridge. Nothing is made.
    ///
    /// # Errors
    /// The bridge has no address left.
    pub(in crate::network) fn add_way_out(&mut self, sandbox: &mut Sandbox) -> Result<()> {
        let has = [true, false].into_iter().any(|ipv4| self.route(sandbox, ipv4).is_some());
        let network = self.networks.values().find(|network| network.name == NAME).cloned();
        if let (true, false, Some(network)) = (self.wants_way_out(sandbox), has, network) {
            let endpoint = self.endpoint(sandbox, &network, EndpointSettings::default())?;
            sandbox.endpoints.push(Endpoint { role: Role::WayOut, ..endpoint });
        }
        Ok(())
    }

    /// Takes it away from one that has no network any more that it was for.
    pub(in crate::network) fn drop_way_out(&self, sandbox: &mut Sandbox) {
        if !self.wants_way_out(sandbox) {
            sandbox.endpoints.retain(|endpoint| endpoint.role == Role::Member);
        }
    }

    /// The routing mesh's, as dockerd calls it: while there are networks of the cluster, their way out stays.
    pub(in crate::network) fn door_in(&self, network: &Network) -> Option<String> {
        let is_needed = network.name == NAME && self.networks.values().any(Network::is_overlay);
        is_needed.then(|| "name:\"gateway_ingress-sbox\" id:\"ingress-sbox\"".to_owned())
    }

    fn wants_way_out(&self, sandbox: &Sandbox) -> bool {
        sandbox.endpoints.iter().any(|endpoint| {
            let network = self.networks.get(&endpoint.network);
            network.is_some_and(|network| network.is_overlay() && !network.internal)
        })
    }
}
