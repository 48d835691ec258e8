//! Signals to a container, and what is made of them: kill, stop, restart; pause and unpause, the terminal's size.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use super::container::{Container, Life};
use super::deliver::{ENDING, FOLLOWED, deliver, not_running, to_change};
use super::ending;
use super::lifecycle;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};

pub use super::deliver::running;
pub use super::signal_number::number;

/// SIGKILL.
pub(super) const KILL: u32 = 9;
/// SIGTERM, what a container is stopped with that says nothing else.
const TERM: u32 = 15;
/// How long a container is given that says nothing else.
pub(super) const PATIENCE: i64 = 10;
/// How long the end may take after SIGKILL.
pub(super) const AFTER_KILL: Duration = Duration::from_secs(10);

/// What it is stopped with.
fn stop_signal(container: &Container) -> u32 {
    container.read(|record| number(&record.config.stop_signal).unwrap_or(TERM))
}

/// Sends a signal and tells of it; 0 asks for the container's end.
///
/// # Errors
/// It does not run; the shim's words.
pub async fn kill(daemon: &Arc<Daemon>, container: &Arc<Container>, signal: u32) -> Result<()> {
    if signal == 0 || signal == KILL {
        return kill_and_wait(daemon, container).await;
    }
    send(daemon, container, signal).await
}

async fn kill_and_wait(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<()> {
    if !container.is_running() {
        return Err(not_running(container));
    }
    let ends = ends(container);
    send(daemon, container, KILL).await?;
    if until_end(container, ends, Some(AFTER_KILL)).await {
        return Ok(());
    }
    // It may have ended, and its shim not say so: never, or not before its output is read, which a log's server holds up that hangs.
    if let Some(task) = container.task()
        && (!task.is_alive().await || ending::first_of(container).is_none())
        && until_end(container, ends, Some(AFTER_KILL)).await
    {
        return Ok(());
    }
    Err(Error::new(
        Kind::Internal,
        format!("tried to kill container, but did not receive an exit event: {}", container.id),
    ))
}

async fn send(daemon: &Arc<Daemon>, container: &Arc<Container>, signal: u32) -> Result<()> {
    let (running, restarting, paused) =
        container.read(|record| (record.state.running, record.state.restarting, record.state.paused));
    if !running {
        return Err(not_running(container));
    }
    // Only what is meant to end it keeps it from being started again.
    if signal == KILL || signal == stop_signal(container) {
        by_hand(daemon, container);
        if signal == KILL {
            container.doom();
        }
        if restarting && end_pause(daemon, container).await? {
            return Ok(());
        }
        note(daemon, container).await;
    }
    let ends = ends(container);
    match deliver(container, signal).await? {
        Ok(()) => {}
        // Its end is on the way.
        Err(error) if error.is_not_found() => {}
        // So it is where the runtime misses what goes with the end.
        Err(error) if !until_end(container, ends, Some(ENDING)).await => {
            return Err(Error::new(
                Kind::Internal,
                format!("Cannot kill container {}: {error}", container.id),
            ));
        }
        Err(_) => {}
    }
    if paused && signal != 19 {
        // A frozen process would not hear of it.
        if container.read(|record| record.state.paused)
            && let Some(task) = container.task()
        {
            let _ended = task.resume().await;
        }
    }
    container.publish_with(daemon, "kill", &[("signal", signal.to_string())]);
    Ok(())
}

/// Remembers that somebody wants it stopped; the end of the daemon is nobody, and its policy starts it again.
fn by_hand(daemon: &Daemon, container: &Container) {
    if !daemon.is_ending() {
        container.change(|record| record.was_stopped = true);
    }
}

/// Has the store know that somebody wants it stopped. A disk that is full is no reason not to.
async fn note(daemon: &Arc<Daemon>, container: &Container) {
    if let Err(error) = container.save(daemon).await {
        warn!("{error}");
    }
}

/// Stops a container that waits to be started again; false when it does not wait: its start may have begun, and has ended by then.
async fn end_pause(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<bool> {
    if !container.read(|record| record.state.restarting) {
        return Ok(false);
    }
    // It may run after all.
    if !container.becomes_known(FOLLOWED).await {
        return Ok(false);
    }
    let _changing = container.changing.lock().await;
    let waited = container.change(|record| {
        let waited = record.state.restarting;
        if waited {
            record.state.running = false;
            record.state.restarting = false;
        }
        waited
    });
    if !waited {
        return Ok(false);
    }
    container.awake.notify_waiters();
    container.life.send_modify(|life| life.running = false);
    note(daemon, container).await;
    Ok(true)
}

/// How often it has ended so far.
pub(super) fn ends(container: &Container) -> u64 {
    container.life.borrow().ends
}

/// Whether there was another end before the time was over; without one it waits for ever.
pub(super) async fn until_end(container: &Container, before: u64, limit: Option<Duration>) -> bool {
    let mut life = container.life.subscribe();
    let so = |life: &Life| life.ends > before || !life.running || life.removed;
    let ended = async { life.wait_for(so).await.is_ok() };
    match limit {
        None => ended.await,
        Some(limit) => tokio::time::timeout(limit, ended).await.unwrap_or(false),
    }
}

/// How a container is to be stopped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop {
    /// Instead of the container's own.
    pub signal: Option<u32>,
    /// Seconds, instead of the container's own; negative: for ever.
    pub timeout: Option<i64>,
}

/// Stops a container.
///
/// # Errors
/// It does not run; it can't be ended.
pub async fn stop(daemon: &Arc<Daemon>, container: &Arc<Container>, how: Stop) -> Result<()> {
    if !container.is_running() {
        // Of any other it is remembered neither here nor by dockerd: its policy starts it with the next daemon.
        if container.waits_for_cluster.load(Ordering::Relaxed) {
            by_hand(daemon, container);
            note(daemon, container).await;
        }
        return Err(Error::new(Kind::NotModified, "container is already stopped"));
    }
    end(daemon, container, how).await?;
    container.publish(daemon, "stop");
    Ok(())
}

/// Ends it, by its signal, or by SIGKILL when its time is over.
///
/// # Errors
/// It can't be ended.
pub(super) async fn end(daemon: &Arc<Daemon>, container: &Arc<Container>, how: Stop) -> Result<()> {
    let own = container.read(|record| record.config.stop_timeout);
    let timeout = how.timeout.or(own).unwrap_or(PATIENCE);
    let limit = u64::try_from(timeout).ok().map(Duration::from_secs);
    let before = ends(container);
    by_hand(daemon, container);
    if end_pause(daemon, container).await? {
        return Ok(());
    }
    let signal = how.signal.unwrap_or_else(|| stop_signal(container));
    match send(daemon, container, signal).await {
        Err(error) if error.kind == Kind::Conflict => return Ok(()),
        // It is not to live on for that.
        Err(error) => warn!("{error}"),
        Ok(()) if until_end(container, before, limit).await => return Ok(()),
        Ok(()) => {}
    }
    match kill_and_wait(daemon, container).await {
        Err(error) if error.kind == Kind::Conflict => Ok(()),
        killed => killed,
    }
}

/// Ends it without being a stop: its restart policy decides what follows.
///
/// # Errors
/// It does not run; it can't be ended.
pub(super) async fn end_for_restart(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<()> {
    let timeout = container.read(|record| record.config.stop_timeout).unwrap_or(PATIENCE);
    let limit = u64::try_from(timeout).ok().map(Duration::from_secs);
    let before = ends(container);
    for (signal, limit) in [(stop_signal(container), limit), (KILL, Some(AFTER_KILL))] {
        match deliver(container, signal).await? {
            Err(error) if !error.is_not_found() => return Err(Error::new(Kind::Internal, error.to_string())),
            _ => container.publish_with(daemon, "kill", &[("signal", signal.to_string())]),
        }
        if until_end(container, before, limit).await {
            return Ok(());
        }
    }
    Err(Error::new(Kind::Internal, format!("container {} does not end", container.id)))
}

/// Stops it, if it runs, and starts it.
///
/// # Errors
/// It can't be ended, or does not start.
pub async fn restart(daemon: &Arc<Daemon>, container: &Arc<Container>, how: Stop) -> Result<()> {
    let _before = container.comes_back.fetch_add(1, Ordering::SeqCst);
    let restarted = async {
        if container.is_running() {
            end(daemon, container, how).await?;
            container.publish(daemon, "stop");
        }
        lifecycle::start(daemon, container).await
    }
    .await;
    let _before = container.comes_back.fetch_sub(1, Ordering::SeqCst);
    restarted?;
    container.publish(daemon, "restart");
    Ok(())
}

/// Freezes a container.
///
/// # Errors
/// It does not run, is frozen already, or waits to be started again.
pub async fn pause(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<()> {
    let _changing = to_change(container).await?;
    let state = container.read(|record| record.state.clone());
    if !state.running {
        return Err(not_running(container));
    }
    if state.paused {
        return Err(Error::conflict(format!("Container {} is already paused", container.id)));
    }
    if state.restarting {
        return Err(Error::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        )));
    }
    running(container)?.pause().await.map_err(|error| {
        Error::new(Kind::Internal, format!("cannot pause container {}: {error}", container.id))
    })?;
    container.change(|record| record.state.paused = true);
    container.save(daemon).await?;
    container.publish(daemon, "pause");
    Ok(())
}

/// Lets a frozen container go on.
///
/// # Errors
/// It is not frozen.
pub async fn unpause(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<()> {
    let _changing = to_change(container).await?;
    if !container.read(|record| record.state.paused) {
        return Err(Error::new(Kind::Internal, format!("Container {} is not paused", container.id)));
    }
    running(container)?.resume().await.map_err(|error| {
        Error::new(Kind::Internal, format!("Cannot unpause container {}: {error}", container.id))
    })?;
    container.change(|record| record.state.paused = false);
    container.save(daemon).await?;
    container.publish(daemon, "unpause");
    Ok(())
}

/// Sets the size of the first process's terminal.
///
/// # Errors
/// It does not run, or has none.
pub async fn resize(daemon: &Arc<Daemon>, container: &Arc<Container>, height: u32, width: u32) -> Result<()> {
    running(container)?
        .resize("", width, height)
        .await
        .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
    let size = [("height", height.to_string()), ("width", width.to_string())];
    container.publish_with(daemon, "resize", &size);
    Ok(())
}
