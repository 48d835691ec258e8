//! `/cluster`: what ketchd says of its cluster beyond Docker's API. `command/` is who asks.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_cluster::explain;

use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::node::api::{Led, led};

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/cluster/explain/{}", |daemon, request| led(daemon, request, explained));
}

async fn explained(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let now = led.leader.now();
    let explained = led.read(|view| explain::explain(view, request.operand(0), now)).await?;
    response::json(StatusCode::OK, &explained)
}
