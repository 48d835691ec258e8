//! What a container has changed: shown, made an image of, and its whole root as an archive.

use std::io;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_engine_api::container::Config;
use serde_json::{Value, json};

use super::images::{Sending, blocking};
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::dockerfile;
use crate::engine::{image_config, signal};
use crate::error::{Error, Result};
use crate::image::changes::CommitOptions;
use crate::image::reference::Reference;

pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/commit", commit);
    router.on(Method::GET, "/containers/{}/changes", changes);
    router.on(Method::GET, "/containers/{}/export", export);
}

async fn changes(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let id = daemon.engine.find(request.operand(0))?.id.clone();
    let changes = blocking(&daemon, move |images| images.changes(&id)).await?;
    // Go's nil.
    let shown = if changes.is_empty() { Value::Null } else { json!(changes) };
    response::json(StatusCode::OK, &shown)
}

async fn export(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = daemon.engine.find(request.operand(0))?;
    // A root that can't be mounted is still an error of the request.
    let id = container.id.clone();
    drop(blocking(&daemon, move |images| images.merged(&id)).await?);
    container.publish(&daemon, "export");
    let (sending, response) = Sending::begin("application/octet-stream");
    let (images, id) = (daemon.images.clone(), container.id.clone());
    let _task = tokio::task::spawn_blocking(move || {
        let writer = io::BufWriter::with_capacity(128 << 10, sending.clone());
        sending.end(images.export(&id, writer).map_err(|error| {
            tracing::warn!("{error}");
            io::Error::other(error)
        }));
    });
    Ok(response)
}

async fn commit(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let text = |key| request.query.value(key).unwrap_or_default().to_owned();
    let container = daemon.engine.find(&text("container"))?;
    let reference = Reference::of_repository(&text("repo"), &text("tag"))
        .map_err(|error| Error::invalid(error.to_string()))?;
    let (author, comment) = (text("author"), text("comment"));
    let lines: Vec<String> = request.query.values("changes").map(str::to_owned).collect();
    let wants_pause = request.query.flag_or("pause", true);
    let own: Option<Option<Config>> = request.json_or_nothing().await?;
    let (record, state) = container.read(|record| (record.config.clone(), record.state.clone()));
    if state.removing || state.dead {
        let why = if state.dead { "is Dead" } else { "is being removed" };
        return Err(Error::conflict(format!("You cannot commit container {} which {why}", container.id)));
    }
    let encoded = |error: serde_json::Error| Error::internal("encoding the container's settings", &error);
    let container_config = serde_json::to_value(&record).map_err(encoded)?;
    // The lines change what the request says, if it says anything, and what it leaves open is the container's.
    let own = dockerfile::changed(own.flatten().unwrap_or_else(|| record.clone()), &lines)?;
    let config = image_config::of_image(&image_config::over(own, &record))?;
    let command = record.cmd.clone().unwrap_or_default().join(" ");
    let options = CommitOptions {
        container: container.id.clone(),
        reference: reference.clone(),
        author,
        comment: comment.clone(),
        config,
        container_config,
        command,
    };
    let paused = wants_pause && state.running && !state.paused && !state.restarting;
    if paused {
        signal::pause(&daemon, &container).await?;
    }
    let image = blocking(&daemon, move |images| images.commit(&options)).await;
    if paused {
        signal::unpause(&daemon, &container).await?;
    }
    let id = image?.id.to_string();
    let name = reference.map(|reference| reference.familiar()).unwrap_or_default();
    let attributes = [("comment", comment), ("imageID", id.clone()), ("imageRef", name)];
    container.publish_with(&daemon, "commit", &attributes);
    response::json(StatusCode::CREATED, &json!({ "Id": id }))
}
