//! Logs of tasks for whoever reads them by the leader. The leader takes a batch before the next one is read: a slow reader
//! holds nothing but its own batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Task;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::session::Session;
use crate::calls::{LogsTell, LogsWanted};
use crate::executor::LogLine;
use crate::executor::LogOptions;

/// Of a batch: lines, bytes, and how long they are gathered.
const MOST_LINES: usize = 512;
const MOST_BYTES: usize = 256 << 10;
const GATHER: Duration = Duration::from_millis(50);
/// How long the leader may take for a batch: as long as a reader does not read.
const TAKEN: Duration = Duration::from_secs(60);

type Wanted = Vec<(TaskId, Option<Arc<Task>>)>;

/// The readers of one session; they end with it.
#[derive(Debug)]
pub(super) struct Readers {
    session: Session,
    running: JoinSet<()>,
    by_subscription: BTreeMap<u64, AbortHandle>,
}

impl Readers {
    pub(super) fn new(session: Session) -> Self {
        Self { session, running: JoinSet::new(), by_subscription: BTreeMap::new() }
    }

    /// Reads these tasks' logs, those of the tasks that are there.
    pub(super) fn begin(&mut self, wanted: LogsWanted, tasks: Wanted) {
        while self.running.try_join_next().is_some() {}
        self.by_subscription.retain(|_, reader| !reader.is_finished());
        let subscription = wanted.subscription;
        let reader = Reader { session: self.session.clone(), subscription };
        let reader = self.running.spawn(reader.run(wanted.options, tasks));
        if let Some(before) = self.by_subscription.insert(subscription, reader) {
            before.abort();
        }
    }

    pub(super) fn end(&mut self, subscription: u64) {
        if let Some(reader) = self.by_subscription.remove(&subscription) {
            reader.abort();
        }
    }
}

/// What comes of one task's log.
enum Piece {
    Line(LogLine),
    /// No more of it; with why, when it could not be read.
    End(String),
}

#[derive(Debug)]
struct Reader {
    session: Session,
    subscription: u64,
}

impl Reader {
    async fn run(self, options: LogOptions, tasks: Wanted) {
        let (sender, mut pieces) = mpsc::channel(1);
        let mut logs = JoinSet::new();
        for (id, task) in tasks {
            logs.spawn(read(self.session.clone(), (id, task), options.clone(), sender.clone()));
        }
        drop(sender);
        while let Some(batch) = self.gather(&mut pieces).await {
            match self.session.hands.links.ask(&self.session.leader, &batch, TAKEN).await {
                Ok(taken) if taken.go_on => {}
                Ok(_) => return,
                Err(error) => return tracing::debug!(%error, "nobody takes the logs of tasks"),
            }
        }
    }

    /// The next batch; none when all logs have ended.
    async fn gather(&self, pieces: &mut mpsc::Receiver<(TaskId, Piece)>) -> Option<LogsTell> {
        let mut batch = LogsTell {
            session: self.session.number,
            subscription: self.subscription,
            lines: Vec::new(),
            ended: Vec::new(),
        };
        let mut bytes = 0;
        let mut next = pieces.recv().await?;
        let end = Instant::now() + GATHER;
        loop {
            match next {
                (task, Piece::End(reason)) => batch.ended.push((task, reason)),
                (task, Piece::Line(line)) => {
                    bytes += line.line.len();
                    batch.lines.push((task, line));
                }
            }
            if batch.lines.len() >= MOST_LINES || bytes >= MOST_BYTES {
                return Some(batch);
            }
            match timeout_at(end, pieces.recv()).await {
                Ok(Some(piece)) => next = piece,
                Ok(None) | Err(_) => return Some(batch),
            }
        }
    }
}

async fn read(
    session: Session,
    (id, task): (TaskId, Option<Arc<Task>>),
    options: LogOptions,
    sender: mpsc::Sender<(TaskId, Piece)>,
) {
    let reason = match task {
        None => format!("task {id} is not on this node"),
        Some(task) => match session.hands.executor.logs(task, options).await {
            Err(reason) => reason,
            Ok(mut lines) => {
                while let Some(line) = lines.recv().await {
                    if sender.send((id, Piece::Line(line))).await.is_err() {
                        return;
                    }
                }
                String::new()
            }
        },
    };
    // Whoever gathers may have ended.
    let _ = sender.send((id, Piece::End(reason))).await;
}
