//! What reconcilers are woken by.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::Committed;

#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A transaction entered the store, which has it by now.
    Committed(Arc<Committed>),
    /// The store was replaced by a snapshot's, or the reader was too slow for the list: look at all of it.
    Everything,
}

/// The committed changes from the moment of [`ClusterLog::notices`](crate::ClusterLog::notices) on, in the log's order.
/// Ask for it first and read the store then, so that nothing falls between.
#[derive(Debug)]
pub struct Notices(pub(crate) broadcast::Receiver<Notice>);

impl Notices {
    /// The next one; none once the log was shut down.
    pub async fn next(&mut self) -> Option<Notice> {
        match self.0.recv().await {
            Ok(notice) => Some(notice),
            Err(RecvError::Lagged(_)) => Some(Notice::Everything),
            Err(RecvError::Closed) => None,
        }
    }
}
