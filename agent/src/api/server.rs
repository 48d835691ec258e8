//! The listening socket and its connections: each request finds its route, and each response gets what all of Docker's have.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tracing::{debug, warn};

use super::request::{Query, Request};
use super::response::{self, Response};
use super::router::Router;
use super::{routes, version};
use crate::daemon::Daemon;
use crate::error::{Kind, Result};

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const OSTYPE: HeaderName = HeaderName::from_static("ostype");

/// Serves connections until the future is dropped; those that are there end with their clients.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let router = Arc::new(routes::all());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (daemon, router) = (Arc::clone(&daemon), Arc::clone(&router));
                drop(tokio::spawn(connection(TokioIo::new(stream), daemon, router)));
            }
            // Of a client that has gone again, or of a table that is full for now.
            Err(error) => {
                warn!("accepting a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connection(stream: TokioIo<tokio::net::UnixStream>, daemon: Arc<Daemon>, router: Arc<Router>) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (daemon, router) = (Arc::clone(&daemon), Arc::clone(&router));
        async move { Ok::<_, Infallible>(answer(daemon, &router, request).await) }
    });
    // A client that stops to write is one that waits, as `docker attach` without input does.
    let served = http1::Builder::new().half_close(true).serve_connection(stream, service).with_upgrades();
    if let Err(error) = served.await {
        debug!("a connection ended: {error}");
    }
}

async fn answer(daemon: Arc<Daemon>, router: &Router, request: hyper::Request<Incoming>) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let mut response = match call(daemon, router, request).await {
        Ok(response) => response,
        Err(error) => {
            if error.kind == Kind::Internal {
                warn!("{line}: {error}");
            } else {
                debug!("{line}: {error}");
            }
            response::error(&error)
        }
    };
    let headers = response.headers_mut();
    let _none = headers.insert(API_VERSION, text(&version::CURRENT.to_string()));
    let _none = headers.insert(OSTYPE, HeaderValue::from_static("linux"));
    let _none = headers.insert(SERVER, text(&format!("Docker/{} (linux)", crate::VERSION)));
    response
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

async fn call(daemon: Arc<Daemon>, router: &Router, request: hyper::Request<Incoming>) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let found = router.find(&parts.method, parts.uri.path())?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let (version, operands) = (found.version, found.operands);
    (found.call)(daemon, Request { version, operands, query, parts, body }).await
}
