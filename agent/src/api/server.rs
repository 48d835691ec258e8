//! The listening sockets and their connections: each request finds its route, and each response gets what all of Docker's have.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, SERVER};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::body::RequestBody;
use super::request::{Query, Request};
use super::response::{self, Response};
use super::router::{self, Router};
use super::version::ApiVersion;
use super::wire::{Answering, Peer, Wire};
use super::{elsewhere, routes, version};
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::listen::Listener;

/// How long a client's TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
const OSTYPE: HeaderName = HeaderName::from_static("ostype");

/// Serves connections until `stop` is true; then no new ones are taken, and requests that are under way get `patience`.
pub async fn serve(
    listeners: &[Listener],
    daemon: &Arc<Daemon>,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
) {
    let router = Arc::new(routes::all());
    // Each connection holds a sender: there is none any more when all have ended.
    let (alive, mut ended) = mpsc::channel::<()>(1);
    let accepting = listeners.iter().map(|listener| {
        let shared = Shared {
            daemon: Arc::clone(daemon),
            router: Arc::clone(&router),
            stop: stop.clone(),
            alive: alive.clone(),
        };
        accept(listener, shared)
    });
    let accepting: Vec<_> = accepting.map(Box::pin).collect();
    tokio::select! {
        () = all(accepting) => {}
        () = told(&mut stop) => {}
    }
    drop(alive);
    let _before = daemon.ending.send_replace(true);
    if tokio::time::timeout(patience, ended.recv()).await.is_err() {
        debug!("connections are still open after {} s", patience.as_secs());
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Shared {
    daemon: Arc<Daemon>,
    router: Arc<Router>,
    stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
}

/// Waits until the end has begun; a sender that is gone has begun it, too.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn all(futures: Vec<Pin<Box<impl Future<Output = ()>>>>) {
    let mut futures = futures;
    std::future::poll_fn(move |context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn accept(listener: &Listener, shared: Shared) {
    loop {
        let accepted = match listener {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                drop(tokio::spawn(connection(stream, shared.clone())));
            }),
            Listener::Tcp(listener, acceptor) => listener.accept().await.map(|(stream, _)| {
                // Answers are small, and wait for nobody.
                let _set = stream.set_nodelay(true);
                drop(tokio::spawn(tcp(stream, acceptor.clone(), shared.clone())));
            }),
        };
        // Of a client that has gone again, or of a table that is full for now.
        if let Err(error) = accepted {
            warn!("accepting a connection: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn tcp(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Shared) {
    let Some(acceptor) = acceptor else { return connection(stream, shared).await };
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, shared).await,
        Ok(Err(error)) => debug!("TLS handshake error: {error}"),
        Err(_) => debug!("TLS handshake error: it took longer than {} s", HANDSHAKE.as_secs()),
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static, shared: Shared) {
    let Shared { daemon, router, mut stop, alive: _alive } = shared;
    let answering = Answering::default();
    let wire = Wire::new(stream, answering.clone());
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (daemon, router) = (Arc::clone(&daemon), Arc::clone(&router));
        let answering = answering.clone();
        answering.begin();
        async move {
            let (parts, body) = request.into_parts();
            let response = match elsewhere::answered(&daemon, parts, body.into()).await {
                Ok(response) => said(response),
                Err(here) => answer(daemon, router, here.0, here.1).await,
            };
            answering.with(&response);
            Ok::<_, Infallible>(response)
        }
    });
    let served = http().serve_connection(TokioIo::new(wire), service).with_upgrades();
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = told(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!("a connection ended: {error}");
    }
}

/// How this API is spoken on a connection, whoever has made it.
pub(crate) fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    // As Go writes them: scripts look for them so.
    http.title_case_headers(true);
    // A client that stops to write may still wait for what it has asked: the wire knows.
    http.half_close(true);
    http
}

/// Answers a request, whoever has brought it: a client's connection, or another manager.
pub(crate) async fn answer(
    daemon: Arc<Daemon>,
    router: Arc<Router>,
    parts: Parts,
    body: RequestBody,
) -> Response {
    // Without the query: build arguments and changes have secrets.
    let line = format!("{} {}", parts.method, parts.uri.path());
    // Go's server does not pass such a request on.
    if parts.version == hyper::Version::HTTP_11 && !parts.headers.contains_key(HOST) {
        let text = "400 Bad Request: missing required Host header";
        let mut response = response::plain_error(StatusCode::BAD_REQUEST, text);
        let _none = response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let is_ancient = ApiVersion::of_path(parts.uri.path()).is_some_and(|version| version < version::MINIMUM);
    let (counting, path, began) = (Arc::clone(&daemon), parts.uri.path().to_owned(), Instant::now());
    // In a task of its own: a client that goes does not stop a start half way.
    let called = tokio::spawn(call(daemon, router, parts, body)).await;
    let called =
        called.unwrap_or_else(|error| Err(Error::internal(format_args!("answering {line}"), &error)));
    let response = match called {
        Ok(response) => response,
        Err(error) => {
            if error.kind == Kind::Internal {
                warn!("{line}: {error}");
            } else {
                debug!("{line}: {error}");
            }
            if is_ancient { old_error(&error) } else { response::error(&error) }
        }
    };
    counting.counted.answered(&path, response.status(), began.elapsed());
    said(response)
}

/// A response with what all of Docker's have.
pub(super) fn said(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let _none = headers.insert(API_VERSION, text(&version::CURRENT.to_string()));
    // What the ping says itself stays.
    let _said = headers.entry(EXPERIMENTAL).or_insert(HeaderValue::from_static("false"));
    let _none = headers.insert(OSTYPE, HeaderValue::from_static("linux"));
    let _none = headers.insert(SERVER, text(&format!("Docker/{} (linux)", crate::VERSION)));
    response
}

/// Before 1.24 errors were text.
fn old_error(error: &Error) -> Response {
    response::plain_error(response::status_of(error.kind), format!("{}\n", error.message))
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

async fn call(daemon: Arc<Daemon>, router: Arc<Router>, parts: Parts, body: RequestBody) -> Result<Response> {
    if let Some(place) = router::moved(parts.uri.path()) {
        let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
        return Ok(response::moved(&format!("{place}{query}")));
    }
    let found = router.find(&parts.method, parts.uri.path())?;
    let query = parts.uri.query().unwrap_or_default();
    Query::check(query)?;
    let query = Query::parse(query);
    let (version, operands) = (found.version, found.operands);
    (found.call)(daemon, Request { version, operands, query, parts, body }).await
}
