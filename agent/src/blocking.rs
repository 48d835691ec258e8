//! Work that waits for the disk, the store, mounts or netlink, beside the event loop.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};

/// Runs it on a thread where it may wait.
///
/// # Errors
/// Its own; or it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("work beside the event loop", &error))?
}

/// What arrives in pieces, for a thread that may wait for them.
#[derive(Debug)]
pub(crate) struct Arriving {
    present: Bytes,
    rest: mpsc::Receiver<io::Result<Bytes>>,
}

impl Arriving {
    pub(crate) fn new(present: Bytes, rest: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { present, rest }
    }
}

impl io::Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.rest.blocking_recv() {
                Some(bytes) => self.present = bytes?,
                None => return Ok(0),
            }
        }
        let count = self.present.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.present.split_to(count));
        Ok(count)
    }
}

/// Drops it where it may wait, and nobody waits for that.
pub(crate) fn drop_later(thing: impl Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(thing))),
        Err(_) => drop(thing),
    }
}

/// Runs it on a thread of its own that ends with it: one that enters or makes a namespace may never be of a pool.
///
/// # Errors
/// Its own; or it panicked.
pub(crate) fn on_a_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(256 << 10)
            .spawn_scoped(scope, work)
            .map_err(|error| Error::internal("starting a thread", &error))?;
        thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a thread panicked")))
    })
}
