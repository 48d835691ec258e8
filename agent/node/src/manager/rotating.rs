//! Moves the cluster to its next root: which nodes are to renew now, and the end of it. The steps are
//! [`ketch_ca::rotation`]'s; dispatchers tell the nodes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ketch_ca::rotation::{Step, step};
use ketch_cluster::id::NodeId;
use ketch_cluster::store::{ObjectId, StoreAction};
use ketch_cluster::time::Timestamp;
use tokio::time::timeout;

use super::changes::{Changes, Wake};
use super::leader::Leader;

/// Without a rotation it looks again so often, although only a change can begin one.
const LOOK: Duration = Duration::from_secs(60);
const LEAST: Duration = Duration::from_millis(100);

/// Keeps at it until it is dropped.
pub(super) async fn keep(leader: &Leader) {
    let mut changes = leader.changes();
    loop {
        let pause = look(leader).await;
        tokio::time::sleep(LEAST).await;
        drop(timeout(pause, concerned(&mut changes)).await);
    }
}

/// Does what is to be done now; how long until it looks again.
async fn look(leader: &Leader) -> Duration {
    match next(leader) {
        None | Some(Step::None) => {
            ask(leader, BTreeSet::new());
            LOOK
        }
        Some(Step::Ask { nodes, progress, again_at }) => {
            tracing::debug!(?progress, "nodes are moved to the next root");
            ask(leader, nodes.into_iter().collect());
            again_at.since(leader.now())
        }
        Some(Step::Finish(_)) => {
            ask(leader, BTreeSet::new());
            finish(leader).await;
            Duration::ZERO
        }
    }
}

fn next(leader: &Leader) -> Option<Step> {
    let (now, mut bits) = (leader.now(), leader.bits());
    leader.view(|view| {
        let cluster = view.cluster().filter(|cluster| cluster.root_ca.rotation.is_some())?;
        step_of(view, cluster, (now, &mut bits))
    })
}

fn step_of(
    view: &ketch_cluster::view::View<'_>,
    cluster: &ketch_cluster::objects::Cluster,
    (now, bits): (Timestamp, ketch_cluster::id::NewBits<'_>),
) -> Option<Step> {
    match step(cluster, view.nodes().map(AsRef::as_ref), now, bits) {
        Ok(step) => Some(step),
        Err(error) => {
            tracing::warn!(%error, "the next root can't be read");
            None
        }
    }
}

/// Judged once more, on what is committed by now.
async fn finish(leader: &Leader) {
    let finished = leader
        .change::<_, Infallible>(|view, now, bits| {
            let step = view.cluster().and_then(|cluster| step_of(view, cluster, (now, bits)));
            Ok(match step {
                Some(Step::Finish(cluster)) => ((), vec![StoreAction::Update((*cluster).into())]),
                _ => ((), Vec::new()),
            })
        })
        .await;
    match finished {
        Ok(()) => tracing::info!("the cluster has moved to its next root"),
        Err(error) => tracing::debug!(%error, "the end of the old root can't be written yet"),
    }
}

fn ask(leader: &Leader, nodes: BTreeSet<NodeId>) {
    leader.renewals.send_if_modified(|known| {
        let differs = **known != nodes;
        if differs {
            *known = Arc::new(nodes);
        }
        differs
    });
}

/// Returns at the next change of the cluster or of a node.
async fn concerned(changes: &mut Changes) {
    while let Some(wake) = changes.next().await {
        let is_read = match wake {
            Wake::Committed(committed) => committed
                .changes
                .iter()
                .any(|change| matches!(change.id(), Some(ObjectId::Node(_) | ObjectId::Cluster(_)))),
            Wake::Noted(_) => false,
            Wake::Everything => true,
        };
        if is_read {
            return;
        }
    }
    std::future::pending().await
}
