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
pub struct RequestBody(Source);

#[derive(Debug)]
enum Source {
    /// A client's connection.
    Connection(Incoming),
    /// Another manager has sent it on: it is here as a whole.
    Whole(Bytes),
    Done,
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self(Source::Connection(body))
    }
}

impl From<Bytes> for RequestBody {
    fn from(body: Bytes) -> Self {
        Self(Source::Whole(body))
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
            Source::Connection(body) => Pin::new(body).poll_frame(context),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Source::Done;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Connection(body) => body.is_end_stream(),
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Connection(body) => body.size_hint(),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Done => SizeHint::with_exact(0),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Source::Connection(body) = std::mem::replace(&mut self.0, Source::Done) else { return };
        if body.is_end_stream() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if body.size_hint().lower() <= REST as u64 {
            let rest =
                async move { drop(tokio::time::timeout(PATIENCE, Limited::new(body, REST).collect()).await) };
            drop(runtime.spawn(rest));
        }
    }
}
