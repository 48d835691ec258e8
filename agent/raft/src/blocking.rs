//! Where work is done that waits for a disk.

use std::io;

/// Reads and writes of the disk take milliseconds and more, in which no other task of that thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// On tokio's threads for such work: the system.
    Threads,
    /// At once, so that one thread and one order of events are all there is: the simulation.
    Inline,
}

impl Blocking {
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Inline => work(),
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
        }
    }
}
