//! A manager whose log has stopped by itself, because its disk is full as a rule: it has acknowledged nothing that it could not
//! write, leads no more and gives no vote. It says so, and begins again with what the disk holds, until it can.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::objects::node::NodeRole;
use ketch_raft::Start;
use tokio::time::sleep;

use super::{Log, Member};
use crate::locks::lock;
use crate::manager::Manager;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(5);

impl Member {
    /// For as long as the node is of its cluster.
    pub(super) async fn begin_again_when_failed(self: Arc<Self>) {
        let mut managing = self.managing.subscribe();
        loop {
            let Ok(now) = managing.wait_for(Option::is_some).await.map(|now| now.clone()) else { return };
            let Some(manager) = now.map(|it| it.manager) else { continue };
            // One that was shut down is followed by none, or another.
            let Some(why) = manager.failed().await else {
                drop(managing.wait_for(|now| !is_of(now.as_ref().map(|it| &it.manager), &manager)).await);
                continue;
            };
            tracing::error!(why, "this manager takes no part any more: its raft log can't be written");
            *lock(&self.trouble) = Some(why);
            while !self.has_begun_again(&manager).await {}
            *lock(&self.trouble) = None;
        }
    }

    /// Tries it once; whether there is nothing left to be tried.
    async fn has_begun_again(self: &Arc<Self>, failed: &Arc<Manager>) -> bool {
        sleep(AGAIN).await;
        // Meanwhile it may have been demoted, or promoted anew.
        let _one = self.renewing.lock().await;
        let is_present = {
            let now = self.managing.borrow();
            now.is_none() || is_of(now.as_ref().map(|it| &it.manager), failed)
        };
        if !is_present || lock(&self.keys).identity.role != NodeRole::Manager {
            return true;
        }
        self.stop_managing().await;
        match self.start_managing(Log::Open(Start::Resume)).await {
            Ok(()) => {
                tracing::info!("this manager takes part again");
                true
            }
            Err(error) => {
                tracing::debug!(%error, "this manager can't take part again yet");
                *lock(&self.trouble) = Some(error.to_string());
                false
            }
        }
    }
}

fn is_of(now: Option<&Arc<Manager>>, manager: &Arc<Manager>) -> bool {
    now.is_some_and(|now| Arc::ptr_eq(now, manager))
}
