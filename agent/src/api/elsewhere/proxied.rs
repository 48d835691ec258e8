//! A client's request, sent on by a tunnel as it is, and its answer, streams and handed-over connections among them. Each request
//! has a tunnel of its own, which ends with its answer or with its client.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, on};
use hyper::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ketch_cluster::id::TaskId;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, split};
use tokio::time::sleep;
use tracing::{debug, info};

use super::visits::TASK_ID;
use crate::api::body::RequestBody;
use crate::api::request::JSON_LIMIT;
use crate::api::response::Response;
use crate::api::told_end::{End, Pieces, TELLS_END};
use crate::error::{Error, Kind, Result};

/// Of a stream, in bytes.
const PIECE: usize = 16 << 10;
/// How often it is looked whether a client who writes no more has gone.
const LOOK: Duration = Duration::from_secs(5);

/// Sends a request; the answer, and whose container has given it. A stream that it has begun and that is cut is told of by `cut`, before the
/// client sees its end.
///
/// # Errors
/// The tunnel ended before there was an answer.
pub(super) async fn send(
    tunnel: DuplexStream,
    path: String,
    (parts, body): (Parts, RequestBody),
    cut: impl FnOnce() + Send + 'static,
) -> Result<(Option<TaskId>, Response)> {
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(tunnel))
        .await
        .map_err(|error| lost(&path, &error))?;
    drop(tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!("a connection to another node's container ended: {error}");
        }
    }));
    let (request, ours) = request_of(&path, parts, body)?;
    let mut response = sender.send_request(request).await.map_err(|error| lost(&path, &error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let end = End::of(response.headers_mut());
        let theirs = on(&mut response);
        drop(tokio::spawn(join(ours, (theirs, end), cut)));
    } else {
        [CONNECTION, TRANSFER_ENCODING].iter().for_each(|name| drop(response.headers_mut().remove(name)));
    }
    let task = response.headers_mut().remove(TASK_ID);
    let task = task.and_then(|task| task.to_str().ok()?.parse().ok());
    Ok((task, response.map(|body| body.map_err(io::Error::other).boxed_unsync())))
}

fn request_of(
    path: &str,
    mut parts: Parts,
    body: RequestBody,
) -> Result<(hyper::Request<RequestBody>, Option<OnUpgrade>)> {
    let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let uri = format!("{path}{query}").parse::<Uri>();
    let uri = uri.map_err(|error| Error::internal(format_args!("asking another node for {path}"), &error))?;
    let ours = parts.extensions.remove::<OnUpgrade>().filter(|_| parts.headers.contains_key(UPGRADE));
    let mut request = hyper::Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = passed_on(parts.headers, ours.is_some());
    Ok((request, ours))
}

/// Without those that are of one connection alone.
fn passed_on(mut headers: HeaderMap, is_handed_over: bool) -> HeaderMap {
    [TRANSFER_ENCODING, EXPECT].iter().for_each(|name| drop(headers.remove(name)));
    if is_handed_over {
        let _before = headers.insert(TELLS_END, HeaderValue::from_static("1"));
    } else {
        [CONNECTION, UPGRADE].iter().for_each(|name| drop(headers.remove(name)));
    }
    let _none = headers.entry(HOST).or_insert(HeaderValue::from_static("docker"));
    headers
}

/// Both connections as one, once they are streams.
async fn join(ours: Option<OnUpgrade>, (theirs, end): (OnUpgrade, End), cut: impl FnOnce()) {
    let Some(ours) = ours else { return };
    let (ours, theirs) = tokio::join!(ours, theirs);
    let Ok(mut ours) = ours.map(TokioIo::new) else { return };
    let passed = match theirs {
        Ok(theirs) => pass_on(&mut ours, TokioIo::new(theirs), end).await,
        Err(error) => Err(Gone::Node(io::Error::other(error))),
    };
    match passed {
        Ok(()) => {}
        Err(Gone::Client(error)) => debug!("the client of another node's container is gone: {error}"),
        Err(Gone::Node(error)) => {
            info!("a stream of another node's container was cut: {error}");
            cut();
        }
    }
}

/// Whose connection broke.
#[derive(Debug)]
enum Gone {
    Client(io::Error),
    Node(io::Error),
}

/// Passes on what comes at either end, until both have ended. A client who writes no more may read still; whether he has gone is
/// looked for then, or a process that says nothing would keep his tunnel for ever. Of TCP that can't be seen.
///
/// # Errors
/// One of them is gone.
async fn pass_on(
    ours: impl AsyncRead + AsyncWrite + Send,
    theirs: impl AsyncRead + AsyncWrite + Send,
    end: End,
) -> std::result::Result<(), Gone> {
    let ((mut from_client, mut to_client), (from_node, mut to_node)) = (split(ours), split(theirs));
    let has_ended = AtomicBool::new(false);
    let up = async {
        let mut piece = vec![0; PIECE];
        loop {
            let length = from_client.read(&mut piece).await.map_err(Gone::Client)?;
            // What takes no more may have ended, and says by the other way how.
            if length == 0 || to_node.write_all(&piece[..length]).await.is_err() {
                break;
            }
        }
        has_ended.store(true, Ordering::Relaxed);
        let _taken = to_node.shutdown().await;
        Ok(())
    };
    let down = async {
        let mut pieces = Pieces::new(from_node, end);
        loop {
            let mut next = pin!(pieces.next());
            let piece = loop {
                tokio::select! {
                    biased;
                    piece = &mut next => break piece,
                    // Nothing is sent; the kernel says whether it could be.
                    () = sleep(LOOK) => if has_ended.load(Ordering::Relaxed) {
                        let _none = to_client.write(&[]).await.map_err(Gone::Client)?;
                    },
                }
            };
            let Some(piece) = piece.map_err(Gone::Node)? else { break };
            to_client.write_all(piece).await.map_err(Gone::Client)?;
            // Of TLS something may be kept back.
            to_client.flush().await.map_err(Gone::Client)?;
        }
        to_client.shutdown().await.map_err(Gone::Client)
    };
    tokio::try_join!(up, down).map(drop)
}

/// The same answer with another object.
///
/// # Errors
/// The tunnel ended, or there is no object.
pub(super) async fn with_json(response: Response, change: impl FnOnce(&mut Value)) -> Result<Response> {
    let (mut parts, body) = response.into_parts();
    let bytes = http_body_util::Limited::new(body, JSON_LIMIT).collect().await;
    let bytes =
        bytes.map_err(|error| Error::new(Kind::Unavailable, format!("another node's answer: {error}")))?;
    let mut value: Value = serde_json::from_slice(&bytes.to_bytes())
        .map_err(|error| Error::internal("reading another node's answer", &error))?;
    change(&mut value);
    let _before = parts.headers.remove(CONTENT_LENGTH);
    let body = Full::from(format!("{value}\n")).map_err(|never| match never {}).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

/// A JSON answer's whole, of so many bytes at most, and of how many it is.
///
/// # Errors
/// The tunnel ended, or the node refuses: its words.
pub(super) async fn json(response: Response, most: usize) -> Result<(Value, usize)> {
    let status = response.status();
    let bytes = http_body_util::Limited::new(response.into_body(), most).collect().await;
    let bytes = bytes.map_err(|error| Error::new(Kind::Unavailable, error.to_string()))?.to_bytes();
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| Error::internal("reading an answer", &error))?;
    match status {
        StatusCode::OK => Ok((value, bytes.len())),
        _ => {
            let text = value.get("message").and_then(Value::as_str).unwrap_or("it refuses").to_owned();
            Err(Error::new(Kind::Unavailable, text))
        }
    }
}

/// A connection's bytes are an Engine API's, whatever the node is.
fn lost(path: &str, error: &hyper::Error) -> Error {
    let text = format!("the connection to the container's node was lost, asking for {path}: {error}");
    Error::new(Kind::Unavailable, text)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use tokio::io::{copy_bidirectional, duplex};
    use tokio::net::UnixStream;

    use super::*;
    use crate::api::hijack::{self, Client};
    use crate::api::server;

    /// An exec's start on another node, asked for by a client of this one: the process says a word, and ends or goes on.
    #[tokio::test]
    async fn a_stream_that_is_cut_is_told_of_and_one_that_ends_is_not() {
        for is_cut in [false, true] {
            let (tunnel, mut ours) = duplex(64);
            let (mut theirs, node) = duplex(64);
            let passing = tokio::spawn(async move { copy_bidirectional(&mut ours, &mut theirs).await });
            let process = move |client: Client| async move {
                let Client::Carried(mut client) = client else { panic!("its end is told") };
                client.write_all(b"out").await.unwrap();
                if is_cut {
                    std::future::pending::<()>().await;
                }
            };
            let start = service_fn(move |request: hyper::Request<Incoming>| {
                let mut parts = request.into_parts().0;
                let begun = hijack::begin_with(hijack::taken(&mut parts), hijack::RAW, process);
                async move { Ok::<_, Infallible>(begun) }
            });
            let serving = server::http().serve_connection(TokioIo::new(node), start).with_upgrades();
            drop(tokio::spawn(serving));
            let (cut, mut was_cut) = tokio::sync::mpsc::channel(1);
            let tunnel = Mutex::new(Some(tunnel));
            let sends_on = service_fn(move |request: hyper::Request<Incoming>| {
                let (tunnel, cut) = (tunnel.lock().unwrap().take().unwrap(), cut.clone());
                let (parts, body) = request.into_parts();
                let note = move || cut.try_send(()).unwrap();
                let sent = send(tunnel, "/exec/x/start".to_owned(), (parts, body.into()), note);
                async move { Ok::<_, Infallible>(sent.await.unwrap().1) }
            });
            let (mut client, manager) = UnixStream::pair().unwrap();
            let serving = server::http().serve_connection(TokioIo::new(manager), sends_on).with_upgrades();
            drop(tokio::spawn(serving));
            let request =
                "POST /exec/x/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            let mut came = Vec::new();
            while !came.ends_with(b"\r\n\r\nout") {
                came.push(client.read_u8().await.unwrap());
            }
            assert!(!String::from_utf8(came).unwrap().to_lowercase().contains("ketch"));
            if is_cut {
                passing.abort();
            }
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            assert_eq!((rest.len(), was_cut.try_recv().is_ok()), (0, is_cut));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_no_more_reads_still_and_who_has_gone_ends_it() {
        let (ours, mut client) = UnixStream::pair().unwrap();
        let (theirs, mut node) = duplex(64);
        let passing = tokio::spawn(async move { pass_on(ours, theirs, End::Untold).await });
        client.write_all(b"in").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        node.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "in");
        sleep(LOOK * 3).await;
        assert!(!passing.is_finished(), "it may say something yet");
        node.write_all(b"out").await.unwrap();
        let mut came = [0; 3];
        client.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"out");
        drop(client);
        let Err(Gone::Client(ended)) = passing.await.unwrap() else { panic!("he has gone") };
        assert_eq!(ended.kind(), io::ErrorKind::BrokenPipe);
    }
}
