//! From an election to the end of the leadership that it began.

use std::sync::Arc;
use std::time::Duration;

use ketch_raft::{ClusterLog, Leadership};
use tokio::sync::watch;
use tokio::time::sleep;

use super::leader::{Leader, PATIENCE};
use super::{reconciling, roles, rotating};
use crate::world::World;

/// Between two tries of a new leader to catch up.
const AGAIN: Duration = Duration::from_millis(100);

/// Leads whenever raft says so, until the log is shut down. `published` has the leadership for as long as it holds.
pub(super) async fn follow(
    log: Arc<ClusterLog>,
    world: Arc<dyn World>,
    published: watch::Sender<Option<Arc<Leader>>>,
) {
    let mut leadership = log.leadership();
    loop {
        let Ok(begun) = leadership.wait_for(Leadership::is_leader).await.map(|begun| *begun) else { return };
        let still = |now: &Leadership| now.is_leader() && now.term == begun.term;
        tokio::select! {
            biased;
            _ = leadership.wait_for(|now| !still(now)) => {}
            () = lead(&log, &world, begun.term, &published) => {}
        }
        if let Some(leader) = published.send_replace(None) {
            leader.end();
        }
    }
}

/// Leads until it is dropped.
async fn lead(
    log: &Arc<ClusterLog>,
    world: &Arc<dyn World>,
    term: u64,
    published: &watch::Sender<Option<Arc<Leader>>>,
) {
    while let Err(error) = log.barrier(PATIENCE).await {
        tracing::debug!(%error, "a new leader waits to catch up");
        sleep(AGAIN).await;
    }
    let notices = log.notices();
    let leader = Arc::new(Leader::new(Arc::clone(log), Arc::clone(world), term));
    published.send_replace(Some(Arc::clone(&leader)));
    tracing::info!(term, "this manager leads the cluster");
    tokio::join!(reconciling::drive(&leader, notices), roles::keep(&leader), rotating::keep(&leader));
}
