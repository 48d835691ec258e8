//! Calls of raft that go on to their end when nobody waits for them any more. All calls of this crate's go this way.
//!
//! The first call that meets a raft which has stopped waits for its task, and keeps for the others what it ended with
//! (openraft 0.10, `join_core_task`). When that one is given up in between, each later call panics, and with it the process: seen
//! with a full disk, when a manager's connection ended in that moment.

use std::future::Future;

use crate::consensus::Raft;

/// Waits for the call; whoever gives that up leaves the call as it is.
pub(crate) async fn carried<T, F>(raft: &Raft, call: impl FnOnce(Raft) -> F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    match tokio::spawn(call(raft.clone())).await {
        Ok(answer) => answer,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and with it whoever waits.
        Err(_) => std::future::pending().await,
    }
}
