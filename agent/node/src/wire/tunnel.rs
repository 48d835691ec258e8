//! A stream of bytes in both directions as one call: what is written is the call's body, what is read is its answer's.
//!
//! Each tunnel has a connection of its own ([`Links::tunnel`](super::Links::tunnel)): one whose reader is slow holds up nobody
//! else's window. It behaves as a socket does: the end of what one side writes is the end of what the other one reads, and a side
//! that is gone is seen by who reads (an end) and by who writes (an error).

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::{
    AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, copy_bidirectional, duplex, split,
};

use super::body::Body;

/// What waits in one direction for its reader, in bytes, beside HTTP's own window.
const ROOM: usize = 64 << 10;
/// Of a frame, in bytes.
const PIECE: usize = 16 << 10;

/// The two ends of a tunnel.
#[must_use]
pub fn tunnel() -> (DuplexStream, DuplexStream) {
    duplex(ROOM)
}

/// Passes on what comes at either end, until both have ended or one is gone. Dropped, both are.
pub async fn splice(mut one: DuplexStream, mut other: DuplexStream) {
    if let Err(error) = copy_bidirectional(&mut one, &mut other).await {
        tracing::debug!(%error, "an end of a tunnel is gone");
    }
}

/// The far end as what HTTP carries: the body that is sent, and where to put what comes.
pub(super) fn parts(far: DuplexStream) -> (Body, WriteHalf<DuplexStream>) {
    let (reader, writer) = split(far);
    (body(reader), writer)
}

fn body(reader: ReadHalf<DuplexStream>) -> Body {
    let frames = unfold(reader, async |mut reader| {
        let mut piece = vec![0; PIECE];
        match reader.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Frame::data(Bytes::from(piece))), reader))
            }
            Err(error) => Some((Err(error.into()), reader)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Puts what comes into the tunnel, until it ends, is cut, or nobody reads any more.
pub(super) async fn fill(mut incoming: Incoming, mut writer: WriteHalf<DuplexStream>) {
    while let Some(Ok(frame)) = incoming.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        if writer.write_all(&data).await.is_err() {
            return;
        }
    }
    // The reader may be gone as well.
    let _gone = writer.shutdown().await;
}
