//! What the dispatcher and watchers are woken by.

use std::sync::Arc;

use ketch_cluster::id::TaskId;
use ketch_raft::Committed;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Something has changed, and the leader's view has it already.
#[derive(Debug, Clone, PartialEq)]
pub enum Wake {
    /// A transaction entered the store.
    Committed(Arc<Committed>),
    /// Workers have said something new of these tasks.
    Noted(Arc<[TaskId]>),
    /// More than could be kept for a slow reader: look at all of it.
    Everything,
}

/// Wakes from the moment on in which it was asked for. Ask for it first and look then, so that nothing falls between.
#[derive(Debug)]
pub struct Changes(pub(super) broadcast::Receiver<Wake>);

impl Changes {
    /// The next one; none once the leadership is over. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Wake> {
        match self.0.recv().await {
            Ok(wake) => Some(wake),
            Err(RecvError::Lagged(_)) => Some(Wake::Everything),
            Err(RecvError::Closed) => None,
        }
    }
}
