//! A connection that becomes a stream of bytes in both directions: attach, and the start of an exec.
//!
//! A client that asks for an upgrade gets 101, and the stream begins behind the response's headers. One that does not gets
//! 200 and the output only, as a body.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tracing::debug;

use super::request::Request;
use super::response::{self, Response};
use super::told_end::{self, End, TELLS_END};
use super::version::ApiVersion;

/// Of output in the frames of [`super::stdcopy`].
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Of a terminal's output, and of frames before version 1.42.
pub const RAW: &str = "application/vnd.docker.raw-stream";

/// The client's side of the stream.
#[derive(Debug)]
pub enum Client {
    /// Both directions.
    Connection(Box<TokioIo<Upgraded>>),
    /// Both directions, carried by another stream: in a WebSocket's frames, or with an end that is told.
    Carried(Box<DuplexStream>),
    /// The output only.
    Body(mpsc::Sender<Bytes>),
}

/// The type of output with or without a terminal.
#[must_use]
pub fn content_type(version: ApiVersion, terminal: bool) -> &'static str {
    if terminal || version < ApiVersion::v1(42) { RAW } else { MULTIPLEXED }
}

/// A client's connection, as it can be had once the response is out.
#[derive(Debug)]
pub struct Handover {
    pub(super) connection: OnUpgrade,
    pub(super) end: End,
}

/// The connection of a request that asks for it. For routes that read the body, and with it the request, before they answer.
#[must_use]
pub fn take(request: &mut Request) -> Option<Handover> {
    taken(&mut request.parts)
}

pub(super) fn taken(parts: &mut Parts) -> Option<Handover> {
    let wanted = parts.headers.contains_key(UPGRADE);
    let end = End::of(&mut parts.headers);
    let connection = parts.extensions.remove::<OnUpgrade>().filter(|_| wanted)?;
    Some(Handover { connection, end })
}

/// The response that begins a stream of this type; `serve` is called with the client once the headers are out.
pub fn begin<F>(
    request: &mut Request,
    content_type: &'static str,
    serve: impl FnOnce(Client) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    begin_with(take(request), content_type, serve)
}

/// The same, of a connection that was taken.
pub fn begin_with<F>(
    handover: Option<Handover>,
    content_type: &'static str,
    serve: impl FnOnce(Client) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(Handover { connection, end }) = handover else {
        // Docker hands the connection over here, too, and what follows is never in chunks. Without a length that is HTTP/1.0.
        let (sender, mut response) = response::stream(RAW);
        *response.version_mut() = hyper::Version::HTTP_10;
        drop(tokio::spawn(serve(Client::Body(sender))));
        return response;
    };
    drop(tokio::spawn(async move {
        match connection.await.map(TokioIo::new) {
            Ok(connection) => match end {
                End::Untold => serve(Client::Connection(Box::new(connection))).await,
                End::Told => {
                    told_end::serve(connection, |carried| serve(Client::Carried(Box::new(carried)))).await;
                }
            },
            Err(error) => debug!("a client left before its stream began: {error}"),
        }
    }));
    let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
    let _none = response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    let headers = response.headers_mut();
    let _none = headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let _none = headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let _none = headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    if end == End::Told {
        let _none = headers.insert(TELLS_END, HeaderValue::from_static("1"));
    }
    response
}
