//! Answers calls that come in by one connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use ketch_cluster::objects::node::NodeRole;
use tokio::time::timeout;

use super::body::{Answer, Body, whole};
use super::refusal::Refusal;
use super::together::Answers;
use super::tunnel::{fill, parts};
use crate::calls;
use crate::world::{Accepted, Caller};

/// Every answer of a ketch node has this header, and no other server's: by it a node that asks knows whom it has reached.
/// Its value is the version of what they speak.
pub(super) const SPOKEN: &str = "ketch-node";
/// Nodes of neighbouring versions of ketch speak the same: a field that is added has a default, a kind of message that is added is
/// passed over by who does not know it, and so is a call given up that is refused as [`Refusal::Invalid`]. What could not be done
/// without any more would be another version, under other paths.
pub(super) const VERSION: &str = "1";

const MOST_BODY: usize = 64 << 20;
/// All that a worker knows of some ten thousand tasks.
const MOST_WORKERS_BODY: usize = 16 << 20;
const MOST_STRANGERS_BODY: usize = 64 << 10;
/// A stranger is done with joining after that.
const STRANGERS_TIME: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A call that came in.
#[derive(Debug)]
pub struct Call {
    pub caller: Caller,
    /// The IP address that its connection comes from.
    pub from: String,
    /// Method, path, query and headers.
    pub head: Parts,
    pub body: Bytes,
}

impl Call {
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Its JSON.
    ///
    /// # Errors
    /// It is none of that kind.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::Invalid(format!("{}: {error}", self.path())))
    }

    /// What a call asks whose body is a tunnel.
    ///
    /// # Errors
    /// It is none of that kind.
    pub fn read_head<T: serde::de::DeserializeOwned>(&self) -> Result<T, Refusal> {
        let asked = self.head.headers.get(calls::ASKED).map(HeaderValue::as_bytes).unwrap_or_default();
        serde_json::from_slice(asked).map_err(|error| Refusal::Invalid(format!("{}: {error}", self.path())))
    }
}

/// What one connection may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Calls at once.
    pub streams: u32,
    /// Of each call, in bytes.
    pub body: usize,
}

impl Bounds {
    /// Where managers answer.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        Self { streams: streams_of(caller), body: most_of(caller) }
    }
}

/// Who answers.
pub trait Service: Send + Sync + 'static {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>>;

    /// What is taken in of that caller before anybody looks at it.
    fn bounds(&self, caller: &Caller) -> Bounds {
        Bounds::of(caller)
    }
}

/// Answers until the connection ends. Dropped, it ends it.
pub async fn serve(accepted: Accepted, service: Arc<dyn Service>) {
    let Accepted { stream, caller, address, .. } = accepted;
    let bounds = service.bounds(&caller);
    let from = address.clone();
    let answer = service_fn(move |request| {
        let (service, from) = (Arc::clone(&service), from.clone());
        async move { Ok::<_, Infallible>(spoken(answered(service, caller, from, request).await)) }
    });
    let answers = answers_of(&caller);
    let mut builder = Builder::new(answers.clone());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        // It would be the machine's clock, not the world's, and nobody reads it.
        .auto_date_header(false)
        .max_concurrent_streams(bounds.streams)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let connection = pin!(answers.beside(builder.serve_connection(TokioIo::new(stream), answer).boxed()));
    let ended = match caller {
        Caller::Member(_) => connection.await,
        Caller::Stranger => timeout(STRANGERS_TIME, connection).await.unwrap_or(Ok(())),
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection of a node ended");
    }
}

async fn answered(
    service: Arc<dyn Service>,
    caller: Caller,
    from: String,
    request: HttpRequest<Incoming>,
) -> Response<Body> {
    if is_grpc(&request) {
        return refused_as_grpc();
    }
    if let Some(asked) = other_version(request.uri().path()) {
        let text = format!(
            "this node speaks version {VERSION} of what ketch's nodes speak, and was asked in version {asked}: bring both to one version of ketch"
        );
        return Refusal::Invalid(text).response();
    }
    if calls::is_tunnel(request.uri().path()) {
        return tunnelled(service, caller, from, request).await;
    }
    let most = service.bounds(&caller).body;
    match call_of((caller, from), request, most).await {
        Err(refusal) => refusal.response(),
        Ok(call) => match service.answer(call).await {
            Ok(answer) => answer.response(),
            Err(refusal) => refusal.response(),
        },
    }
}

/// A call whose body goes on while it is answered.
async fn tunnelled(
    service: Arc<dyn Service>,
    caller: Caller,
    from: String,
    request: HttpRequest<Incoming>,
) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    match service.answer(Call { caller, from, head, body: Bytes::new() }).await {
        Ok(Answer::Tunnel(far)) => {
            let (body, writer) = parts(far);
            drop(tokio::spawn(fill(incoming, writer)));
            Response::new(body)
        }
        Ok(answer) => answer.response(),
        Err(refusal) => refusal.response(),
    }
}

/// The version that a path is of, when it is another one.
fn other_version(path: &str) -> Option<&str> {
    let version = path.strip_prefix("/ketch/v")?.split('/').next()?;
    (version != VERSION).then_some(version)
}

/// Of managers come parts of the log, which take long to read; of workers mostly heartbeats.
fn answers_of(caller: &Caller) -> Answers {
    match caller {
        Caller::Member(identity) if identity.role == NodeRole::Worker => Answers::together(),
        Caller::Stranger | Caller::Member(_) => Answers::Apart,
    }
}

/// What one connection may ask at once. Strangers need two calls.
fn streams_of(caller: &Caller) -> u32 {
    match caller {
        Caller::Stranger => 4,
        Caller::Member(_) => 256,
    }
}

/// What a call may bring: only managers send each other the log.
fn most_of(caller: &Caller) -> usize {
    match caller {
        Caller::Stranger => MOST_STRANGERS_BODY,
        Caller::Member(identity) if identity.role == NodeRole::Worker => MOST_WORKERS_BODY,
        Caller::Member(_) => MOST_BODY,
    }
}

async fn call_of(
    (caller, from): (Caller, String),
    request: HttpRequest<Incoming>,
    most: usize,
) -> Result<Call, Refusal> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, most).collect().await;
    let body = body.map_err(|error| Refusal::Invalid(format!("reading a call: {error}")))?.to_bytes();
    Ok(Call { caller, from, head, body })
}

fn spoken(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(SPOKEN, HeaderValue::from_static(VERSION));
    response
}

/// Docker's managers and workers speak gRPC: one that was given this node's address is told so in its own words.
fn is_grpc(request: &HttpRequest<Incoming>) -> bool {
    request.headers().get("content-type").is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

fn refused_as_grpc() -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    // 12 is UNIMPLEMENTED.
    headers.insert("grpc-status", HeaderValue::from_static("12"));
    headers.insert(
        "grpc-message",
        HeaderValue::from_static("this is a manager of a ketch cluster, not of a Docker swarm"),
    );
    response
}
