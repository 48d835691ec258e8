//! A stream of bytes in both directions as one call: what is written is the call's body, what is read is its answer's.
//!
//! Each tunnel has a connection of its own ([`Links::tunnel`](super::Links::tunnel)): one whose reader is slow holds up nobody
//! else's window. It behaves as a socket does: the end of what one side writes is the end of what the other one reads, and a side
//! that is gone is seen by who reads (an end) and by who writes (an error).

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::Instant;

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

/// What passes through a tunnel, for whoever wants its place.
#[derive(Debug)]
pub struct Flow(Mutex<Passed>);

#[derive(Debug)]
struct Passed {
    last: Instant,
    /// One of its ends writes no more.
    is_half: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Self(Mutex::new(Passed { last: Instant::now(), is_half: false }))
    }
}

impl Flow {
    /// How long nothing has passed, of a tunnel into which one of its ends writes no more: nobody may be left there.
    #[must_use]
    pub fn quiet_for(&self, now: Instant) -> Option<Duration> {
        let passed = self.passed();
        passed.is_half.then(|| now.saturating_duration_since(passed.last))
    }

    fn passes(&self) {
        self.passed().last = Instant::now();
    }

    pub(crate) fn ends(&self) {
        *self.passed() = Passed { last: Instant::now(), is_half: true };
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on what comes at either end, until both have ended or one is gone. Dropped, both are.
pub async fn splice(one: DuplexStream, other: DuplexStream, flow: &Flow) {
    let ((from_one, to_one), (from_other, to_other)) = (split(one), split(other));
    let passed = tokio::try_join!(pass(from_one, to_other, flow), pass(from_other, to_one, flow));
    if let Err(error) = passed {
        tracing::debug!(%error, "an end of a tunnel is gone");
    }
}

async fn pass(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    flow: &Flow,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            break;
        }
        to.write_all(&piece[..length]).await?;
        flow.passes();
    }
    flow.ends();
    to.shutdown().await
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
