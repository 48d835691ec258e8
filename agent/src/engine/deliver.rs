//! A signal's way to a container's first process: by whichever shim holds it, or past all shims where none does in time. Called by
//! `signal`, which decides what is sent, and what follows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::container::Container;
use super::living::First;
use super::signal::{ends, until_end};
use crate::error::{Error, Result};
use crate::shim::{CallError, Task};

/// How long a shim may take to follow one that is gone, or to say for the first time what its container does. One that hangs is
/// gone after 12 s.
pub(super) const FOLLOWED: Duration = Duration::from_secs(15);
/// How long an end that has begun may take until it is told.
pub(super) const ENDING: Duration = Duration::from_secs(5);

pub(super) fn not_running(container: &Container) -> Error {
    Error::conflict(format!("container {} is not running", container.id))
}

/// Of a container of an earlier daemon's, which no shim has taken over so far.
pub(super) fn not_known(container: &Container) -> Error {
    Error::conflict(format!(
        "container {} is not taken over from the daemon before yet, as no shim answers for it: try again, or kill it",
        container.id
    ))
}

/// The right to change a container, or what it is made of: [`Container::changing`], for whoever a client waits for.
///
/// # Errors
/// It is one of an earlier daemon's, and [`FOLLOWED`] does not tell what it does: its takeover, which holds the lock, has no end for
/// as long as it lives and no shim can be started.
pub(crate) async fn to_change(container: &Container) -> Result<OwnedMutexGuard<()>> {
    if !container.becomes_known(FOLLOWED).await {
        return Err(not_known(container));
    }
    Ok(Arc::clone(&container.changing).lock_owned().await)
}

/// The shim's side of a container that runs.
///
/// # Errors
/// It does not run, or it is not known yet whether it does.
pub fn running(container: &Container) -> Result<Task> {
    container
        .task()
        .ok_or_else(|| if container.is_known() { not_running(container) } else { not_known(container) })
}

/// Sends a signal. A shim that dies or hangs meanwhile is followed by another, and a daemon's first words with a shim are waited
/// for; where that takes too long the kernel is asked.
///
/// # Errors
/// It does not run.
pub(super) async fn deliver(
    container: &Container,
    signal: u32,
) -> Result<std::result::Result<(), CallError>> {
    if container.is_known() && container.task().is_none() {
        return Err(not_running(container));
    }
    let (deadline, before) = (Instant::now() + FOLLOWED, ends(container));
    loop {
        let sent = match container.task() {
            Some(task) => task.kill("", signal, false).await,
            None if !container.is_known() => Err(CallError::Gone),
            None => {
                let _told = until_end(container, before, Some(ENDING)).await;
                return Ok(Ok(()));
            }
        };
        if !matches!(sent, Err(CallError::Gone)) {
            return Ok(sent);
        }
        if Instant::now() >= deadline {
            let reached = past_all_shims(container, signal).await;
            return Ok(if reached { Ok(()) } else { sent });
        }
        // Who looks for a shim does not wait before it tries again.
        container.awake.notify_waiters();
        let _late = timeout_at(deadline, container.next_task()).await;
    }
}

/// Whether there is a process that it could be sent to.
async fn past_all_shims(container: &Container, signal: u32) -> bool {
    let first = match First::of(container) {
        Ok(first) => first,
        Err(error) => {
            warn!("looking for the first process of {}: {error}", container.id);
            return false;
        }
    };
    let Some(first) = first else { return false };
    let sent = first.signal(signal);
    if let Err(error) = &sent {
        warn!("sending signal {signal} to the first process of {}: {error}", container.id);
    }
    sent.unwrap_or(false)
}
