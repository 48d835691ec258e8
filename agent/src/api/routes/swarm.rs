//! Swarm mode, which is off: each of its routes is there, and says so in dockerd's words.

use std::sync::Arc;

use hyper::Method;

use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};

const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
const NO_SWARM: &str = "This node is not part of a swarm";
const NOT_SERVED: &str = "swarm mode is not served by ketchd yet";

const ROUTES: [(Method, &str, Kind, &str); 30] = [
    (Method::POST, "/swarm/init", Kind::NotImplemented, NOT_SERVED),
    (Method::POST, "/swarm/join", Kind::NotImplemented, NOT_SERVED),
    (Method::POST, "/swarm/leave", Kind::Unavailable, NO_SWARM),
    (Method::GET, "/swarm", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/swarm/update", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/swarm/unlockkey", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/swarm/unlock", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/services", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/services/create", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/services/{}", Kind::Unavailable, NO_MANAGER),
    (Method::DELETE, "/services/{}", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/services/{}/update", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/services/{}/logs", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/nodes", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/nodes/{}", Kind::Unavailable, NO_MANAGER),
    (Method::DELETE, "/nodes/{}", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/nodes/{}/update", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/tasks", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/tasks/{}", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/tasks/{}/logs", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/secrets", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/secrets/create", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/secrets/{}", Kind::Unavailable, NO_MANAGER),
    (Method::DELETE, "/secrets/{}", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/secrets/{}/update", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/configs", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/configs/create", Kind::Unavailable, NO_MANAGER),
    (Method::GET, "/configs/{}", Kind::Unavailable, NO_MANAGER),
    (Method::DELETE, "/configs/{}", Kind::Unavailable, NO_MANAGER),
    (Method::POST, "/configs/{}/update", Kind::Unavailable, NO_MANAGER),
];

pub(super) fn add(router: &mut Router) {
    for (method, pattern, kind, text) in ROUTES {
        router.on(method, pattern, move |daemon, request| refuse(daemon, request, kind, text));
    }
}

async fn refuse(_: Arc<Daemon>, _: Request, kind: Kind, text: &'static str) -> Result<Response> {
    Err(Error::new(kind, text))
}
