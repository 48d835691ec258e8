//! What a route gives back: a status with JSON, text, or a stream of chunks.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};

/// A body, whichever.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
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
    with(status, Empty::new().boxed_unsync())
}

/// An object, with the newline that Go's encoder ends with.
///
/// # Errors
/// The value can't be encoded.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Result<Response> {
    let mut bytes =
        serde_json::to_vec(value).map_err(|error| Error::internal("encoding the response", &error))?;
    bytes.push(b'\n');
    let mut response = with(status, Full::new(Bytes::from(bytes)).boxed_unsync());
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
    let mut response = with(status, Full::new(bytes.into()).boxed_unsync());
    let _none = response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A stream: the headers go out at once, then whatever is sent to the other end, until that is dropped. A send fails when
/// the client has gone.
#[must_use]
pub fn stream(content_type: &'static str) -> (mpsc::Sender<Bytes>, Response) {
    let (sender, receiver) = mpsc::channel(16);
    let mut response = with(StatusCode::OK, Chunks(receiver).boxed_unsync());
    let _none = response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    (sender, response)
}

fn with(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

struct Chunks(mpsc::Receiver<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
