//! Containers that are started with the daemon, as their restart policies want it: which those are, [`takeover`](super::takeover)
//! says, who calls this.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::poll_immediate;
use tokio::task::JoinSet;
use tracing::warn;

use super::container::{Container, Record};
use super::lifecycle::run;
use super::places;
use crate::daemon::Daemon;

/// Starts what its policy wants to run. What could not be while no manager gave it its place in a network of the cluster is tried again
/// when the node is in a session: after a power cut at a whole site that may take long.
pub(super) async fn start_again(daemon: Arc<Daemon>, containers: Vec<Arc<Container>>) {
    daemon.begun().await;
    let Ok(node) = daemon.node() else { return };
    let mut session = pin!(node.in_session());
    let was_alone = poll_immediate(session.as_mut()).await.is_none();
    let waiting = |container: &Arc<Container>| container.read(|it| places::needs_cluster(&daemon, it));
    let waiting: Vec<_> = containers.iter().filter(|it| was_alone && waiting(it)).cloned().collect();
    waiting.iter().for_each(|it| it.waits_for_cluster.store(true, Relaxed));
    let mut left = start_in_order(&daemon, containers, |_, _| true).await;
    left.retain(|container| container.waits_for_cluster.load(Relaxed));
    let mut ending = daemon.ending.subscribe();
    let is_begun = !left.is_empty()
        && tokio::select! {
            () = session => true,
            () = async { drop(ending.wait_for(|ending| *ending).await) } => false,
        };
    if is_begun {
        let _still = start_in_order(&daemon, left, is_still_to_run).await;
    }
    waiting.iter().for_each(|it| it.waits_for_cluster.store(false, Relaxed));
}

/// Whether nobody has said anything else meanwhile.
fn is_still_to_run(daemon: &Daemon, container: &Arc<Container>) -> bool {
    let is_there = daemon.engine.find(&container.id).is_ok_and(|it| Arc::ptr_eq(&it, container));
    let may = |record: &Record| {
        !record.was_stopped && !matches!(record.host_config.restart_policy.name.as_str(), "" | "no")
    };
    is_there && container.read(may)
}

/// First what needs no other container, all at once, then what lives with another; those that could not be started.
async fn start_in_order(
    daemon: &Arc<Daemon>,
    containers: Vec<Arc<Container>>,
    is_to_run: fn(&Daemon, &Arc<Container>) -> bool,
) -> Vec<Arc<Container>> {
    let lives_with_another = |container: &Arc<Container>| {
        container.read(|Record { host_config, .. }| {
            let modes = [&host_config.network_mode, &host_config.ipc_mode, &host_config.pid_mode];
            modes.into_iter().any(|mode| mode.starts_with("container:"))
                || host_config.links.as_ref().is_some_and(|links| !links.is_empty())
        })
    };
    let (after, first): (Vec<_>, Vec<_>) = containers.into_iter().partition(lives_with_another);
    let mut left = Vec::new();
    for round in [first, after] {
        let mut starts = JoinSet::new();
        for container in round {
            let daemon = Arc::clone(daemon);
            let _task = starts.spawn(async move {
                (!start_one(&daemon, &container, is_to_run).await).then_some(container)
            });
        }
        while let Some(started) = starts.join_next().await {
            left.extend(started.ok().flatten());
        }
    }
    left
}

/// Whether there is nothing left to be done for it.
async fn start_one(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    is_to_run: fn(&Daemon, &Arc<Container>) -> bool,
) -> bool {
    let _changing = container.changing.lock().await;
    if container.is_running() || daemon.is_ending() || !is_to_run(daemon, container) {
        return true;
    }
    container.change(|record| record.was_stopped = false);
    match run(daemon, container).await {
        Ok(_) => {
            container.waits_for_cluster.store(false, Relaxed);
            true
        }
        Err(error) => {
            warn!("starting {} again: {error}", container.id);
            false
        }
    }
}
