//! Work that waits for the disk, the store, mounts or netlink, beside the event loop.

use crate::error::{Error, Result};

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

/// Drops it where it may wait, and nobody waits for that.
pub(crate) fn drop_later(thing: impl Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(thing))),
        Err(_) => drop(thing),
    }
}
