//! What stands between a container's pipe and its log: entries that wait for the disk, written in batches by one thread at a
//! time, taken when there is something to write.
//!
//! In blocking mode a writer waits while more than a little is queued, and with it the pipe; in non-blocking mode entries that
//! do not fit are dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tracing::warn;

use super::entry::Entry;
use super::options::Mode;
use super::sink::Sink;

use crate::locks::locked;

/// How much waits in blocking mode before the writer does, in bytes.
const AHEAD: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Queue {
    mode: Mode,
    state: Mutex<State>,
    /// Told after each batch.
    written: Notify,
    sink: Arc<Mutex<Sink>>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Of those that wait and those that are being written.
    bytes: usize,
    draining: bool,
    /// How many entries have ever been queued, and how many of them are with the sink.
    queued: u64,
    taken: u64,
    dropped: u64,
    failing: bool,
}

impl Queue {
    pub(super) fn new(mode: Mode, sink: Sink) -> Arc<Self> {
        Arc::new(Self {
            mode,
            state: Mutex::default(),
            written: Notify::new(),
            sink: Arc::new(Mutex::new(sink)),
        })
    }

    /// Queues entries; in blocking mode it returns when most of what is queued is written.
    pub(super) async fn push(self: &Arc<Self>, entries: Vec<Entry>) {
        let limit = match self.mode {
            Mode::Blocking => usize::MAX,
            Mode::NonBlocking(limit) => limit,
        };
        {
            let mut state = self.state();
            for entry in entries {
                // What an entry takes beside its line counts too: lines may be empty.
                let beside = state.entries.len() * size_of::<Entry>();
                if (state.bytes + entry.line.len() > limit && state.bytes > 0) || beside > limit {
                    state.dropped += 1;
                } else {
                    state.bytes += entry.line.len();
                    state.queued += 1;
                    state.entries.push_back(entry);
                }
            }
            if !state.draining && !state.entries.is_empty() {
                state.draining = true;
                let queue = Arc::clone(self);
                drop(tokio::task::spawn_blocking(move || queue.drain()));
            }
        }
        if self.mode == Mode::Blocking {
            self.wait(|state| state.bytes <= AHEAD).await;
        }
    }

    /// Waits until all is written that is queued now; what comes meanwhile is not waited for.
    pub(super) async fn flush(&self) {
        let queued = self.state().queued;
        self.wait(|state| state.taken >= queued).await;
    }

    /// Ends the sink behind everything that is queued.
    pub(super) async fn close(&self) {
        self.flush().await;
        let sink = Arc::clone(&self.sink);
        let closed = tokio::task::spawn_blocking(move || locked(&sink).close());
        if let Err(error) = closed.await {
            warn!("closing a log: {error}");
        }
    }

    async fn wait(&self, until: impl Fn(&State) -> bool) {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            // From here on a batch is told to us, also one that ends before we wait.
            let _told = written.as_mut().enable();
            if until(&self.state()) {
                return;
            }
            written.await;
        }
    }

    fn drain(&self) {
        let mut sink = locked(&self.sink);
        loop {
            let batch = {
                let mut state = self.state();
                if state.entries.is_empty() {
                    state.draining = false;
                    self.written.notify_waiters();
                    return;
                }
                Vec::from(std::mem::take(&mut state.entries))
            };
            let result = sink.write(&batch);
            let mut state = self.state();
            state.taken += batch.len() as u64;
            state.bytes -= batch.iter().map(|entry| entry.line.len()).sum::<usize>();
            // Once, not for each line of a container that talks to a full disk.
            match (result, state.failing) {
                (Err(error), false) => {
                    warn!("writing a log: {error}");
                    state.failing = true;
                }
                (Ok(()), _) => state.failing = false,
                (Err(_), true) => {}
            }
            drop(state);
            self.written.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// How many entries did not fit.
    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped
    }
}
