//! Signals to a container, and what is made of them: kill, stop, restart; pause and unpause, the terminal's size.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use super::container::{Container, Life};
use super::lifecycle;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::shim::{CallError, Task};

/// SIGKILL.
const KILL: u32 = 9;
/// SIGTERM, what a container is stopped with that says nothing else.
const TERM: u32 = 15;
/// How long a container is given that says nothing else.
pub(super) const PATIENCE: i64 = 10;
/// How long the end may take after SIGKILL.
pub(super) const AFTER_KILL: Duration = Duration::from_secs(10);
/// How long another shim may take to follow one that is gone.
const FOLLOWED: Duration = Duration::from_secs(30);
/// How long an end that has begun may take until it is told.
const ENDING: Duration = Duration::from_secs(5);

const NAMES: [(&str, u32); 34] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The number of a signal given as `SIGTERM`, `term` or `15`.
///
/// # Errors
/// There is none: dockerd's text.
pub fn number(text: &str) -> Result<u32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return match number {
            0 => Err(invalid()),
            1..=64 => Ok(number),
            _ => Err(Error::invalid(format!("the linux daemon does not support signal {number}"))),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: u32, rest: &str, sign: i64| {
        let offset = if rest.is_empty() { 0 } else { rest[1..].parse::<i64>().ok()? };
        u32::try_from(i64::from(base) + sign * offset).ok().filter(|number| (34..=64).contains(number))
    };
    let found = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => real_time(34, rest, 1),
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => real_time(64, rest, -1),
        _ => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    };
    found.ok_or_else(invalid)
}

fn not_running(container: &Container) -> Error {
    Error::conflict(format!("container {} is not running", container.id))
}

/// The shim's side of a container that runs.
///
/// # Errors
/// It does not run.
pub fn running(container: &Container) -> Result<Task> {
    container.task().ok_or_else(|| not_running(container))
}

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
    // It may have ended, and its shim not say so.
    if let Some(task) = container.task()
        && !task.is_alive().await
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
            container.doomed.store(true, Ordering::SeqCst);
            container.awake.notify_waiters();
        }
        if restarting && end_pause(daemon, container).await? {
            return Ok(());
        }
        note(daemon, container).await;
    }
    let ends = ends(container);
    match through_its_shim(container, signal).await? {
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

/// Sends a signal by whichever shim holds the container: one that dies or hangs meanwhile is followed by another.
///
/// # Errors
/// It does not run.
async fn through_its_shim(container: &Container, signal: u32) -> Result<Result<(), CallError>> {
    let deadline = tokio::time::Instant::now() + FOLLOWED;
    loop {
        let sent = running(container)?.kill("", signal, false).await;
        match sent {
            Err(error) if error.is_gone() && tokio::time::Instant::now() < deadline => {}
            sent => return Ok(sent),
        }
        container.awake.notify_waiters();
        let _late = tokio::time::timeout_at(deadline, container.next_task()).await;
    }
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
        sent => sent?,
    }
    if until_end(container, before, limit).await {
        return Ok(());
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
        match through_its_shim(container, signal).await? {
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
    let _changing = container.changing.lock().await;
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
    let _changing = container.changing.lock().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, signal) in [("SIGTERM", 15), ("kill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
            assert_eq!(number(text).unwrap(), signal, "{text}");
        }
        for bad in ["", "0", "SIGNOPE", "RTMIN+40", "RTMIN3"] {
            assert_eq!(number(bad).unwrap_err().message, format!("invalid signal: {bad}"));
        }
    }
}
