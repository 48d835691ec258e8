//! Checkpoints of containers. As dockerd's they want an experimental daemon.

use std::future::Future;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_engine_api::container::CheckpointBody;

use super::containers::{body, find};
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::engine::checkpoint;
use crate::error::{Error, Kind, Result};

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/containers/{}/checkpoints", experimental(list));
    router.on(Method::POST, "/containers/{}/checkpoints", experimental(create));
    router.on(Method::DELETE, "/containers/{}/checkpoints/{}", experimental(remove));
}

/// The call, where the daemon is an experimental one.
fn experimental<F>(
    call: impl Fn(Arc<Daemon>, Request) -> F + Copy + Send + Sync + 'static,
) -> impl Fn(Arc<Daemon>, Request) -> std::pin::Pin<Box<dyn Future<Output = Result<Response>> + Send>> + Send + Sync
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    move |daemon, request| {
        Box::pin(async move {
            if !daemon.config.experimental {
                return Err(Error::new(
                    Kind::NotImplemented,
                    "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
                ));
            }
            call(daemon, request).await
        })
    }
}

async fn list(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    let folder = request.query.value("dir").unwrap_or_default();
    let all = checkpoint::list(&daemon, &container, request.operand(0), folder).await?;
    response::json(StatusCode::OK, &all)
}

async fn create(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let asked = request.operand(0).to_owned();
    let body: CheckpointBody = body(request).await?;
    let container = daemon.engine.find(&asked)?;
    checkpoint::create(&daemon, &container, &asked, body).await?;
    Ok(response::empty(StatusCode::CREATED))
}

async fn remove(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    let folder = request.query.value("dir").unwrap_or_default();
    let (asked, name) = (request.operand(0), request.operand(1));
    checkpoint::remove(&daemon, &container, asked, folder, name).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}
