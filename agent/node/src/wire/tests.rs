//! Calls over a pipe in memory: whole answers, streams, refusals, and what does not speak as a node does.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::id::NodeId;
use ketch_cluster::time::Timestamp;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::calls::{
    Heartbeat, HeartbeatTaken, ManagerAddress, Request, RootAsked, Roots, SessionAsked, SessionMessage,
    StreamMessage, StreamRequest,
};
use crate::world::{
    Accepted, Caller, Credentials, DialError, Disk, Expected, Listener, Stream, Terms, World,
};
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
/// Somebody drops what is sent there.
const SILENT: &str = "10.0.0.9:7947";

/// Hands out the ends of pipes.
#[derive(Debug, Default)]
struct Pipes(Mutex<VecDeque<DuplexStream>>);

impl World for Pipes {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn bits(&self) -> u128 {
        0
    }

    fn dial(&self, address: &str, _: Terms) -> BoxFuture<'static, Result<Box<dyn Stream>, DialError>> {
        if address == SILENT {
            return std::future::pending().boxed();
        }
        let end = self.0.lock().unwrap().pop_front();
        let unreachable =
            DialError::Unreachable { address: address.to_owned(), reason: "no pipe".to_owned() };
        async move { end.map(|end| Box::new(end) as Box<dyn Stream>).ok_or(unreachable) }.boxed()
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn adopt(&self, _: Credentials) {}

    fn disk(&self) -> Arc<dyn Disk> {
        panic!("these tests have none")
    }
}

struct Echo;

impl Service for Echo {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        async move {
            match call.path() {
                RootAsked::PATH => Answer::of(&Roots { roots: "x".repeat(3_000_000), now: None }),
                Heartbeat::PATH => {
                    let asked: Heartbeat = call.read()?;
                    if asked.session == 1 {
                        return Err(Refusal::NotLeader {
                            leader: Some((NodeId::of(7), "10.0.0.7:2377".to_owned())),
                        });
                    }
                    Answer::of(&HeartbeatTaken { next: Duration::from_secs(2) })
                }
                SessionAsked::PATH => {
                    let (sender, receiver) = mpsc::channel(1);
                    tokio::spawn(async move {
                        for session in 0..3 {
                            let message =
                                SessionMessage::Begun { session, heartbeat: Duration::from_secs(2) };
                            sender.send(Answer::message(&message).unwrap()).await.unwrap();
                            for later in [serde_json::json!({ "Later": { "so": 1 } }), "Latest".into()] {
                                sender.send(Answer::message(&later).unwrap()).await.unwrap();
                            }
                        }
                    });
                    Ok(Answer::Stream(receiver))
                }
                "/api" => {
                    let mut response = hyper::Response::new(body::whole(bytes::Bytes::from_static(b"{}")));
                    *response.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
                    Ok(Answer::Http(response))
                }
                path => Err(Refusal::Invalid(path.to_owned())),
            }
        }
        .boxed()
    }
}

/// Takes in next to nothing.
struct Narrow;

impl Service for Narrow {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        Echo.answer(call)
    }

    fn bounds(&self, _: &Caller) -> Bounds {
        Bounds { streams: 1, body: 8 }
    }
}

/// Links that reach servers of [`Echo`], so many times.
fn links(connections: usize, caller: Caller) -> (Links, Destination) {
    links_to(Arc::new(Echo), connections, caller)
}

fn links_to(service: Arc<dyn Service>, connections: usize, caller: Caller) -> (Links, Destination) {
    let pipes = Pipes::default();
    for _ in 0..connections {
        let (here, there) = duplex(1 << 16);
        pipes.0.lock().unwrap().push_back(here);
        let accepted =
            Accepted { stream: Box::new(there), caller, chain: Vec::new(), address: "10.0.0.1".to_owned() };
        tokio::spawn(serve(accepted, Arc::clone(&service)));
    }
    let to = Destination::member("10.0.0.2:2377", Expected::Node(NodeId::of(2)));
    (Links::new(Arc::new(pipes)), to)
}

#[tokio::test]
async fn calls_share_a_connection_and_answers_may_be_long() {
    let (links, to) = links(1, Caller::Stranger);
    let (first, second) =
        tokio::join!(links.ask(&to, &RootAsked {}, SOON), links.ask(&to, &RootAsked {}, SOON));
    assert_eq!((first.unwrap().roots.len(), second.unwrap().roots.len()), (3_000_000, 3_000_000));
}

#[tokio::test]
async fn a_service_has_bounds_of_its_own() {
    let (links, to) = links_to(Arc::new(Narrow), 1, Caller::Stranger);
    let refused = links.ask(&to, &Heartbeat { session: 2 }, SOON).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(Refusal::Invalid(_))), "{refused:?}");
    assert!(links.ask(&to, &RootAsked {}, SOON).await.is_ok(), "`{{}}` is short");
}

#[tokio::test]
async fn more_than_was_asked_for_is_not_taken() {
    let (links, to) = links(1, Caller::Stranger);
    let root = || (RootAsked::PATH, bytes::Bytes::from_static(b"{}"));
    let error = links.fetch(&to, root(), (SOON, 2_000_000)).await.unwrap_err();
    assert_eq!(error, CallError::Unreadable("it has more than 2000000 bytes".to_owned()));
    assert!(links.fetch(&to, root(), (SOON, 4_000_000)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_is_not_reached_is_not_waited_for() {
    let (links, to) = links(1, Caller::Stranger);
    let silent = Destination::member(SILENT, Expected::Node(NodeId::of(9)));
    let begun = tokio::time::Instant::now();
    assert_eq!(links.reach(&silent, Duration::from_secs(2)).await, Err(CallError::Late));
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    assert_eq!(links.reach(&to, Duration::from_secs(2)).await, Ok(()));
    assert!(links.ask(&to, &RootAsked {}, SOON).await.is_ok(), "by the same connection: there is no other");
}

#[tokio::test]
async fn a_refusal_says_who_leads() {
    let (links, to) = links(1, Caller::Stranger);
    let error = links.ask(&to, &Heartbeat { session: 1 }, SOON).await.unwrap_err();
    let leader = ManagerAddress { node: NodeId::of(7), address: "10.0.0.7:2377".to_owned() };
    assert_eq!(error.leader(), Some(Some(leader)));
    assert_eq!(links.ask(&to, &Heartbeat { session: 2 }, SOON).await.unwrap().next, Duration::from_secs(2));
}

#[tokio::test]
async fn a_stream_brings_its_messages_without_those_of_later_versions_and_ends() {
    let (links, to) = links(1, Caller::Stranger);
    let asked = SessionAsked {
        description: Default::default(),
        roots: Vec::new(),
        words: Vec::new(),
        address: String::new(),
        process: 0,
        tunnels: true,
        layers: 0,
    };
    let mut messages = links.open(&to, &asked, SOON).await.unwrap();
    for expected in 0..3 {
        match messages.next().await.unwrap() {
            Some(SessionMessage::Begun { session, .. }) => assert_eq!(session, expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(messages.next().await.unwrap().is_none());
}

#[test]
fn every_kind_of_message_is_known_as_one() {
    let error = serde_json::from_str::<SessionMessage>("\"Later\"").unwrap_err().to_string();
    let kinds: Vec<_> = SessionMessage::KINDS.iter().map(|kind| format!("`{kind}`")).collect();
    let expected = format!("unknown variant `Later`, expected one of {} at", kinds.join(", "));
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn a_connection_that_was_lost_is_made_again() {
    let (links, to) = links(2, Caller::Stranger);
    links.ask(&to, &Heartbeat { session: 2 }, SOON).await.unwrap();
    links.renew();
    links.ask(&to, &Heartbeat { session: 2 }, SOON).await.unwrap();
    links.renew();
    let error = links.ask(&to, &Heartbeat { session: 2 }, SOON).await.unwrap_err();
    assert!(matches!(error, CallError::Dial(DialError::Unreachable { .. })), "{error}");
}

#[tokio::test]
async fn what_is_no_node_is_told_apart() {
    let pipes = Pipes::default();
    let (here, there) = duplex(1 << 16);
    pipes.0.lock().unwrap().push_back(here);
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut there = there;
        there.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let to = Destination::member("10.0.0.2:2377", Expected::Node(NodeId::of(2)));
    let error = Links::new(Arc::new(pipes)).ask(&to, &RootAsked {}, SOON).await.unwrap_err();
    assert!(matches!(error, CallError::Dial(DialError::Foreign { .. }) | CallError::Lost(_)), "{error:?}");
}

/// A node of a later version answers, or asks.
#[tokio::test]
async fn another_version_is_told_at_both_ends() {
    let (near, far) = duplex(1 << 16);
    let later = hyper::service::service_fn(async |_| {
        let mut response = hyper::Response::new(http_body_util::Empty::<bytes::Bytes>::new());
        response.headers_mut().insert("ketch-node", "2".parse().unwrap());
        Ok::<_, std::convert::Infallible>(response)
    });
    let executor = hyper_util::rt::TokioExecutor::new();
    let server = hyper::server::conn::http2::Builder::new(executor);
    tokio::spawn(server.serve_connection(hyper_util::rt::TokioIo::new(far), later));
    let pipes = Pipes::default();
    pipes.0.lock().unwrap().push_back(near);
    let to = Destination::member("10.0.0.2:2377", Expected::Node(NodeId::of(2)));
    let error = Links::new(Arc::new(pipes)).ask(&to, &RootAsked {}, SOON).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "10.0.0.2:2377 speaks version 2 of what ketch's nodes speak, this node version 1: bring both to one version of ketch"
    );

    let (links, to) = links(1, Caller::Stranger);
    let error = links.send(&to, "/ketch/v2/root", bytes::Bytes::new(), SOON).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "this node speaks version 1 of what ketch's nodes speak, and was asked in version 2: bring both to one version of ketch"
    );
}

/// An answer of the Engine API with a status of an error is an answer.
#[tokio::test]
async fn a_refusal_is_told_from_an_answer_of_the_api() {
    let (links, to) = links(1, Caller::Stranger);
    let ask = async |path: &str| {
        let request = hyper::Request::get(format!("https://10.0.0.2:2377{path}"));
        links.request(&to, request.body(http_body_util::Full::default()).unwrap()).await
    };
    assert_eq!(ask("/api").await.unwrap().status(), 503);
    let refused = ask("/nothing").await.unwrap_err();
    assert_eq!(refused, CallError::Refused(Refusal::Invalid("/nothing".to_owned())));
}

#[test]
fn a_message_that_the_other_end_would_not_take_is_not_made() {
    let most = Answer::message(&"x".repeat((64 << 20) - 2)).unwrap();
    assert_eq!(most.len(), (64 << 20) + 4);
    let refused = Answer::message(&"x".repeat((64 << 20) - 1)).unwrap_err();
    assert_eq!(refused, Refusal::Failed("a message of 67108865 bytes is too long".to_owned()));
}
