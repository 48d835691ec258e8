//! A task's output, line by line, from the engine's log of its container.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::time::Timestamp as Moment;
use ketch_node::executor::{LogLine, LogOptions};
use tokio::sync::mpsc;

use crate::daemon::Daemon;
use crate::engine::container::Container;
use crate::engine::{log_entries, task as tasks};
use crate::error::Kind;
use crate::logs::{Entries, Entry, Options, Stream};
use crate::timestamp::Timestamp;

/// How often a container is looked for that is to be followed and is not made yet.
const BEAT: Duration = Duration::from_millis(250);

/// Reads it; one that is to be followed is waited for.
pub(super) async fn read(
    daemon: &Arc<Daemon>,
    task: TaskId,
    options: LogOptions,
) -> Result<mpsc::Receiver<LogLine>, String> {
    let container = if options.follow { ready(daemon, task).await } else { found(daemon, task) };
    let container = container.ok_or_else(|| format!("task {task} has no container on this node"))?;
    let wanted = Options {
        since: options.since.map(moment),
        until: options.until.map(moment),
        tail: options.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        follow: options.follow,
    };
    let (sender, lines) = mpsc::channel(64);
    let entries = match log_entries::read(daemon, &container, wanted).await {
        Ok(entries) => entries,
        // A log driver that keeps nothing: as with Docker, there are no lines.
        Err(error) if error.kind == Kind::NotImplemented => return Ok(lines),
        Err(error) => return Err(error.message),
    };
    drop(tokio::spawn(pass(entries, options, sender)));
    Ok(lines)
}

fn found(daemon: &Daemon, task: TaskId) -> Option<Arc<Container>> {
    tasks::container_of(daemon, &task.to_string())
}

/// Once it has been started; none when it goes before that.
async fn ready(daemon: &Daemon, task: TaskId) -> Option<Arc<Container>> {
    let container = loop {
        match found(daemon, task) {
            Some(container) => break container,
            None => tokio::time::sleep(BEAT).await,
        }
    };
    let mut life = container.life.subscribe();
    let begun = |container: &Container| container.read(|record| record.was_started);
    let seen = life.wait_for(|life| life.running || life.removed || begun(&container)).await;
    let is_there = seen.is_ok_and(|life| !life.removed);
    is_there.then_some(container)
}

async fn pass(mut entries: Entries, options: LogOptions, sender: mpsc::Sender<LogLine>) {
    loop {
        let entry = tokio::select! {
            biased;
            () = sender.closed() => return,
            entry = entries.recv() => entry,
        };
        let entry = match entry {
            None => return,
            Some(Err(error)) => return tracing::warn!("the log of a task: {error}"),
            Some(Ok(entry)) => entry,
        };
        let is_wanted = match entry.stream {
            Stream::Stdout => options.stdout,
            Stream::Stderr => options.stderr,
        };
        if is_wanted && sender.send(line(entry)).await.is_err() {
            return;
        }
    }
}

fn line(entry: Entry) -> LogLine {
    LogLine {
        at: Moment(u64::try_from(entry.time.nanos()).unwrap_or(0)),
        stream: if entry.stream == Stream::Stdout { 1 } else { 2 },
        line: entry.line,
        attributes: entry.attributes,
    }
}

fn moment(at: Moment) -> Timestamp {
    Timestamp::of_nanos(i64::try_from(at.0).unwrap_or(i64::MAX))
}
