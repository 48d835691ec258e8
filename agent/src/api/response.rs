//! What a route gives back: a status with JSON, text, or a stream of chunks.

use std::convert::{Infallible, identity};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};

/// A body, whichever. An error cuts the connection: the client knows then that it has not had all.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// A response.
pub type Response = hyper::Response<Body>;

/// Clients compare the type of an error's body with this, letter by letter.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The status of an error's kind (moby's `httpstatus`).
#[must_use]
pub fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::InvalidArgument => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// No body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    with(status, Empty::new().map_err(never))
}

/// It is somewhere else.
#[must_use]
pub fn moved(place: &str) -> Response {
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    if let Ok(place) = HeaderValue::from_str(place) {
        let _none = response.headers_mut().insert(LOCATION, place);
    }
    response
}

/// An object, with the newline that Go's encoder ends with.
///
/// # Errors
/// The value can't be encoded.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Result<Response> {
    let mut bytes =
        serde_json::to_vec(value).map_err(|error| Error::internal("encoding the response", &error))?;
    bytes.push(b'\n');
    let mut response = with(status, Full::new(Bytes::from(bytes)).map_err(never));
    let _none = response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// The body of a failed request.
#[must_use]
pub fn error(error: &Error) -> Response {
    if error.kind == Kind::NotModified {
        return empty(StatusCode::NOT_MODIFIED);
    }
    let body = serde_json::json!({ "message": error.message });
    json(status_of(error.kind), &body).unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
}

/// The body of a failed request as it was before 1.24, and as Go's server itself answers.
#[must_use]
pub fn plain_error(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = bytes(status, "text/plain; charset=utf-8", text);
    let _none = response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Bytes of this type.
#[must_use]
pub fn bytes(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = with(status, Full::new(bytes.into()).map_err(never));
    let _none = response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A stream: the headers go out at once, then whatever is sent to the other end, until that is dropped. A send fails when
/// the client has gone.
#[must_use]
pub fn stream(content_type: &'static str) -> (mpsc::Sender<Bytes>, Response) {
    let (sender, receiver) = mpsc::channel(16);
    (sender, streamed(content_type, Chunks { receiver, framed: Ok }))
}

/// The same of something that must not seem whole where it is not: an error that is sent cuts the connection.
#[must_use]
pub fn archive(content_type: &'static str) -> (mpsc::Sender<io::Result<Bytes>>, Response) {
    let (sender, receiver) = mpsc::channel(16);
    (sender, streamed(content_type, Chunks { receiver, framed: identity }))
}

fn streamed<T: Send + 'static>(content_type: &'static str, chunks: Chunks<T>) -> Response {
    let mut response = with(StatusCode::OK, chunks);
    let _none = response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What is in memory does not fail.
fn never(error: Infallible) -> io::Error {
    match error {}
}

fn with(
    status: StatusCode,
    body: impl HttpBody<Data = Bytes, Error = io::Error> + Send + 'static,
) -> Response {
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

struct Chunks<T> {
    receiver: mpsc::Receiver<T>,
    framed: fn(T) -> io::Result<Bytes>,
}

impl<T> HttpBody for Chunks<T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let framed = self.framed;
        self.receiver.poll_recv(context).map(|chunk| chunk.map(|chunk| framed(chunk).map(Frame::data)))
    }
}
