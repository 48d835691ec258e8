//! The listening sockets and their connections: each request finds its route, and each response gets what all of Docker's have.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::body::RequestBody;
use super::request::{Query, Request};
use super::response::{self, Response};
use super::router::Router;
use super::version::ApiVersion;
use super::{routes, version};
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::listen::Listener;

/// How long a client's TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
const API_VERSION: HeaderName = HeaderName::from_static("api-version");
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
                let is_given_away = Arc::new(AtomicBool::new(false));
                let stream = Local(stream, Arc::clone(&is_given_away));
                drop(tokio::spawn(connection(stream, is_given_away, shared.clone())));
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
    let is_given_away = Arc::new(AtomicBool::new(false));
    let Some(acceptor) = acceptor else { return connection(stream, is_given_away, shared).await };
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, is_given_away, shared).await,
        Ok(Err(error)) => debug!("TLS handshake error: {error}"),
        Err(_) => debug!("TLS handshake error: it took longer than {} s", HANDSHAKE.as_secs()),
    }
}

/// A client on a unix socket. One that has only stopped to write still listens; one that has closed does not, and what it has asked
/// for ends with it: else each `docker run -d` would leave the daemon a connection that waits for the container's end.
struct Local(UnixStream, Arc<AtomicBool>);

impl Local {
    /// The kernel tells of it together with the end of the stream, which must be waited for to be heard. Of a connection that hyper
    /// has given away somebody else may wait to read, and there is room for one.
    fn has_hung_up(&self, context: &mut Context<'_>) -> bool {
        if self.1.load(Ordering::Relaxed) || self.0.poll_read_ready(context).is_pending() {
            return false;
        }
        let mut ready = std::pin::pin!(self.0.ready(Interest::WRITABLE));
        let mut context = Context::from_waker(Waker::noop());
        matches!(ready.as_mut().poll(&mut context), Poll::Ready(Ok(ready)) if ready.is_write_closed())
    }
}

impl AsyncRead for Local {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    /// hyper does not read while it answers, but comes by here each time that it is woken.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_hung_up(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_given_away: Arc<AtomicBool>,
    shared: Shared,
) {
    let Shared { daemon, router, mut stop, alive: _alive } = shared;
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (daemon, router) = (Arc::clone(&daemon), Arc::clone(&router));
        let is_given_away = Arc::clone(&is_given_away);
        async move {
            let response = answer(daemon, router, request).await;
            is_given_away.store(response.status() == StatusCode::SWITCHING_PROTOCOLS, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    // A client that stops to write is one that waits, as `docker attach` without input does.
    let served = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
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

async fn answer(daemon: Arc<Daemon>, router: Arc<Router>, request: hyper::Request<Incoming>) -> Response {
    // Without the query: build arguments and changes have secrets.
    let line = format!("{} {}", request.method(), request.uri().path());
    // Go's server does not pass such a request on.
    if request.version() == hyper::Version::HTTP_11 && !request.headers().contains_key(HOST) {
        let text = "400 Bad Request: missing required Host header";
        let mut response = response::plain_error(StatusCode::BAD_REQUEST, text);
        let _none = response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let is_ancient =
        ApiVersion::of_path(request.uri().path()).is_some_and(|version| version < version::MINIMUM);
    // In a task of its own: a client that goes does not stop a start half way.
    let called = tokio::spawn(call(daemon, router, request)).await;
    let called =
        called.unwrap_or_else(|error| Err(Error::internal(format_args!("answering {line}"), &error)));
    let mut response = match called {
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
    let headers = response.headers_mut();
    let _none = headers.insert(API_VERSION, text(&version::CURRENT.to_string()));
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

async fn call(
    daemon: Arc<Daemon>,
    router: Arc<Router>,
    request: hyper::Request<Incoming>,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let body = RequestBody::from(body);
    let found = router.find(&parts.method, parts.uri.path())?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let (version, operands) = (found.version, found.operands);
    (found.call)(daemon, Request { version, operands, query, parts, body }).await
}
