//! Connections to other nodes, kept open, and the calls that are made by them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::DuplexStream;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use super::body::Messages;
use super::refusal::{REFUSED, Refusal};
use super::server::{SPOKEN, VERSION};
use super::tunnel::{fill, parts, tunnel};
use crate::calls::{ASKED, ManagerAddress, Request, StreamRequest, TunnelRequest};
use crate::world::{DialError, Expected, Terms, World};

/// An answer is at most so long.
const MOST_ANSWER: usize = 64 << 20;
/// A refusal's text, and who leads.
const MOST_REFUSAL: usize = 1 << 20;
/// Until a connection is made.
const DIAL: Duration = Duration::from_secs(10);
/// How often a connection is tried while a call waits on it, and for how long until it counts as lost.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Whom a call is made to.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `host:port`.
    pub address: String,
    pub terms: Terms,
}

impl Destination {
    /// A manager, and no other node at its address.
    #[must_use]
    pub fn manager(it: &ManagerAddress) -> Self {
        Self::member(it.address.as_str(), it.expected())
    }

    /// A node of the cluster.
    #[must_use]
    pub fn member(address: impl Into<String>, whom: Expected) -> Self {
        Self { address: address.into(), terms: Terms::Member(whom) }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Perhaps it was done.
    #[error("no answer in time")]
    Late,
    /// Perhaps it was done.
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("what came is no answer: {0}")]
    Unreadable(String),
    /// The other end is of another version of ketch, which speaks otherwise.
    #[error(
        "{address} speaks version {theirs} of what ketch's nodes speak, this node version {VERSION}: bring both to one version of ketch"
    )]
    Version { address: String, theirs: String },
}

impl CallError {
    /// Who leads, when that is what the node that was asked has said: it does not. None in it: it does not know.
    #[must_use]
    pub fn leader(&self) -> Option<Option<ManagerAddress>> {
        let Self::Refused(Refusal::NotLeader { leader }) = self else { return None };
        Some(leader.clone().map(|(node, address)| ManagerAddress { node, address }))
    }
}

type Sender = SendRequest<Full<Bytes>>;
type Slot = Arc<AsyncMutex<Option<Sender>>>;

/// One node's connections to others. Calls to one node share one.
pub struct Links {
    world: Arc<dyn World>,
    open: Mutex<BTreeMap<(String, String), Slot>>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

impl Links {
    #[must_use]
    pub fn new(world: Arc<dyn World>) -> Self {
        Self { world, open: Mutex::default() }
    }

    /// Makes a call; `within` is for all of it, the connection included.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn ask<R: Request>(
        &self,
        to: &Destination,
        request: &R,
        within: Duration,
    ) -> Result<R::Answer, CallError> {
        let body = encode(request)?;
        let answer = self.send(to, R::PATH, body, within).await?;
        serde_json::from_slice(&answer).map_err(|error| CallError::Unreadable(error.to_string()))
    }

    /// Makes a call of bytes.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send(
        &self,
        to: &Destination,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        self.fetch(to, (path, body), (within, MOST_ANSWER)).await
    }

    /// Makes a call of bytes whose answer has at most so many: nobody is believed that they are no more.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn fetch(
        &self,
        to: &Destination,
        (path, body): (&str, Bytes),
        (within, most): (Duration, usize),
    ) -> Result<Bytes, CallError> {
        let call = async {
            let response = accepted(self.request(to, post(to, path, body)?).await?)?;
            collect(response.into_body(), most).await
        };
        timeout(within, call).await.unwrap_or(Err(CallError::Late))
    }

    /// Has a connection be open, or made within that time: what is not reached then may be reached by a later call.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn reach(&self, to: &Destination, within: Duration) -> Result<(), CallError> {
        timeout(within, self.sender(to)).await.unwrap_or(Err(CallError::Late)).map(drop)
    }

    /// Makes a call that is answered by a stream; `within` is until it begins.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn open<R: StreamRequest>(
        &self,
        to: &Destination,
        request: &R,
        within: Duration,
    ) -> Result<Messages<R::Message>, CallError> {
        let request = post(to, R::PATH, encode(request)?)?;
        let call = async { accepted(self.request(to, request).await?) };
        let response = timeout(within, call).await.unwrap_or(Err(CallError::Late))?;
        Ok(Messages::new(response.into_body()))
    }

    /// Makes a call that is a tunnel, by a connection of its own; `within` is until it is answered. Dropped, the tunnel ends.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn tunnel<R: TunnelRequest>(
        &self,
        to: &Destination,
        request: &R,
        within: Duration,
    ) -> Result<DuplexStream, CallError> {
        let (near, far) = tunnel();
        let (body, writer) = parts(far);
        let asked = serde_json::to_vec(request).map_err(|error| unreadable(&error))?;
        let request = HttpRequest::post(format!("https://{}{}", to.address, R::PATH))
            .header(ASKED, asked)
            .body(body)
            .map_err(|error| unreadable(&error))?;
        let call = async {
            let mut sender = Self::connect(Arc::clone(&self.world), to).await?;
            let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
            accepted(judged(to, response).await?)
        };
        let response = timeout(within, call).await.unwrap_or(Err(CallError::Late))?;
        drop(tokio::spawn(fill(response.into_body(), writer)));
        Ok(near)
    }

    /// Sends an HTTP request as it is, whatever is answered; its URI has the node's address in front of the path.
    ///
    /// # Errors
    /// See [`CallError`]; a refusal is an answer here.
    pub async fn request(
        &self,
        to: &Destination,
        request: HttpRequest<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let mut sender = self.sender(to).await?;
        let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
        judged(to, response).await
    }

    /// Closes all connections once their calls are done: the node's certificate, or whom it believes, has changed.
    pub fn renew(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn sender(&self, to: &Destination) -> Result<Sender, CallError> {
        let Terms::Member(whom) = &to.terms else {
            return Self::connect(Arc::clone(&self.world), to).await;
        };
        let key = (to.address.clone(), format!("{whom:?}"));
        let slot =
            Arc::clone(self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        // Held while it is dialled: calls that come meanwhile wait for the same connection.
        let mut open = slot.lock_owned().await;
        if let Some(sender) = open.as_mut()
            && !sender.is_closed()
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        // It goes on when the call is given up: raft's are in less time than a connection takes to be made, and the next one
        // finds it open.
        let (world, to) = (Arc::clone(&self.world), to.clone());
        let dialled = tokio::spawn(async move {
            let sender = timeout(DIAL, Self::connect(world, &to)).await.unwrap_or(Err(CallError::Late))?;
            *open = Some(sender.clone());
            Ok(sender)
        });
        dialled.await.unwrap_or_else(|error| Err(CallError::Lost(error.to_string())))
    }

    async fn connect<B>(world: Arc<dyn World>, to: &Destination) -> Result<SendRequest<B>, CallError>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + Unpin
            + 'static,
    {
        let stream = world.dial(&to.address, to.terms.clone()).await?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            // h2 would know given up calls for a second by the machine's own clock: an answer that comes after it is treated
            // otherwise than one before it. Here all late answers are: nothing hangs on a clock that is not the world's.
            .max_concurrent_reset_streams(0)
            // h2 counts each late answer as a fault of this end, and ends the connection at 1,024 of them; the other end is believed.
            .max_local_error_reset_streams(None)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let foreign = |error: hyper::Error| DialError::Foreign {
            address: to.address.clone(),
            reason: error.to_string(),
        };
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(foreign)?;
        drop(tokio::spawn(connection));
        Ok(sender)
    }
}

/// An answer of a node that speaks as this one does, and does what was asked.
async fn judged(to: &Destination, response: Response<Incoming>) -> Result<Response<Incoming>, CallError> {
    let Some(spoken) = response.headers().get(SPOKEN) else {
        let reason = format!("it answers {}", response.status());
        return Err(DialError::Foreign { address: to.address.clone(), reason }.into());
    };
    if spoken != VERSION {
        let theirs = String::from_utf8_lossy(spoken.as_bytes()).into_owned();
        return Err(CallError::Version { address: to.address.clone(), theirs });
    }
    if response.headers().contains_key(REFUSED) {
        return Err(refusal(response).await);
    }
    Ok(response)
}

fn unreadable(error: &dyn fmt::Display) -> CallError {
    CallError::Unreadable(error.to_string())
}

fn encode(request: &impl serde::Serialize) -> Result<Bytes, CallError> {
    serde_json::to_vec(request).map(Bytes::from).map_err(|error| CallError::Unreadable(error.to_string()))
}

fn post(to: &Destination, path: &str, body: Bytes) -> Result<HttpRequest<Full<Bytes>>, CallError> {
    HttpRequest::post(format!("https://{}{path}", to.address))
        .body(Full::new(body))
        .map_err(|error| CallError::Unreadable(error.to_string()))
}

/// The answer of a call between nodes.
fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, CallError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(CallError::Unreadable(format!("status {status}"))),
    }
}

async fn refusal(response: Response<Incoming>) -> CallError {
    let status = response.status();
    match collect(response.into_body(), MOST_REFUSAL).await.map(|body| serde_json::from_slice(&body)) {
        Ok(Ok(refusal)) => CallError::Refused(refusal),
        Ok(Err(_)) => CallError::Unreadable(format!("status {status}")),
        Err(error) => error,
    }
}

async fn collect(body: Incoming, most: usize) -> Result<Bytes, CallError> {
    let collected = Limited::new(body, most).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        match error.downcast_ref::<LengthLimitError>() {
            Some(_) => CallError::Unreadable(format!("it has more than {most} bytes")),
            None => CallError::Lost(error.to_string()),
        }
    })
}

fn lost(error: &hyper::Error) -> CallError {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    CallError::Lost(format!("{error}{source}"))
}
