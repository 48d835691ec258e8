//! Processes that are added to a container.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_engine_api::exec::{ExecConfig, ExecStart};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;

use super::containers::{body, size};
use crate::api::hijack;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::stdcopy::Stream;
use crate::daemon::Daemon;
use crate::engine::attach::{self, Left, Wanted};
use crate::engine::exec;
use crate::error::Result;

pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/containers/{}/exec", create);
    router.on(Method::POST, "/exec/{}/start", start);
    router.on(Method::POST, "/exec/{}/resize", resize);
    router.on(Method::GET, "/exec/{}/json", inspect);
}

async fn create(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = daemon.engine.find(request.operand(0))?;
    let asked = request.operand(0).to_owned();
    let config: ExecConfig = body(request).await?;
    let id = exec::create(&daemon, &container, &asked, config).await?;
    response::json(StatusCode::CREATED, &json!({ "Id": id }))
}

async fn start(daemon: Arc<Daemon>, mut request: Request) -> Result<Response> {
    let exec = exec::find(&daemon, request.operand(0))?;
    let version = request.version;
    // The connection is handed over by what its request came with; the body is read before.
    let handover = hijack::take(&mut request);
    let asked: ExecStart = body(request).await?;
    exec::may_start(&exec)?;
    if asked.detach {
        let exec = Arc::clone(&exec);
        let started = tokio::spawn(async move { exec::start(&daemon, &exec, asked.console_size).await });
        started.await.map_err(|error| crate::error::Error::internal("starting an exec", &error))??;
        return Ok(response::empty(StatusCode::OK));
    }
    let config = &exec.config;
    let wanted = Wanted {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        terminal: config.tty,
        // What the start says counts: a client that takes the stream apart has said so there.
        framed: !asked.tty,
        ends_input: !config.tty,
        detach_keys: exec.detach_keys.clone(),
    };
    let output = exec.streams.listen();
    let typing = exec.streams.typing();
    let content_type = hijack::content_type(version, asked.tty);
    Ok(hijack::begin_with(handover, content_type, move |client| async move {
        let starting = {
            let (daemon, exec) = (Arc::clone(&daemon), Arc::clone(&exec));
            tokio::spawn(async move { exec::start(&daemon, &exec, asked.console_size).await })
        };
        // Errors are told in the stream: the headers are out.
        let failed = match starting.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.message),
            Err(error) => Some(error.to_string()),
        };
        if let Some(message) = failed {
            debug!("starting the exec {}: {message}", exec.id);
            let text = format!("{message}\r\n");
            let (saying, before) = mpsc::channel(1);
            let _said = saying.try_send((Stream::Stdout, text.into()));
            drop(saying);
            let all = Wanted { stdout: true, ..wanted };
            let _left = attach::serve(client, &all, before, output, None).await;
            return;
        }
        if attach::serve(client, &wanted, attach::nothing(), output, Some(typing)).await == Left::Detached {
            let attributes = [("execID", exec.id.clone())];
            exec.container.publish_with(&daemon, "exec_detach", &attributes);
        }
    }))
}

async fn resize(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let (height, width) = size(&request)?;
    let exec = exec::find(&daemon, request.operand(0))?;
    exec::resize(&exec, height, width).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn inspect(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let exec = exec::find(&daemon, request.operand(0))?;
    response::json(StatusCode::OK, &exec::inspect(&exec))
}
