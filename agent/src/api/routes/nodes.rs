//! `/nodes`.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_cluster::control::{Force, find_cluster, find_node, list_nodes};
use ketch_cluster::view::View;
use ketch_convert::node::{self, Around};
use ketch_convert::{Refusal, filters, query};
use ketch_engine_api::swarm::node::{Node, NodeSpec};

use super::swarm::authorities;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::node::api::{Led, led};

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/nodes", |daemon, request| led(daemon, request, list));
    router.on(Method::GET, "/nodes/{}", |daemon, request| led(daemon, request, inspect));
    router.on(Method::DELETE, "/nodes/{}", |daemon, request| led(daemon, request, remove));
    router.on(Method::POST, "/nodes/{}/update", |daemon, request| led(daemon, request, update));
}

async fn list(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let wanted = filters::of(request.query.value("filters"))?;
    let shown = shown(&led, |view, around| {
        let nodes = list_nodes(view, &wanted)?;
        Ok(nodes.iter().map(|it| node::shown(it, around)).collect::<Vec<Node>>())
    });
    response::json(StatusCode::OK, &shown.await?)
}

/// As the operands name nodes: `self` is the one that answers the client, which the CLI finds out by itself.
async fn inspect(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let shown =
        shown(&led, |view, around| find_node(view, request.operand(0)).map(|it| node::shown(&it, around)));
    response::json(StatusCode::OK, &shown.await?)
}

async fn shown<T>(led: &Led, show: impl FnOnce(&View<'_>, &Around<'_>) -> Result<T, Refusal>) -> Result<T> {
    let (members, leader) = (led.leader.members(), led.leader.node());
    led.read(|view| {
        let authorities = authorities(find_cluster(view)?);
        show(view, &Around { members: &members, leader, authorities: &authorities })
    })
    .await
}

async fn update(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let version = query::version(query::Updated::Node, request.query.value("version"))?;
    let name = request.operand(0).to_owned();
    let wanted: NodeSpec = request.json().await?;
    let spec = node::spec_of(wanted)?;
    let id = led.read(|view| find_node(view, &name)).await?.id;
    led.leader.update_node(id, version, spec).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn remove(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let force = if request.query.flag("force") { Force::Yes } else { Force::No };
    let id = led.read(|view| find_node(view, request.operand(0))).await?.id;
    led.leader.remove_node(id, force).await?;
    Ok(response::empty(StatusCode::OK))
}
