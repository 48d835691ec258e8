//! Requests of the Engine API that concern the cluster: the leader answers them, and other managers send them on to it as they
//! are. Both ends of that are here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Uri;
use hyper::http::request::Parts;
use ketch_cluster::control::{ControlError, ErrorKind};
use ketch_cluster::id::NewBits;
use ketch_cluster::store::StoreAction;
use ketch_cluster::view::View;
use ketch_node::calls::{API, ManagerAddress};
use ketch_node::dispatcher::Dispatcher;
use ketch_node::manager::{ChangeError, LeadError, Leader, NO_LEADER};
use ketch_node::node::{Lead, NodeError, NodeErrorKind};
use ketch_node::wire::{Answer, Call, CallError, Destination, Refusal, Service};
use ketch_node::world::Expected;
use tokio::time::{sleep, timeout};

use crate::api::request::{JSON_LIMIT, Request, read};
use crate::api::response::Response;
use crate::api::router::Router;
use crate::api::{routes, server};
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};

/// How long the leader may take to begin an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a request is sent on while the managers elect another leader.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// No header of a client may look so: what came from another manager is not sent on again.
const FORWARDED: &str = "ketch-forwarded";

/// This node leads.
#[derive(Clone, Debug)]
pub(crate) struct Led {
    pub(crate) leader: Arc<Leader>,
    pub(crate) dispatcher: Arc<Dispatcher>,
}

impl Led {
    /// Reads the cluster as of now.
    ///
    /// # Errors
    /// It does not lead any more, has no quorum, or `reader` refuses.
    pub(crate) async fn read<T>(
        &self,
        reader: impl FnOnce(&View<'_>) -> std::result::Result<T, ControlError>,
    ) -> Result<T> {
        self.leader.read().await?;
        Ok(self.leader.view(reader)?)
    }

    /// Changes the cluster.
    ///
    /// # Errors
    /// The same; or nobody knows whether it was changed.
    pub(crate) async fn change<T>(
        &self,
        change: impl FnOnce(
            &View<'_>,
            ketch_cluster::time::Timestamp,
            NewBits<'_>,
        ) -> std::result::Result<(T, Vec<StoreAction>), ControlError>,
    ) -> Result<T> {
        Ok(self.leader.change(change).await?)
    }
}

/// Has a request answered by the leader: here by `answer`, or by another manager.
///
/// # Errors
/// The node is no manager, or nobody leads: dockerd's texts. And `answer`'s.
pub(crate) async fn led<F>(
    daemon: Arc<Daemon>,
    request: Request,
    answer: impl Fn(Arc<Daemon>, Led, Request) -> F,
) -> Result<Response>
where
    F: Future<Output = Result<Response>>,
{
    let is_forwarded = request.parts.headers.contains_key(FORWARDED);
    // First, as dockerd does: of one that is refused with half of a large secret unread, a client sees the broken connection only.
    let mut request = request.whole().await?;
    for _ in 0..TRIES {
        let (leader, dispatcher) = match daemon.node()?.lead().await? {
            Lead::Here(leader, dispatcher) => (leader, dispatcher),
            Lead::There(_) if is_forwarded => break,
            Lead::There(leader) => match forward(&daemon, leader, request).await? {
                Sent::Answered(response) => return Ok(response),
                Sent::Ours(again) => {
                    request = *again;
                    continue;
                }
            },
        };
        let (first, again) = request.twice().await?;
        let led = Led { leader: Arc::clone(&leader), dispatcher };
        match answer(Arc::clone(&daemon), led, first).await {
            // It has just been replaced, and has changed nothing: the next leader is asked, as another manager would.
            Err(error) if error.message == NO_LEADER && leader.has_ended() => {
                request = again;
                sleep(PAUSE).await;
            }
            answered => return answered,
        }
    }
    Err(NodeError::NoLeader.into())
}

/// What has come of a request that was to be sent on.
enum Sent {
    Answered(Response),
    /// This manager leads by now.
    Ours(Box<Request>),
}

/// Sends a request on, to the next leader when that one leads no more. What only reads does not wait for a leader that was replaced
/// and perhaps hangs; what writes does, as it may be done.
async fn forward(daemon: &Daemon, first: ManagerAddress, request: Request) -> Result<Sent> {
    let Request { version, operands, query, parts, body } = request;
    let body = read(body, JSON_LIMIT).await?;
    let only_reads = parts.method.is_safe();
    let mut leader = Some(first);
    for _ in 0..TRIES {
        let to = match leader.take() {
            Some(leader) => leader,
            None => match daemon.node()?.lead().await? {
                Lead::There(leader) => leader,
                Lead::Here(..) => {
                    let request = Request { version, operands, query, parts, body: body.into() };
                    return Ok(Sent::Ours(Box::new(request)));
                }
            },
        };
        let sent = tokio::select! {
            biased;
            sent = send(daemon, &to, &parts, body.clone()) => Some(sent),
            () = replaced(daemon, &to), if only_reads => None,
        };
        match sent {
            Some(Ok(response)) => return Ok(Sent::Answered(response)),
            None => sleep(PAUSE).await,
            Some(Err(CallError::Lost(_))) if only_reads => sleep(PAUSE).await,
            Some(Err(error)) if is_of_no_leader(&error) => sleep(PAUSE).await,
            Some(Err(error)) => return Err(Error::new(Kind::Internal, format!("rpc error: {error}"))),
        }
    }
    Err(NodeError::NoLeader.into())
}

/// Ends once this manager knows of another leader than that one, or of none for some seconds.
async fn replaced(daemon: &Daemon, one: &ManagerAddress) {
    loop {
        sleep(PAUSE).await;
        let Ok(node) = daemon.node() else { return };
        match node.lead().await {
            Ok(Lead::There(now)) if now.node == one.node => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Whether nothing was done, and another manager may be asked.
fn is_of_no_leader(error: &CallError) -> bool {
    let is_refused =
        |refusal: &Refusal| matches!(refusal, Refusal::NotLeader { .. } | Refusal::Unavailable(_));
    match error {
        CallError::Dial(_) => true,
        CallError::Refused(refusal) => is_refused(refusal),
        _ => false,
    }
}

async fn send(
    daemon: &Daemon,
    to: &ManagerAddress,
    parts: &Parts,
    body: Bytes,
) -> Result<Response, CallError> {
    let destination = Destination::member(to.address.as_str(), Expected::Node(to.node));
    let path = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    let mut request = hyper::Request::builder()
        .method(parts.method.clone())
        .uri(format!("https://{}{API}{path}", to.address))
        .header(FORWARDED, "1")
        .body(Full::new(body))
        .map_err(|error| CallError::Unreadable(error.to_string()))?;
    for name in ["content-type", "x-registry-auth", "version"] {
        if let Some(value) = parts.headers.get(name) {
            let _before = request.headers_mut().insert(name, value.clone());
        }
    }
    let node = daemon.node().map_err(|error| CallError::Lost(error.to_string()))?;
    let links = node.links().map_err(|error| CallError::Lost(error.to_string()))?;
    let response = timeout(PATIENCE, links.request(&destination, request)).await;
    let response = response.unwrap_or(Err(CallError::Late))?;
    Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

/// Answers what other managers have sent on.
pub(super) struct Forwarded {
    daemon: Weak<Daemon>,
    router: Arc<Router>,
}

impl Forwarded {
    pub(super) fn new(daemon: Weak<Daemon>) -> Self {
        Self { daemon, router: Arc::new(routes::of_cluster()) }
    }
}

impl Service for Forwarded {
    fn answer(&self, call: Call) -> BoxFuture<'static, std::result::Result<Answer, Refusal>> {
        let (daemon, router) = (self.daemon.upgrade(), Arc::clone(&self.router));
        async move {
            let gone = || Refusal::Unavailable("the daemon is about to end".to_owned());
            let daemon = daemon.ok_or_else(gone)?;
            let node = daemon.node().map_err(|_| gone())?;
            if !matches!(node.lead().await, Ok(Lead::Here(..))) {
                return Err(Refusal::NotLeader { leader: None });
            }
            let Call { mut head, body, .. } = call;
            let path = head.uri.path_and_query().map_or("/", |it| it.as_str());
            let path = path.strip_prefix(API).unwrap_or(path);
            head.uri = path.parse::<Uri>().map_err(|error| Refusal::Invalid(error.to_string()))?;
            let response = server::answer(daemon, router, head, body.into()).await;
            Ok(Answer::Http(response.map(|body| body.map_err(Into::into).boxed_unsync())))
        }
        .boxed()
    }
}

impl From<NodeError> for Error {
    fn from(error: NodeError) -> Self {
        let kind = match error.kind() {
            NodeErrorKind::Unavailable => Kind::Unavailable,
            NodeErrorKind::Invalid => Kind::InvalidArgument,
            NodeErrorKind::Unauthorized => Kind::Unauthorized,
            NodeErrorKind::Conflict => Kind::Conflict,
            NodeErrorKind::Failed => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<LeadError> for Error {
    fn from(error: LeadError) -> Self {
        Self::new(Kind::Internal, error.docker())
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        let kind = match error.kind() {
            ErrorKind::InvalidArgument | ErrorKind::FailedPrecondition => Kind::InvalidArgument,
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::AlreadyExists => Kind::Conflict,
            ErrorKind::PermissionDenied => Kind::Forbidden,
            ErrorKind::Unavailable => Kind::Unavailable,
            ErrorKind::Unimplemented => Kind::NotImplemented,
            ErrorKind::OutOfSequence | ErrorKind::Unknown => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ChangeError<ControlError>> for Error {
    fn from(error: ChangeError<ControlError>) -> Self {
        error.control().map_or_else(Self::from, Self::from)
    }
}
