//! Networks of the whole cluster, as `/networks` lists, makes and removes them beside a node's own.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use ketch_cluster::control::{PREDEFINED_LABEL, create_network, find_network, remove_network};
use ketch_cluster::objects::Network;
use ketch_cluster::view::{Observed, View};
use ketch_convert::network;
use ketch_engine_api::network::{NetworkCreateRequest, NetworkCreateResponse};
use ketch_engine_api::swarm::network::ListedNetwork;

use crate::api::request::{Query, Request};
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::node::api::{Led, led};

/// What another manager sends on.
pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/networks/create", create);
    router.on(Method::DELETE, "/networks/{}", remove);
}

/// Whether a request for a network means one of the cluster.
pub(super) fn is_meant(wanted: &NetworkCreateRequest) -> bool {
    wanted.driver.as_deref() == Some("overlay") || wanted.scope.as_deref() == Some("swarm") || wanted.ingress
}

/// Makes one; `request` has its body still.
pub(super) async fn create(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    led(daemon, request, made).await
}

async fn made(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let wanted: NetworkCreateRequest = request.json().await?;
    let id = led.change(|view, now, bits| {
        let spec = network::spec_of(wanted)?;
        create_network(view, spec, now, bits)
    });
    let created = NetworkCreateResponse { id: id.await?.to_string(), warning: String::new() };
    response::json(StatusCode::CREATED, &created)
}

/// Removes one.
pub(super) async fn remove(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    led(daemon, request, removed).await
}

async fn removed(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    led.change(|view, now, _| {
        let id = find_network(view, request.operand(0))?.id;
        remove_network(view, id, now).map(|actions| ((), actions))
    })
    .await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// All that this manager knows of; none on other nodes.
pub(super) fn list(daemon: &Daemon) -> Vec<ListedNetwork> {
    let Ok(node) = daemon.node() else { return Vec::new() };
    let known =
        node.view(|store| store.networks().filter(|it| is_shown(it)).map(|it| network::listed(it)).collect());
    known.unwrap_or_default()
}

/// One by its id, its name or a part of its id; none where there is none, or no manager here.
pub(super) fn find(daemon: &Daemon, text: &str) -> Option<ListedNetwork> {
    found(daemon, text).filter(|it| is_shown(it)).map(|it| network::listed(&it))
}

/// The same with the names of nodes' own networks: a client asks for those of the cluster before it makes a service in one.
pub(super) fn find_for_service(daemon: &Daemon, text: &str) -> Option<ListedNetwork> {
    found(daemon, text).filter(|it| !it.pending_delete).map(|it| network::listed(&it))
}

fn found(daemon: &Daemon, text: &str) -> Option<Arc<Network>> {
    let found = daemon.node().ok()?.view(|store| {
        let observed = Observed::default();
        find_network(&View::new(store, &observed), text).ok()
    });
    found.flatten()
}

/// Removes what nobody uses of those that `unwanted` says so of, and gives the names. Nothing on other nodes than managers.
pub(super) async fn prune(
    daemon: &Arc<Daemon>,
    version: ApiVersion,
    unwanted: impl Fn(&ListedNetwork) -> bool,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for network in list(daemon).into_iter().filter(|it| !it.ingress && unwanted(it)) {
        let head = hyper::Request::delete(format!("/networks/{}", network.id)).body(());
        let head = head.map_err(|error| Error::internal("naming a network", &error))?;
        let request = Request {
            version,
            operands: vec![network.id],
            query: Query::default(),
            parts: head.into_parts().0,
            body: Bytes::new().into(),
        };
        // Not those that are in use, which whoever leads knows.
        if remove(Arc::clone(daemon), request).await.is_ok_and(|response| response.status().is_success()) {
            names.push(network.name);
        }
    }
    Ok(names)
}

/// The names of nodes' own networks are not the cluster's to show.
fn is_shown(network: &Network) -> bool {
    !network.pending_delete && !network.spec.labels.contains_key(PREDEFINED_LABEL)
}
