//! A descriptor that a task can wait for: epoll(7) through tokio, for descriptors that are no sockets.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Owns the descriptor for as long as it is registered; it can be looked at, but neither taken out nor exchanged.
#[derive(Debug)]
pub struct WatchedFd(AsyncFd<OwnedFd>);

impl WatchedFd {
    /// Registers a descriptor, which must not block. Only within a tokio runtime.
    ///
    /// # Errors
    /// `EPERM` for what can't be waited for, such as a regular file.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor must stay open and the same while it is registered. The `OwnedFd` owns it, and nothing
        // outside this type can reach it but by shared reference, through which it can be neither closed nor exchanged.
        let registered = unsafe { AsyncFd::register(fd) };
        registered.map(Self).map_err(io::Error::from)
    }
}

impl Deref for WatchedFd {
    type Target = AsyncFd<OwnedFd>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
