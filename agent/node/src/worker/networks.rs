//! What the executor is told of the cluster's networks: one call after another, each with the latest of all.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::assignment::Item;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::executor::Executor;

/// Until what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// How long the making of a container waits for networks: after that it says itself what is missing. As long as Docker's.
const PREPARE_WAIT: Duration = Duration::from_secs(30);
/// How long a stop waits until no new traffic comes.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// The latest, counted from 1; 0 is before anything was known.
#[derive(Debug, Clone, Default)]
struct Wanted {
    turn: u64,
    items: Arc<Vec<Item>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The turn of the last call that has returned, and of the last that succeeded.
    tried: u64,
    done: u64,
}

#[derive(Debug, Default)]
pub(super) struct Networks {
    wanted: watch::Sender<Wanted>,
    progress: watch::Sender<Progress>,
}

impl Networks {
    /// What the node is to know from now on.
    pub(super) fn want(&self, items: Vec<Item>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.turn == 0 || *wanted.items != items;
            if is_new {
                *wanted = Wanted { turn: wanted.turn + 1, items: Arc::new(items) };
            }
            is_new
        });
    }

    /// Waits until everything that is wanted by now is done. When it can't be done, not for ever.
    pub(super) async fn before_prepare(&self) {
        let turn = self.wanted.borrow().turn;
        let done = self.reached(|progress| progress.done >= turn);
        if timeout(PREPARE_WAIT, done).await.is_err() {
            tracing::warn!("a task is prepared although its networks are not there yet");
        }
    }

    /// Waits until the executor was told anything at all: after a restart, what was kept.
    pub(super) async fn before_start(&self) {
        let tried = self.reached(|progress| progress.tried > 0);
        if timeout(PREPARE_WAIT, tried).await.is_err() {
            tracing::warn!("a task is started although its networks are not told yet");
        }
    }

    /// Waits until the executor knows what is wanted by now: whom no new connection is to reach.
    pub(super) async fn before_stop(&self) {
        let turn = self.wanted.borrow().turn;
        let tried = self.reached(|progress| progress.tried >= turn);
        if timeout(STOP_WAIT, tried).await.is_err() {
            tracing::warn!("a task is stopped although its networks are not told yet");
        }
    }

    async fn reached(&self, is_reached: impl FnMut(&Progress) -> bool) {
        // The sender is here as well: it can't end first.
        let _ = self.progress.subscribe().wait_for(is_reached).await;
    }

    pub(super) async fn run(&self, executor: Arc<dyn Executor>) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let Wanted { turn, items } = wanted.borrow_and_update().clone();
            let result = if turn == 0 { Ok(()) } else { executor.network(&items).await };
            self.progress.send_modify(|progress| {
                progress.tried = turn;
                if result.is_ok() {
                    progress.done = turn;
                }
            });
            let changed = async { wanted.changed().await.is_ok() };
            let goes_on = match result {
                Ok(()) => changed.await,
                Err(reason) => {
                    tracing::warn!(%reason, "the cluster's networks are not as they are to be");
                    timeout(RETRY, changed).await.unwrap_or(true)
                }
            };
            if !goes_on {
                return;
            }
        }
    }
}
