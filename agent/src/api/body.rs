//! A request's body. What of it nobody reads is still taken from the connection, within bounds, as Go's server does: a client that
//! is still writing would find the connection closed, and never read the answer that is there.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

/// How much is taken after the answer, in bytes; as much as Go's server takes.
const REST: usize = 256 << 10;
/// For how long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The body.
#[derive(Debug)]
pub struct RequestBody(Option<Incoming>);

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        if body.size_hint().lower() <= REST as u64 {
            let rest =
                async move { drop(tokio::time::timeout(PATIENCE, Limited::new(body, REST).collect()).await) };
            drop(runtime.spawn(rest));
        }
    }
}
