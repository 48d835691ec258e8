//! One blob on its way to a registry: mounted from another of its repositories, or sent whole, and again where that broke.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use hyper::{Method, StatusCode};
use tokio::sync::mpsc;

use super::connection::{Body, whole};
use super::repository::{Ask, Repository, escaped, problem};
use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::progress::Progress;

/// Read from a layer at once.
const PIECE: usize = 128 << 10;
/// Between two messages to clients, in bytes.
const STEP: u64 = 512 << 10;
/// As often as a blob is sent.
const ATTEMPTS: u64 = 5;
/// Between two attempts, in seconds, times the number of those that failed.
const PAUSE: u64 = 5;

/// Where an upload goes on.
enum Begun {
    /// The registry has the blob now.
    Mounted,
    /// It is to be sent there.
    At(String),
}

impl Repository {
    /// Sends a blob whole, and lets the registry verify it. Gives the repository that it was mounted from instead, if any.
    pub(super) async fn upload(
        &self,
        digest: Digest,
        size: u64,
        from: Option<&str>,
        body: &(dyn Fn() -> Body + Send + Sync),
        retrying: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<bool> {
        let mut failures = 0;
        loop {
            let error = match self.upload_once(digest, size, from.filter(|_| failures == 0), body).await {
                Ok(mounted) => return Ok(mounted),
                Err(error) => error,
            };
            failures += 1;
            // What the registry refuses it will refuse again.
            let broken = matches!(error.kind, Kind::Internal | Kind::Unavailable);
            if !broken || failures >= ATTEMPTS {
                return Err(error);
            }
            tracing::debug!("sending {digest}: {}", error.message);
            for seconds in (1..=failures * PAUSE).rev() {
                retrying(seconds);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn upload_once(
        &self,
        digest: Digest,
        size: u64,
        from: Option<&str>,
        body: &(dyn Fn() -> Body + Send + Sync),
    ) -> Result<bool> {
        let path = match self.begin_upload(digest, from).await? {
            Begun::Mounted => return Ok(true),
            Begun::At(path) => path,
        };
        let joint = if path.contains('?') { '&' } else { '?' };
        let sent = self
            .send(&Ask {
                method: Method::PUT,
                path: format!("{path}{joint}digest={}", escaped(&digest.to_string())),
                headers: vec![
                    (CONTENT_LENGTH, size.to_string()),
                    (CONTENT_TYPE, "application/octet-stream".to_owned()),
                ],
                body,
            })
            .await?;
        if sent.status().is_success() { Ok(false) } else { Err(problem(sent).await) }
    }

    async fn begin_upload(&self, digest: Digest, from: Option<&str>) -> Result<Begun> {
        let mut path = self.address("blobs/uploads/");
        if let Some(from) = from {
            path.push_str(&format!("?mount={}&from={}", escaped(&digest.to_string()), escaped(from)));
        }
        let headers = vec![(CONTENT_LENGTH, "0".to_owned())];
        let begun =
            self.send(&Ask { method: Method::POST, path, headers, body: &|| whole(Bytes::new()) }).await?;
        match begun.status() {
            StatusCode::CREATED => return Ok(Begun::Mounted),
            StatusCode::ACCEPTED => {}
            _ => return Err(problem(begun).await),
        }
        let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| Error::invalid("the registry names no place to upload to"))?;
        let (_, path) = self.resolve(location)?;
        Ok(Begun::At(path))
    }
}

/// A blob's file as a body, read by a thread of its own.
pub(super) struct Upload {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl Upload {
    pub(super) fn begin(path: std::path::PathBuf, size: u64, id: String, progress: Progress) -> Self {
        let (sender, pieces) = mpsc::channel(8);
        drop(tokio::task::spawn_blocking(move || {
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            let (mut done, mut told) = (0, 0);
            loop {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece).map(|count| {
                    piece.truncate(count);
                    Bytes::from(piece)
                });
                let count = read.as_ref().map_or(0, Bytes::len) as u64;
                let failed = read.is_err();
                let ended = count == 0 && !failed;
                if ended || sender.blocking_send(read).is_err() || failed {
                    return;
                }
                done += count;
                if done - told >= STEP || done == size {
                    told = done;
                    progress.bytes(&id, "Pushing", done, size);
                }
            }
        }));
        Self { pieces, left: size }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.pieces.poll_recv(context).map(|piece| {
            piece.map(|piece| {
                let piece = piece?;
                self.left = self.left.saturating_sub(piece.len() as u64);
                Ok(Frame::data(piece))
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
